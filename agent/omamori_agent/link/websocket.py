"""The client's side of RFC 6455, as far as MQTT needs it, over a socket that is already encrypted.

* Looks like a non-blocking socket: what the frames carry comes out of `recv` and goes into `send`.
* A frame is passed on as it comes, however long it says it is; nothing is kept but what was read in one go.
* Whatever a server may not send (masked, text, reserved bits, a long control frame) ends the connection.

Not paho's own: that one keeps whole frames of any length, and answers a ping with a frame that servers must refuse.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
from typing import Protocol

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_READ_BYTES = 8192
_MAX_CONTROL_BYTES = 125
_BINARY, _CLOSE, _PING, _PONG, _CONTINUATION = 0x2, 0x8, 0x9, 0xA, 0x0


class WebSocketError(ConnectionError):
    """The server does not speak WebSocket, or breaks its rules."""


class Transport(Protocol):
    """A connected socket."""

    def recv(self, length: int, /) -> bytes:
        """Return what came, up to `length` bytes."""

    def send(self, data: bytes, /) -> int:
        """Send a part of `data`; returns how much."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def setblocking(self, flag: bool, /) -> None:  # noqa: FBT001 - a socket's method
        """Let calls wait, or not."""

    def close(self) -> None:
        """Close it."""


def new_key() -> str:
    """Return a key for one handshake."""
    return base64.b64encode(os.urandom(16)).decode()


def expected_answer(key: str) -> str:
    """Return what a server must answer to `key`."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """Return one final frame as a client sends it."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 2**16:
        head = bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + length.to_bytes(8, "big")
    key = os.urandom(4)
    stream = int.from_bytes((key * (length // 4 + 1))[:length], "big")
    return head + key + (int.from_bytes(payload, "big") ^ stream).to_bytes(length, "big")


class WebSocket:
    """A socket inside a WebSocket.

    Args:
        transport: Connected, encrypted, and past the handshake.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._raw = bytearray()  # read, not understood yet
        self._ready = bytearray()  # payload for the caller
        self._control: bytearray | None = None  # payload of the control frame that is being read
        self._opcode = 0
        self._left = 0  # payload bytes of the present frame that have not come
        self._out = bytearray()
        self._is_closed = False

    def recv(self, length: int) -> bytes:
        """Return up to `length` bytes of payload; empty when the connection has ended.

        Raises:
            BlockingIOError: Nothing there yet.
            WebSocketError: The server broke the rules.
        """
        while not self._ready and not self._is_closed:
            try:
                data = self._transport.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as err:
                raise BlockingIOError from err
            if not data:
                return b""
            self._raw += data
            self._understand()
        taken = bytes(self._ready[:length])
        del self._ready[: len(taken)]
        return taken

    def send(self, data: bytes | bytearray) -> int:
        """Take all of `data`, or nothing; what the network does not take now goes with `flush`.

        Raises:
            BlockingIOError: What was taken before has not gone yet.
        """
        self.flush()
        if self._out:
            raise BlockingIOError
        self._out += masked_frame(_BINARY, bytes(data))
        self.flush()
        return len(data)

    def flush(self) -> None:
        """Send what was taken, as far as the network takes it."""
        while self._out:
            try:
                sent = self._transport.send(bytes(self._out))
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._out[:sent]

    @property
    def wants_write(self) -> bool:
        """Whether `flush` has something to do."""
        return bool(self._out)

    def pending(self) -> int:
        """Return how many bytes `recv` has without asking the network."""
        inner = self._transport.pending() if isinstance(self._transport, ssl.SSLSocket) else 0
        return len(self._ready) or inner

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._transport.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - a socket's method
        """Let calls wait, or not."""
        self._transport.setblocking(flag)

    def close(self) -> None:
        """Close the connection; MQTT has said goodbye already."""
        self._transport.close()

    def _understand(self) -> None:
        """Move what is complete from `_raw` to `_ready`."""
        while True:
            if self._left:
                piece = self._raw[: self._left]
                if not piece:
                    return
                del self._raw[: len(piece)]
                self._left -= len(piece)
                (self._ready if self._control is None else self._control).extend(piece)
            elif not self._read_head():
                return
            if not self._left and self._control is not None:
                self._finish_control(bytes(self._control))
                self._control = None

    def _read_head(self) -> bool:
        """Read a frame's head; returns whether it was complete."""
        if len(self._raw) < 2:
            return False
        first, second = self._raw[0], self._raw[1]
        if first & 0x70 or second & 0x80:
            raise WebSocketError("websocket: reserved bits, or a masked frame")
        length, size = second & 0x7F, {126: 2, 127: 8}.get(second & 0x7F, 0)
        if len(self._raw) < 2 + size:
            return False
        if size:
            length = int.from_bytes(self._raw[2 : 2 + size], "big")
        opcode, is_final = first & 0x0F, bool(first & 0x80)
        if opcode in {_CLOSE, _PING, _PONG}:
            if not is_final or length > _MAX_CONTROL_BYTES:
                raise WebSocketError("websocket: a control frame in pieces, or too long")
            self._control = bytearray()
        elif opcode not in {_BINARY, _CONTINUATION}:
            raise WebSocketError(f"websocket: frames of kind {opcode} carry no MQTT")
        del self._raw[: 2 + size]
        self._opcode, self._left = opcode, length
        return True

    def _finish_control(self, payload: bytes) -> None:
        if self._opcode == _CLOSE:
            self._is_closed = True
        elif self._opcode == _PING and not self._out:  # unanswered only while the network takes nothing anyway
            self._out += masked_frame(_PONG, payload)
            self.flush()
