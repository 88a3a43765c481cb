"""The ways to the broker: directly, as a WebSocket on a port that every office allows, or through an HTTP proxy.

Whichever it is, TLS 1.3 with the broker itself runs inside: a proxy sees a name and a port, and nothing else. All
hosts are those of the provision file. Everything is bounded in bytes and by one deadline.

A broker's name may have several addresses, one for each node: any will do, and boxes must not all take the same.

Not PySocks, which paho would use: it takes the first line of a proxy's answer and leaves the rest to chance.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import socket
import ssl
import time

from omamori_agent.proxy import HeadError, connect_through, left_s, read_head
from omamori_agent.text import clean_text
from omamori_protocol.provision import Provision

from .websocket import WebSocket, WebSocketError, expected_answer, new_key

WEBSOCKET_PATH = "/mqtt"
MAX_ADDRESSES = 8  # of a name that are tried at a time


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
            OSError: There is no way through; `ssl.SSLError` and `HeadError` are such.
        """
        deadline_s = time.monotonic() + timeout_s
        if self.proxy is None:
            plain = _connect(self.host, self.port, deadline_s)
        else:
            plain = connect_through(self.proxy, self.host, self.port, timeout_s)
        try:
            plain.settimeout(left_s(deadline_s))
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


def _connect(host: str, port: int, deadline_s: float) -> socket.socket:
    """Return a connection to one of a name's addresses.

    Of a kind (IPv6, IPv4) chance decides, between kinds the system's order. Each gets its part of the time that is
    left, so that a dead one does not use it up.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    kinds = [list(group) for _family, group in itertools.groupby(found, key=lambda item: item[0])]
    addresses = [(str(item[4][0]), int(item[4][1])) for kind in kinds for item in random.sample(kind, len(kind))][
        :MAX_ADDRESSES
    ]
    failure = OSError(f"{host} has no address")
    for number, address in enumerate(addresses):
        try:
            return socket.create_connection(address, timeout=left_s(deadline_s) / (len(addresses) - number))
        except OSError as err:
            failure = err
    raise failure


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
    status, headers = read_head(sock, deadline_s, "websocket")
    if status != 101:
        raise HeadError(f"websocket: refused with {status}")
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
