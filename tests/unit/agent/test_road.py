"""One name, several brokers."""

from __future__ import annotations

import collections
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from omamori_agent.link import road
from omamori_agent.link.road import MAX_ADDRESSES

NAME = "broker.example"


@pytest.fixture
def living() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def dead() -> Iterator[int]:
    """A port of 127.0.0.0/8 that refuses at once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        yield taken.getsockname()[1]


def name_server(monkeypatch: pytest.MonkeyPatch, *ends: tuple[Any, ...]) -> None:
    real = socket.getaddrinfo

    def answer(host: str, port: int, *rest: Any, **named: Any) -> Any:
        if host != NAME:
            return real(host, port, *rest, **named)
        return [(socket.AF_INET6 if ":" in end[0] else socket.AF_INET, 1, 6, "", end) for end in ends]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def connect(within_s: float = 5.0) -> tuple[str, int]:
    with road._connect(NAME, 1, time.monotonic() + within_s) as sock:
        host, port = sock.getpeername()[:2]
        return host, port


def test_a_dead_node_costs_a_try_only(monkeypatch: pytest.MonkeyPatch, living: socket.socket, dead: int) -> None:
    end = living.getsockname()
    name_server(monkeypatch, ("127.0.0.2", dead), end, ("127.0.0.2", dead))
    assert [connect() for _ in range(20)] == [end] * 20


def test_a_silent_node_does_not_use_up_the_time(monkeypatch: pytest.MonkeyPatch, living: socket.socket) -> None:
    tried: list[tuple[str, float]] = []
    real = socket.create_connection

    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append((address[0], timeout))
        if address[0].startswith("192.0.2."):
            raise TimeoutError
        return real(address, timeout)

    monkeypatch.setattr(socket, "create_connection", silent)
    monkeypatch.setattr("random.sample", lambda kind, _size: kind)
    name_server(monkeypatch, ("192.0.2.1", 1), ("192.0.2.2", 1), living.getsockname())
    connect(within_s=9.0)
    assert [host for host, _ in tried] == ["192.0.2.1", "192.0.2.2", "127.0.0.1"]
    assert tried[0][1] == pytest.approx(3.0, abs=0.5)


def test_boxes_spread_over_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: collections.Counter[str] = collections.Counter()

    def first(address: tuple[str, int], **_named: Any) -> Any:
        seen[address[0]] += 1
        return address

    monkeypatch.setattr(socket, "create_connection", first)
    name_server(monkeypatch, *((f"192.0.2.{n}", 1) for n in (1, 2, 3)))
    for _ in range(600):
        road._connect(NAME, 1, time.monotonic() + 5)
    assert len(seen) == 3
    assert min(seen.values()) > 120


def test_order_of_kinds_is_the_system_s_and_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(address: tuple[str, int], **_named: Any) -> Any:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    ends: list[tuple[Any, ...]] = [(f"2001:db8::{n}", 1, 0, 0) for n in (1, 2, 3)]
    ends += [(f"192.0.2.{n}", 1) for n in range(1, MAX_ADDRESSES - 3 + 2)]
    name_server(monkeypatch, *ends)
    with pytest.raises(ConnectionRefusedError):
        road._connect(NAME, 1, time.monotonic() + 5)
    assert len(tried) == MAX_ADDRESSES == len(ends) - 1
    assert all(":" in host for host in tried[:3])
    assert not any(":" in host for host in tried[3:])


def test_no_address_and_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    name_server(monkeypatch)
    with pytest.raises(OSError, match="no address"):
        connect()
    name_server(monkeypatch, ("127.0.0.1", 1))
    with pytest.raises(TimeoutError):
        connect(within_s=-1)
