"""What the operator tells a broker of several nodes: every node what is retained, one node the rest."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from omamori_ota import broker as module
from omamori_ota.broker import BrokerAddress, publish, publish_retained
from omamori_ota.errors import TransientError

NODES = ("192.0.2.1", "192.0.2.2", "192.0.2.3")


class World:
    """Nodes behind one name, and what each was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away: set[str] = set()
        self.told: list[tuple[str, str, bool]] = []
        self.ends: tuple[str, ...] = NODES
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)
        monkeypatch.setattr(module, "_connection", self._connection)
        self.broker = BrokerAddress(host="broker.example", port=8883, tls_directory=Path("/nowhere"))

    def _resolve(self, _host: str, port: int, **_options: Any) -> list[Any]:
        if not self.ends:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET6 if ":" in end else socket.AF_INET, 1, 6, "", (end, port)) for end in self.ends]

    @contextlib.contextmanager
    def _connection(self, node: BrokerAddress, _client_id: str, _timeout_s: float) -> Iterator[Any]:
        if node.node in self.away:
            raise TransientError(f"broker {node}: away", hint="look")

        def tell(topic: str, _payload: bytes, *, retain: bool, properties: Any) -> None:
            assert properties.ContentType == "application/cbor"
            self.told.append((node.node, topic, retain))

        yield SimpleNamespace(publish=tell)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_what_is_retained_goes_to_every_node(world: World) -> None:
    publish(world.broker, "t", b"", retain=True)
    assert world.told == [(node, "t", True) for node in NODES]


def test_what_is_not_retained_goes_to_one(world: World) -> None:
    world.away = {NODES[0]}
    publish(world.broker, "t", b"", retain=False, expiry_s=60)
    assert world.told == [(NODES[1], "t", False)]


def test_a_node_that_is_away_is_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.away = {NODES[1]}
    with caplog.at_level(logging.WARNING):
        publish_retained(world.broker, [("a", b""), ("b", b"")])
    assert world.told == [(node, topic, True) for node in (NODES[0], NODES[2]) for topic in "ab"]
    assert len(caplog.messages) == 1
    assert f"broker.example:8883 at {NODES[1]}: away" in caplog.messages[0]
    assert "omamori-ota desired resend" in caplog.messages[0]


def test_all_away_is_an_error(world: World) -> None:
    world.away = set(NODES)
    for retain in (True, False):
        with pytest.raises(TransientError, match="away") as caught:
            publish(world.broker, "t", b"", retain=retain)
        assert caught.value.hint == "look"


def test_a_kind_of_address_that_leads_nowhere_is_no_node(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.ends = ("2001:db8::1", "192.0.2.1")
    world.away = {"2001:db8::1"}
    publish(world.broker, "t", b"", retain=True)
    assert world.told == [("192.0.2.1", "t", True)]
    assert not caplog.messages


def test_a_name_that_is_none(world: World) -> None:
    world.ends = ()
    with pytest.raises(TransientError, match="no such name"):
        publish(world.broker, "t", b"", retain=True)


class Willing:
    """In paho's place: a connected broker that answers what is published with one reason after the other."""

    reasons: tuple[str, ...] = ()

    def __init__(self, *_words: object, **_options: object) -> None:
        self.told = 0
        self.on_publish: Any = None

    def tls_set_context(self, _context: object) -> None: ...

    connect = loop_start = disconnect = loop_stop = lambda self, *_words, **_options: None

    def is_connected(self) -> bool:
        return True

    def publish(self, _topic: str, _payload: bytes, **_options: object) -> Any:
        reason = ReasonCode(PacketTypes.PUBACK, self.reasons[min(self.told, len(self.reasons) - 1)])
        self.told += 1
        self.on_publish(self, None, self.told, reason, None)
        return SimpleNamespace(wait_for_publish=lambda _timeout_s: None)


@pytest.fixture
def willing(monkeypatch: pytest.MonkeyPatch) -> type[Willing]:
    class OfThisTest(Willing): ...

    monkeypatch.setattr(module, "_Client", OfThisTest)
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    monkeypatch.setattr(BrokerAddress, "tls_context", lambda _self: None)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_words, **_options: [(socket.AF_INET, 1, 6, "", (NODES[0], 1))])
    return OfThisTest


def tell(willing: type[Willing], *reasons: str, retain: bool = True, timeout_s: float = 5.0) -> None:
    willing.reasons = reasons
    broker = BrokerAddress(host="broker.example", port=8883, tls_directory=Path("/nowhere"))
    publish(broker, "t", b"", retain=retain, timeout_s=timeout_s)


def test_a_node_that_is_not_willing_yet_is_told_again(willing: type[Willing]) -> None:
    tell(willing, "Implementation specific error", "Implementation specific error", "Success")


def test_a_node_that_stays_unwilling_is_an_error(willing: type[Willing]) -> None:
    with pytest.raises(TransientError, match="did not acknowledge: message: Implementation specific error"):
        tell(willing, "Implementation specific error", timeout_s=0.1)


def test_a_refusal_is_final(willing: type[Willing]) -> None:
    with pytest.raises(TransientError, match="did not acknowledge: message: Not authorized"):
        tell(willing, "Not authorized", "Success")


def test_nobody_hears_what_is_not_retained(willing: type[Willing]) -> None:
    with pytest.raises(TransientError, match="nobody who would hear it"):
        tell(willing, "No matching subscribers", retain=False)
    tell(willing, "No matching subscribers", retain=True)
