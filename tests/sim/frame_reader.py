"""A second reader of frames, written from the protocols' layouts and not from the gate: what the fuzzer believes."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import struct

_VLANS, _SESSION = (0x8100, 0x88A8), 0x8864
_IP_OF_PPP = {0x0021: 4, 0x0057: 6}
_IP_OF_TYPE = {0x0800: 4, 0x86DD: 6}
_IP_IN_IP = {4: 4, 41: 6}
_EXTENSIONS = (0, 43, 44, 51, 60, 135)
_MAX_EXTENSIONS = 8

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclasses.dataclass
class Reading:
    """What a frame says.

    Attributes:
        is_ip: It says that it carries IP.
        addresses: Those of the first IP header and, in a tunnel, of the one inside.
        flow: Its flow, the same for both directions; None when its ports are not certain.
        is_turn: It begins or ends a connection.
    """

    is_ip: bool = False
    addresses: list[Address] = dataclasses.field(default_factory=list)
    flow: object = None
    is_turn: bool = False


class _EndedError(Exception):
    """The frame ends here."""


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise _EndedError
        self.at += size
        return self.data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        self.at += size


def read(frame: bytes) -> Reading:
    """Read a frame as far as it goes."""
    reading = Reading()
    with contextlib.suppress(_EndedError):
        _read(_Bytes(frame), reading)
    return reading


def is_group(frame: bytes) -> bool:
    """Say whether a frame is for several receivers."""
    return bool(frame[0] & 1)


def _read(at: _Bytes, reading: Reading) -> None:
    head = at.take(14)
    kind = struct.unpack("!H", head[12:])[0]
    tags = []
    while kind in _VLANS and len(tags) < 2:
        tag, kind = struct.unpack("!HH", at.take(4))
        tags.append(tag & 0xFFF)
    session = 0
    if kind == _SESSION:
        version, code, session, _, inside = struct.unpack("!BBHHH", at.take(8))
        ip = _IP_OF_PPP.get(inside) if (version, code) == (0x11, 0) else None
    else:
        ip = _IP_OF_TYPE.get(kind)
    if ip is None:
        return
    reading.is_ip = True
    outer = _read_ip(at, ip, reading)
    if outer is None:
        return
    protocol, ends, is_fragment = outer
    around: tuple[object, object] = (None, None)
    if protocol in _IP_IN_IP:
        around = ends
        inner = _read_ip(at, _IP_IN_IP[protocol], reading)
        if inner is None or inner[0] in _IP_IN_IP:
            return
        protocol, ends, is_inner_fragment = inner
        is_fragment = is_fragment or is_inner_fragment
    if is_fragment or protocol not in (6, 17):
        return
    transport = at.take(20 if protocol == 6 else 8)
    ports = struct.unpack("!HH", transport[:4])
    reading.is_turn = bool(transport[13] & 6) if protocol == 6 else _is_quic_initial(at.data[at.at : at.at + 5])
    # Each side with its port and, in a tunnel, its end of it; which side is the sender does not matter.
    sides = frozenset(zip(ends, ports, around, strict=True))
    reading.flow = (sides, protocol, tuple(tags), session)


def _read_ip(at: _Bytes, version: int, reading: Reading) -> tuple[int, tuple[Address, Address], bool] | None:
    """Return protocol, ends and whether it is a fragment; None when what it carries cannot be known."""
    return _read_ipv4(at, reading) if version == 4 else _read_ipv6(at, reading)


def _read_ipv4(at: _Bytes, reading: Reading) -> tuple[int, tuple[Address, Address], bool] | None:
    header = at.take(20)
    if header[0] >> 4 != 4 or header[0] & 15 < 5:
        return None
    ends = (ipaddress.IPv4Address(header[12:16]), ipaddress.IPv4Address(header[16:20]))
    reading.addresses += ends
    at.skip(((header[0] & 15) - 5) * 4)
    fragment = struct.unpack("!H", header[6:8])[0] & 0x3FFF
    return None if fragment & 0x1FFF else (header[9], ends, bool(fragment))


def _read_ipv6(at: _Bytes, reading: Reading) -> tuple[int, tuple[Address, Address], bool] | None:
    header = at.take(40)
    if header[0] >> 4 != 6:
        return None
    ends = (_unmapped(header[8:24]), _unmapped(header[24:40]))
    reading.addresses += ends
    following, is_fragment = header[6], False
    for _ in range(_MAX_EXTENSIONS):
        if following not in _EXTENSIONS:
            return following, ends, is_fragment
        extension = at.take(4)
        if following == 44:
            is_fragment = True
            at.skip(4)
            if struct.unpack("!H", extension[2:])[0] & 0xFFF8:
                return None
        else:
            size = (extension[1] + 2) * 4 if following == 51 else (extension[1] + 1) * 8
            at.skip(size - 4)
        following = extension[0]
    return None


def _unmapped(raw: bytes) -> Address:
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address


def _is_quic_initial(head: bytes) -> bool:
    if len(head) < 5 or head[0] & 0xC0 != 0xC0:
        return False
    version, kind = struct.unpack("!I", head[1:])[0], head[0] >> 4 & 3
    return kind == (1 if version == 0x6B3343CF else 0) and (version in (1, 0x6B3343CF) or version >> 8 == 0xFF0000)
