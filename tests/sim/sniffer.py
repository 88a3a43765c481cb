"""Frames as they arrive at an interface of a namespace."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import time
from collections.abc import Iterator

from omamori_lab.namespace import Namespace

_SIOCGIFHWADDR = 0x8927
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_AUX_VLAN_VALID = 0x10
_ETH_P_ALL = 3


def mac_of(namespace: Namespace, interface: str = "eth0") -> str:
    """Return the MAC of an interface, lower case with colons."""

    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            return fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("256s", interface.encode()))

    return namespace.call(ask)[18:24].hex(":")


class Sniffer:
    """Frames as they arrive at an interface, with the VLAN tag put back in place."""

    def __init__(self, namespace: Namespace, interface: str = "eth0") -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            made.bind((interface, _ETH_P_ALL))
            made.settimeout(0.5)
            return made

        self._socket = namespace.call(make)

    def wait_for(self, frame: bytes, *, timeout_s: float = 2.0) -> bool:
        """Say whether a frame arrives in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if self._receive() == frame:
                    return True
        return False

    def has_seen(self, frame: bytes) -> bool:
        """Say whether a frame is among those that have arrived by now; all of them are then forgotten."""
        self._socket.setblocking(False)
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                found = self._receive() == frame or found
        self._socket.settimeout(0.5)
        return found

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def _receive(self) -> bytes:
        data, extra, _, _ = self._socket.recvmsg(4096, 256)
        for level, kind, value in extra:
            if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
                if status & _AUX_VLAN_VALID:
                    return data[:12] + struct.pack("!HH", tpid or 0x8100, tci) + data[12:]
        return data


@contextlib.contextmanager
def sniffing(namespace: Namespace, interface: str = "eth0") -> Iterator[Sniffer]:
    """Listen for the time of a block."""
    sniffer = Sniffer(namespace, interface)
    try:
        yield sniffer
    finally:
        sniffer.close()
