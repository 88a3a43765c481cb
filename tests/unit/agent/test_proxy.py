"""Downloads through an office's proxy, and what a proxy may not do to them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api import exceptions

from omamori_agent.feed.fetcher import HTTPSFetcher
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.firmware.errors import UpdateWaitsError
from omamori_agent.firmware.limits import FirmwareLimits
from omamori_agent.firmware.stream import HTTPSStream, make_fetcher
from omamori_agent.proxy import MAX_HEAD_BYTES
from sim.mosquitto import free_port
from sim.pki import Authority
from sim.proxy import Proxy
from sim.repository import FileServer, answer_range

BODY = bytes(range(256)) * 4096
LIMITS = FeedLimits(connect_timeout_s=1.0, read_timeout_s=2.0, request_s=5.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    made = FileServer({"file": BODY}, tmp_path)
    with made:
        yield made


def port_of(server: FileServer) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture
def proxy(server: FileServer) -> Iterator[Proxy]:
    made = Proxy({port_of(server)})
    yield made
    made.close()


def fetch(server: FileServer, proxy_port: int, directory: Path) -> bytes:
    fetcher = HTTPSFetcher(server.ca_file, directory, LIMITS, proxy=("127.0.0.1", proxy_port))
    with fetcher.download_file(f"{server.url}/file", len(BODY)) as file:
        return file.read()


def test_a_download_goes_through_the_proxy(server: FileServer, proxy: Proxy, tmp_path: Path) -> None:
    assert fetch(server, proxy.port, tmp_path) == BODY
    there = f"localhost:{port_of(server)}"
    assert proxy.requests == [f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n".encode()]


def test_several_downloads_share_one_tunnel(server: FileServer, proxy: Proxy, tmp_path: Path) -> None:
    fetcher = HTTPSFetcher(server.ca_file, tmp_path, LIMITS, proxy=("127.0.0.1", proxy.port))
    for _ in range(3):
        assert fetcher.download_bytes(f"{server.url}/file", len(BODY)) == BODY
    assert len(proxy.requests) == 1


def test_ranges_go_through_the_proxy_and_a_cut_costs_nothing(server: FileServer, proxy: Proxy, tmp_path: Path) -> None:
    limits = FirmwareLimits(connect_timeout_s=1.0)
    stream = HTTPSStream(make_fetcher(server.ca_file, tmp_path, limits, ("127.0.0.1", proxy.port)), limits)
    server.behaviours["file"] = lambda handler: answer_range(handler, BODY, cut_after=300_000)
    got = b""
    while len(got) < len(BODY):
        try:
            for chunk in stream.read(f"{server.url}/file", len(got), len(BODY), len(BODY)):
                got += chunk
        except UpdateWaitsError:
            continue
    assert got == BODY
    assert server.sent["file"] == len(BODY)
    assert len(proxy.requests) == -(-len(BODY) // 300_000)


def test_without_the_proxy_when_it_is_not_there(server: FileServer, tmp_path: Path) -> None:
    assert fetch(server, free_port(), tmp_path) == BODY


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_without_the_proxy_when_it_refuses(server: FileServer, tmp_path: Path, answer: bytes) -> None:
    refusing = Proxy(set(), answer)
    try:
        assert fetch(server, refusing.port, tmp_path) == BODY
    finally:
        refusing.close()
    assert len(refusing.requests) == 1


def test_a_proxy_that_drips_its_answer_costs_the_time_out_and_no_more(server: FileServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                while not over.wait(0.1):
                    client.sendall(b"H")

        over = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        began = time.monotonic()
        assert fetch(server, listener.getsockname()[1], tmp_path) == BODY
        assert time.monotonic() - began < 4 * LIMITS.connect_timeout_s + 2
        over.set()
        thread.join(5)


def test_a_proxy_that_looks_inside_gets_nothing(server: FileServer, tmp_path: Path) -> None:
    """It answers itself, with a certificate of its own authority."""
    (tmp_path / "stranger").mkdir()
    imitation = FileServer({"file": b"evil"}, tmp_path / "stranger", authority=Authority("stranger"))
    with imitation:
        bad = Proxy({port_of(server)}, leads_to=port_of(imitation))
        with pytest.raises(exceptions.DownloadError, match="certificate"):
            fetch(server, bad.port, tmp_path)
        bad.close()
    assert imitation.requests == []
