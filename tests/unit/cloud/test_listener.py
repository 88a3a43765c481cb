"""Where the page may listen."""

from __future__ import annotations

import os
import socket

import pytest

from omamori_cloud.errors import ListenError
from omamori_cloud.listener import describe, open_listener


def test_loopback_is_fine() -> None:
    with open_listener("127.0.0.1:0", allow_remote=False) as listener:
        port = listener.getsockname()[1]
        assert describe(listener) == f"http://127.0.0.1:{port}/"


def test_ipv6_loopback_is_fine() -> None:
    with open_listener("[::1]:0", allow_remote=False) as listener:
        assert describe(listener).startswith("http://[::1]:")


@pytest.mark.parametrize("spec", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_an_address_that_others_can_reach_needs_insistence(spec: str) -> None:
    with pytest.raises(ListenError) as caught:
        open_listener(spec, allow_remote=False)
    assert "--allow-remote" in caught.value.hint


def test_with_insistence_it_listens_everywhere() -> None:
    open_listener("0.0.0.0:0", allow_remote=True).close()


@pytest.mark.parametrize("spec", ["", "8080", "127.0.0.1", "127.0.0.1:65536", "example.com:80", "fd://x", "1.2.3:80"])
def test_what_is_no_address(spec: str) -> None:
    with pytest.raises(ListenError):
        open_listener(spec, allow_remote=True)


def test_an_address_in_use() -> None:
    with open_listener("127.0.0.1:0", allow_remote=False) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ListenError, match="in use"):
            open_listener(f"127.0.0.1:{port}", allow_remote=False)


def test_an_inherited_listening_socket() -> None:
    parent = socket.create_server(("127.0.0.1", 0))
    descriptor = os.dup(parent.fileno())
    with open_listener(f"fd://{descriptor}", allow_remote=False) as listener:
        assert listener.getsockname() == parent.getsockname()
    parent.close()


def test_an_inherited_socket_obeys_the_same_rule() -> None:
    parent = socket.create_server(("0.0.0.0", 0))
    with pytest.raises(ListenError, match="can be reached"):
        open_listener(f"fd://{os.dup(parent.fileno())}", allow_remote=False)
    parent.close()


def test_an_inherited_descriptor_that_is_no_listening_socket() -> None:
    reader, writer = os.pipe()
    with pytest.raises(ListenError, match="not a socket"):
        open_listener(f"fd://{reader}", allow_remote=False)
    os.close(reader)
    os.close(writer)
    with socket.socket() as idle:
        with pytest.raises(ListenError, match="not a listening"):
            open_listener(f"fd://{idle.fileno()}", allow_remote=False)
        idle.getsockname()  # left open: it was not ours
