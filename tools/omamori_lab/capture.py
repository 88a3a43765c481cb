"""Captures of whole frames at an interface of a namespace, kept as the set of headers and of the small frames.

It decides nothing: `frames` says what is compared. Bounded: what comes beyond the bound is counted, not kept.
"""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

from .frames import ICMP, Header, parse_header
from .namespace import Namespace

_ETH_P_ALL = 0x0003
_MAX_HEADERS = 10_000
_MAX_FRAMES = 2_000
_BUFFER_BYTES = 8 << 20


class Capture:
    """Captures until it is left; then `headers` and `pings` tell what was seen.

    Attributes:
        headers: Every different header.
        pings: ICMPv4 frames, whole.
        dropped: Packets that were not kept because a bound was reached.
    """

    def __init__(self, namespace: Namespace, interface: str) -> None:
        self._namespace = namespace
        self._interface = interface
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect, name=f"capture {namespace.role}", daemon=True)
        self.headers: set[Header] = set()
        self.pings: set[bytes] = set()
        self.dropped = 0

    def __enter__(self) -> Self:
        self._socket = self._namespace.call(self._open)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        made.bind((self._interface, _ETH_P_ALL))
        made.settimeout(0.1)
        return made

    def _collect(self) -> None:
        while True:
            try:
                frame = self._socket.recv(256)
            except TimeoutError:
                if self._ended.is_set():
                    return
                continue
            header = parse_header(frame)
            if header is None:
                continue
            if len(self.headers) < _MAX_HEADERS:
                self.headers.add(header)
            else:
                self.dropped += 1
            if header.protocol == ICMP and len(self.pings) < _MAX_FRAMES:
                self.pings.add(frame)
