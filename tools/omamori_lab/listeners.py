"""Small servers of the lab that remember what reached them: the proof that an attack did or did not arrive.

They live in threads of the lab, on sockets that were opened inside a namespace. Bounded: connections, bytes of each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import socket
import threading
import time
from collections.abc import Callable

from .namespace import Namespace

_MAX_BYTES = 64 * 1024
_MAX_KEPT = 1000
_PATIENCE_S = 10.0
ANSWER_BODY = b"office server\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
    len(ANSWER_BODY),
    ANSWER_BODY,
)


@dataclasses.dataclass(frozen=True)
class Arrival:
    """What one peer sent."""

    peer: str
    data: bytes


class Listener:
    """A TCP server that answers one HTTP request per connection, and a UDP server that sends back what comes.

    Both listen on the same address and port.
    """

    def __init__(self, namespace: Namespace, address: str, port: int) -> None:
        self._where = (namespace, address, port)
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def start(self) -> None:
        """Open the sockets and serve."""
        namespace, address, port = self._where
        tcp, udp = namespace.listen_tcp(address, port), namespace.bind_udp(address, port)
        self._sockets = [tcp, udp]
        for serve, served in ((self._serve_tcp, tcp), (self._serve_udp, udp)):
            thread = threading.Thread(target=serve, args=(served,), name=f"listener {address}:{port}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop serving."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for served in self._sockets:
            served.close()

    @property
    def arrivals(self) -> list[Arrival]:
        """What has arrived so far, oldest first."""
        with self._lock:
            return list(self._arrivals)

    def holding(self, text: bytes) -> list[Arrival]:
        """Return the arrivals that contain a text."""
        return [arrival for arrival in self.arrivals if text in arrival.data]

    def _keep(self, peer: str, data: bytes) -> None:
        with self._lock:
            if data and len(self._arrivals) < _MAX_KEPT:
                self._arrivals.append(Arrival(peer, data))

    def _ready(self, served: socket.socket, handle: Callable[[], None]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(served, selectors.EVENT_READ)
            while not self._ended.is_set():
                if selector.select(0.1):
                    with contextlib.suppress(OSError):
                        handle()

    def _serve_tcp(self, served: socket.socket) -> None:
        def accept() -> None:
            connection, peer = served.accept()
            threading.Thread(target=self._converse, args=(connection, peer[0]), daemon=True).start()

        self._ready(served, accept)

    def _serve_udp(self, served: socket.socket) -> None:
        def answer() -> None:
            data, peer = served.recvfrom(_MAX_BYTES)
            self._keep(peer[0], data)
            served.sendto(data, peer)

        self._ready(served, answer)

    def _converse(self, connection: socket.socket, peer: str) -> None:
        data = b""
        deadline = time.monotonic() + _PATIENCE_S
        with connection, contextlib.suppress(OSError):
            connection.settimeout(0.5)
            while b"\r\n\r\n" not in data and len(data) < _MAX_BYTES and time.monotonic() < deadline:
                try:
                    chunk = connection.recv(_MAX_BYTES)
                except TimeoutError:
                    if self._ended.is_set():
                        break
                    continue
                if not chunk:
                    break
                data += chunk
            self._keep(peer, data)
            connection.sendall(_ANSWER)
