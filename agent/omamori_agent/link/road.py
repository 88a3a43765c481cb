"""The ways to the broker: directly, as a WebSocket on a port that every office allows, or through an HTTP proxy.

Whichever it is, TLS 1.3 with the broker itself runs inside: a proxy sees a name and a port, and nothing else. All
hosts are those of the provision file. Everything is bounded in bytes and by one deadline.

Not PySocks, which paho would use: it takes the first line of a proxy's answer and leaves the rest to chance.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import ssl
import time

from omamori_agent.text import clean_text
from omamori_protocol.provision import Provision

from .websocket import WebSocket, WebSocketError, expected_answer, new_key

WEBSOCKET_PATH = "/mqtt"
_MAX_HEAD_BYTES = 8192
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")


class RoadError(ConnectionError):
    """This way does not lead to the broker now."""


@dataclasses.dataclass(frozen=True)
class Road:
    """One way: to `host`:`port`, perhaps through a `proxy`, perhaps as a WebSocket."""

    host: str
    port: int
    is_websocket: bool = False
    proxy: tuple[str, int] | None = None

    def __str__(self) -> str:
        """The way in words, for the log."""
        kind = " as websocket" if self.is_websocket else ""
        through = f" through {self.proxy[0]}:{self.proxy[1]}" if self.proxy else ""
        return f"{self.host}:{self.port}{kind}{through}"

    def open(self, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket | WebSocket:
        """Return an encrypted connection.

        Raises:
            OSError: There is no way through; `ssl.SSLError` and `RoadError` are such.
        """
        deadline_s = time.monotonic() + timeout_s
        plain = socket.create_connection(self.proxy or (self.host, self.port), timeout=timeout_s)
        try:
            if self.proxy is not None:
                _pass_proxy(plain, self.host, self.port, deadline_s)
            plain.settimeout(_left_s(deadline_s))
            encrypted = context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
        try:
            if self.is_websocket:
                _upgrade(encrypted, self.host, self.port, deadline_s)
                return WebSocket(encrypted)
        except BaseException:
            encrypted.close()
            raise
        return encrypted


def roads(provision: Provision) -> list[Road]:
    """Return the ways of a box, the ones to try first in front.

    An office that names a proxy wants it used.
    """
    ends = [(provision.broker_port, False)]
    if provision.websocket_port is not None:
        ends.append((provision.websocket_port, True))
    vias = [None] if provision.proxy is None else [provision.proxy, None]
    return [Road(provision.broker_host, port, websocket, via) for via in vias for port, websocket in ends]


def _pass_proxy(sock: socket.socket, host: str, port: int, deadline_s: float) -> None:
    target = f"{host}:{port}"
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
    status, _headers = _read_head(sock, deadline_s, "proxy")
    if not 200 <= status < 300:
        wanted = " (it wants a login, which is not supported)" if status == 407 else ""
        raise RoadError(f"proxy: refused with {status}{wanted}")


def _upgrade(sock: ssl.SSLSocket, host: str, port: int, deadline_s: float) -> None:
    key = new_key()
    lines = [
        f"GET {WEBSOCKET_PATH} HTTP/1.1",
        f"Host: {host}" if port == 443 else f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    status, headers = _read_head(sock, deadline_s, "websocket")
    if status != 101:
        raise RoadError(f"websocket: refused with {status}")
    wanted = {
        "upgrade": "websocket",
        "sec-websocket-accept": expected_answer(key),
        "sec-websocket-protocol": "mqtt",
    }
    for name, value in wanted.items():
        found = headers.get(name, "")
        if (found.lower() if name == "upgrade" else found) != value:
            raise WebSocketError(f"websocket: the answer's {name} is {clean_text(found, 40)!r}")
    if "upgrade" not in headers.get("connection", "").lower() or "sec-websocket-extensions" in headers:
        raise WebSocketError("websocket: not what was asked for")


def _read_head(sock: socket.socket, deadline_s: float, who: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of an answer, reading not a byte of what follows them."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        sock.settimeout(_left_s(deadline_s))
        byte = sock.recv(1)
        if not byte:
            raise RoadError(f"{who}: ends in the middle of its answer")
        head += byte
        if len(head) > _MAX_HEAD_BYTES:
            raise RoadError(f"{who}: an answer of more than {_MAX_HEAD_BYTES} bytes")
    first, *rest = bytes(head[:-4]).split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise RoadError(f"{who}: not an HTTP answer")
    headers: dict[str, str] = {}
    for line in rest:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise RoadError(f"{who}: not an HTTP header")
        headers[match[1].decode("ascii").lower()] = match[2].decode("latin-1")
    return int(status[1]), headers


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("takes too long")
    return left_s
