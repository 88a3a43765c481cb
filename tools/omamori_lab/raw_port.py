"""Whole frames in and out of an interface of a namespace, and which of many pass from one interface to another."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence

from .namespace import Namespace
from .wire_frames import Frame

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC, _PACKET_AUXDATA = 263, 1, 1, 8
_PACKET_OUTGOING = 4
_AUX_VLAN_VALID, _AUX_TPID_VALID = 0x10, 0x40
_BUFFER_BYTES = 8 << 20
_MAX_FRAME = 16384


class RawPort:
    """One interface, whole frames in and out; what the host itself sends is not received.

    Args:
        namespace: Where the interface is.
        interface: Its name; promiscuous while the port is open.
    """

    def __init__(self, namespace: Namespace, interface: str) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            made.bind((interface, _ETH_P_ALL))
            index = socket.if_nametoindex(interface)
            made.setsockopt(
                _SOL_PACKET, _PACKET_ADD_MEMBERSHIP, struct.pack("iHH8s", index, _PACKET_MR_PROMISC, 0, b"")
            )
            return made

        self._socket = namespace.call(make)

    def send(self, data: bytes) -> None:
        """Send one frame."""
        self._socket.send(data)

    def receive(self, *, timeout_s: float) -> bytes | None:
        """Return the next frame with its VLAN tag in place; None if none comes in time."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                data, extra, _, sender = self._socket.recvmsg(_MAX_FRAME, 256)
            except TimeoutError:
                return None
            if sender[2] != _PACKET_OUTGOING:
                return _with_tag(data, extra)
        return None

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _with_tag(data: bytes, extra: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Put back the VLAN tag that the kernel hands over beside the frame."""
    for level, kind, value in extra:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
            if status & _AUX_VLAN_VALID:
                number = tpid if status & _AUX_TPID_VALID else 0x8100
                return data[:12] + struct.pack("!HH", number, tci) + data[12:]
    return data


@contextlib.contextmanager
def opened(namespace: Namespace, interface: str) -> Iterator[RawPort]:
    """Hold a port open."""
    port = RawPort(namespace, interface)
    try:
        yield port
    finally:
        port.close()


def pass_frames(
    sender: RawPort, receiver: RawPort, frames: Sequence[Frame], *, timeout_s: float = 1.0
) -> dict[str, bytes | None]:
    """Send the frames one after the other and return what came out on the other side, by the frame's name.

    A frame belongs to what was sent if its two MAC addresses do. None: nothing came.

    Args:
        sender: Where the frames go in.
        receiver: Where they shall come out.
        frames: What to send; names are unique.
        timeout_s: How long to wait for one frame.
    """
    arrived: dict[str, bytes | None] = {}
    for frame in frames:
        sender.send(frame.data)
        arrived[frame.name] = _await(receiver, frame.data[:12], timeout_s)
    return arrived


def pass_nothing(sender: RawPort, receiver: RawPort, frames: Sequence[Frame], *, silence_s: float = 0.4) -> list[bytes]:
    """Send frames that must not come out, and return what came out all the same until it was silent.

    Args:
        sender: Where the frames go in.
        receiver: Where they shall not come out.
        frames: What to send.
        silence_s: How long nothing must come.
    """
    addresses = {frame.data[:12] for frame in frames}
    for frame in frames:
        sender.send(frame.data)
    arrived = []
    while (data := receiver.receive(timeout_s=silence_s)) is not None:
        if data[:12] in addresses:
            arrived.append(data)
    return arrived


def _await(receiver: RawPort, addresses: bytes, timeout_s: float) -> bytes | None:
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        data = receiver.receive(timeout_s=left_s)
        if data is not None and data[:12] == addresses:
            return data
    return None
