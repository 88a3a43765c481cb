"""The client's side of a WebSocket against everything a server may send."""

import struct
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.link.websocket import WebSocket, WebSocketError, expected_answer, masked_frame


class Wire:
    """A non-blocking socket in memory."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = deque(pieces)
        self.sent = bytearray()
        self.takes = 10**9
        self.largest_read = 0

    def recv(self, length: int) -> bytes:
        self.largest_read = max(self.largest_read, length)
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces.popleft()
        if len(piece) > length:
            self.pieces.appendleft(piece[length:])
        return piece[:length]

    def send(self, data: bytes) -> int:
        if not self.takes:
            raise BlockingIOError
        taken = data[: self.takes]
        self.takes -= len(taken)
        self.sent += taken
        return len(taken)

    def fileno(self) -> int:
        return 3

    def setblocking(self, flag: bool) -> None:
        pass

    def close(self) -> None:
        pass


def frame(payload: bytes, opcode: int = 2, first: int = 0x80) -> bytes:
    """A frame as a server sends it."""
    length = len(payload)
    if length < 126:
        head = bytes((first | opcode, length))
    elif length < 2**16:
        head = bytes((first | opcode, 126)) + struct.pack("!H", length)
    else:
        head = bytes((first | opcode, 127)) + struct.pack("!Q", length)
    return head + payload


def unmask(data: bytes) -> list[tuple[int, bytes]]:
    """What a server reads in a client's frames."""
    frames = []
    while data:
        assert data[1] & 0x80
        length, at = data[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        key, at = data[at : at + 4], at + 4
        frames.append((data[0], bytes(byte ^ key[i % 4] for i, byte in enumerate(data[at : at + length]))))
        data = data[at + length :]
    return frames


def read_all(socket: WebSocket, length: int = 1000) -> bytes:
    found = b""
    while True:
        try:
            piece = socket.recv(length)
        except BlockingIOError:
            return found
        if not piece:
            return found
        found += piece


def test_answer_to_the_key_of_the_standard() -> None:
    assert expected_answer("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50), st.integers(1, 40))
def test_payload_comes_out_however_it_is_cut(payloads: list[bytes], cut: int, length: int) -> None:
    stream = b"".join(frame(item) for item in payloads)
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    assert read_all(WebSocket(Wire(*pieces)), length) == b"".join(payloads)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_every_way_to_write_a_length_both_ways(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    assert unmask(masked_frame(2, payload)) == [(0x82, payload)]
    assert read_all(WebSocket(Wire(frame(payload)))) == payload


def test_message_in_pieces_with_a_ping_in_between() -> None:
    wire = Wire(frame(b"ab", first=0) + frame(b"are you there", opcode=9) + frame(b"cd", opcode=0))
    assert read_all(WebSocket(wire)) == b"abcd"
    assert unmask(bytes(wire.sent)) == [(0x8A, b"are you there")]


def test_huge_declared_length_costs_nothing() -> None:
    wire = Wire(bytes((0x82, 127)) + struct.pack("!Q", 2**63 - 1), b"x" * 20_000, b"y" * 20_000)
    socket = WebSocket(wire)
    assert len(read_all(socket)) == 40_000
    assert wire.largest_read <= 8192
    assert len(socket._ready) + len(socket._raw) == 0


@pytest.mark.parametrize(
    "bad",
    [
        bytes((0xC2, 1)) + b"x",  # reserved bit
        bytes((0x82, 0x81)) + b"abcdx",  # masked
        bytes((0x81, 1)) + b"x",  # text
        bytes((0x83, 1)) + b"x",  # unknown kind
        bytes((0x89, 126)) + struct.pack("!H", 126) + b"x" * 126,  # one more than a ping may have
        bytes((0x09, 0)),  # a ping in pieces
    ],
)
def test_what_a_server_may_not_send_ends_the_connection(bad: bytes) -> None:
    with pytest.raises(WebSocketError):
        WebSocket(Wire(bad)).recv(10)


def test_longest_ping_is_answered() -> None:
    wire = Wire(frame(b"p" * 125, opcode=9))
    read_all(WebSocket(wire))
    assert unmask(bytes(wire.sent)) == [(0x8A, b"p" * 125)]


def test_close_frame_and_end_of_stream_are_the_end() -> None:
    assert WebSocket(Wire(frame(b"\x03\xe8", opcode=8), frame(b"late"))).recv(5) == b""
    assert WebSocket(Wire(b"")).recv(5) == b""


def test_congested_network_takes_a_frame_once_and_in_order() -> None:
    wire = Wire()
    socket = WebSocket(wire)
    wire.takes = 3
    assert socket.send(b"first") == 5
    assert socket.wants_write
    with pytest.raises(BlockingIOError):
        socket.send(b"second")
    wire.takes = 10**9
    socket.flush()
    assert not socket.wants_write
    assert socket.send(b"second") == 6
    assert unmask(bytes(wire.sent)) == [(0x82, b"first"), (0x82, b"second")]


def test_pings_without_end_to_a_client_that_cannot_send_do_not_pile_up() -> None:
    wire = Wire(*[frame(b"p" * 125, opcode=9)] * 1000)
    socket = WebSocket(wire)
    wire.takes = 0
    read_all(socket)
    assert len(socket._out) < 200


def test_what_was_read_ahead_is_pending() -> None:
    socket = WebSocket(Wire(frame(b"abc") + frame(b"def")))
    assert socket.recv(2) == b"ab"
    assert socket.pending() == 4
