"""What of a captured Ethernet frame must be the same on both sides of a transparent box. Bytes in, facts out.

Lengths are no such fact: a network card may cut or join TCP segments on the way, so the pieces of a stream differ
while the stream does not. The files that the clients hash prove the content.
"""

from __future__ import annotations

import dataclasses
import ipaddress

_VLAN = 0x8100
_IPV4, _IPV6 = 0x0800, 0x86DD
ICMP, TCP, UDP = 1, 6, 17


@dataclasses.dataclass(frozen=True)
class Header:
    """Addresses and life time of a packet; `ttl` is the hop limit of IPv6, `tos` the traffic class."""

    source_mac: str
    target_mac: str
    source: str
    target: str
    protocol: int
    ttl: int
    tos: int


def parse_header(frame: bytes) -> Header | None:
    """Return the header of an IP packet in a frame; None for anything else or too short."""
    if len(frame) < 34:
        return None
    target_mac, source_mac = frame[0:6].hex(":"), frame[6:12].hex(":")
    kind = int.from_bytes(frame[12:14])
    packet = frame[14:]
    if kind == _VLAN:
        kind, packet = int.from_bytes(frame[16:18]), frame[18:]
    if kind == _IPV4 and len(packet) >= 20 and packet[0] >> 4 == 4:
        return Header(
            source_mac,
            target_mac,
            str(ipaddress.IPv4Address(packet[12:16])),
            str(ipaddress.IPv4Address(packet[16:20])),
            protocol=packet[9],
            ttl=packet[8],
            tos=packet[1],
        )
    if kind == _IPV6 and len(packet) >= 40 and packet[0] >> 4 == 6:
        return Header(
            source_mac,
            target_mac,
            str(ipaddress.IPv6Address(packet[8:24])),
            str(ipaddress.IPv6Address(packet[24:40])),
            protocol=packet[6],
            ttl=packet[7],
            tos=(packet[0] & 0x0F) << 4 | packet[1] >> 4,
        )
    return None
