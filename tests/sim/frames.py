"""Frames as bytes, built header by header: what the gate's tests send and what the fuzzer mutates."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable

CLIENT_MAC, ROUTER_MAC = bytes.fromhex("02000000000b"), bytes.fromhex("020000000001")
OWN_MAC = bytes.fromhex("0200000000fe")
C4, S4 = ipaddress.ip_address("192.168.10.11").packed, ipaddress.ip_address("198.51.100.10").packed
C6, S6 = ipaddress.ip_address("fd00:10::11").packed, ipaddress.ip_address("2001:db8::10").packed
# The two ends of a tunnel: the office's router and the provider's.
T4, P4 = ipaddress.ip_address("192.168.10.5").packed, ipaddress.ip_address("192.0.2.1").packed
T6, P6 = ipaddress.ip_address("fd00:10::5").packed, ipaddress.ip_address("2001:db8:aa::1").packed
SYN, RST, ACK, FIN = 0x02, 0x04, 0x10, 0x01

IPV4, IPV6, VLAN, QINQ, SESSION = 0x0800, 0x86DD, 0x8100, 0x88A8, 0x8864
IPIP, TCP, UDP, IPV6_IN_IP, FRAGMENT = 4, 6, 17, 41, 44


def ethernet(kind: int, payload: bytes, *, out: bool = True, target: bytes | None = None) -> bytes:
    ends = (ROUTER_MAC, CLIENT_MAC) if out else (CLIENT_MAC, ROUTER_MAC)
    return (target or ends[0]) + ends[1] + struct.pack("!H", kind) + payload


def tcp(flags: int = ACK, *, out: bool = True, client_port: int = 50000) -> bytes:
    ports = (client_port, 443) if out else (443, client_port)
    return struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, flags, 1000, 0, 0)


def udp(*, out: bool = True, payload: bytes = b"", client_port: int = 50000) -> bytes:
    ports = (client_port, 443) if out else (443, client_port)
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


def quic(first: int, version: int) -> bytes:
    """Return the start of a QUIC packet with a long header."""
    return struct.pack("!BI", first, version) + b"\x08" + bytes(8) + bytes(1186)


def ipv4(
    proto: int,
    payload: bytes,
    *,
    out: bool = True,
    fragment: int = 0,
    options: bytes = b"",
    ends: tuple[bytes, bytes] = (C4, S4),
) -> bytes:
    addresses = ends[0] + ends[1] if out else ends[1] + ends[0]
    words = 5 + len(options) // 4
    size = words * 4 + len(payload)
    return struct.pack("!BBHHHBBH", 4 << 4 | words, 0, size, 1, fragment, 64, proto, 0) + addresses + options + payload


def ipv6(proto: int, payload: bytes, *, out: bool = True, ends: tuple[bytes, bytes] = (C6, S6)) -> bytes:
    addresses = ends[0] + ends[1] if out else ends[1] + ends[0]
    return struct.pack("!IHBB", 6 << 28, len(payload), proto, 64) + addresses + payload


def extension(following: int, payload: bytes, *, units: int = 0) -> bytes:
    return bytes([following, units]) + bytes(6 + 8 * units) + payload


def fragment6(following: int, payload: bytes, *, offset: int = 0) -> bytes:
    return struct.pack("!BBHI", following, 0, offset << 3 | 1, 9) + payload


def pppoe(proto: int, payload: bytes, *, code: int = 0) -> bytes:
    return struct.pack("!BBHHH", 0x11, code, 7, len(payload) + 2, proto) + payload


def vlan(number: int, kind: int, payload: bytes) -> bytes:
    return struct.pack("!HH", number, kind) + payload


def plain4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(IPV4, ipv4(proto, payload, out=out), out=out)


def options4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(IPV4, ipv4(proto, payload, out=out, options=b"\x94\x04\0\0" + bytes(36)), out=out)


def plain6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(IPV6, ipv6(proto, payload, out=out), out=out)


def extended6(payload: bytes, proto: int, out: bool) -> bytes:
    inner = extension(60, extension(43, extension(proto, payload, units=2)))
    return ethernet(IPV6, ipv6(0, inner, out=out), out=out)


def authenticated6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(IPV6, ipv6(51, bytes([proto, 4]) + bytes(22) + payload, out=out), out=out)


def mobile6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(IPV6, ipv6(135, extension(proto, payload, units=1), out=out), out=out)


def tagged4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(VLAN, vlan(10, IPV4, ipv4(proto, payload, out=out)), out=out)


def tagged6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(VLAN, vlan(4094 | 5 << 13, IPV6, ipv6(proto, payload, out=out)), out=out)


def tagged_twice4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(QINQ, vlan(20, VLAN, vlan(10, IPV4, ipv4(proto, payload, out=out))), out=out)


def tagged_twice6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(QINQ, vlan(20, VLAN, vlan(10, IPV6, ipv6(proto, payload, out=out))), out=out)


def session4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(SESSION, pppoe(0x0021, ipv4(proto, payload, out=out)), out=out)


def session6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(SESSION, pppoe(0x0057, ipv6(proto, payload, out=out)), out=out)


def tagged_session4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(VLAN, vlan(10, SESSION, pppoe(0x0021, ipv4(proto, payload, out=out))), out=out)


def tunnel_4in6(payload: bytes, proto: int, out: bool) -> bytes:
    """DS-Lite and MAP-E."""
    return ethernet(IPV6, ipv6(IPIP, ipv4(proto, payload, out=out), out=out, ends=(T6, P6)), out=out)


def tunnel_4in4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(IPV4, ipv4(IPIP, ipv4(proto, payload, out=out), out=out, ends=(T4, P4)), out=out)


def tunnel_6in4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(IPV4, ipv4(IPV6_IN_IP, ipv6(proto, payload, out=out), out=out, ends=(T4, P4)), out=out)


def tunnel_6in6(payload: bytes, proto: int, out: bool) -> bytes:
    inner = extension(IPV6_IN_IP, ipv6(proto, payload, out=out))
    return ethernet(IPV6, ipv6(60, inner, out=out, ends=(T6, P6)), out=out)


Wrap = Callable[[bytes, int, bool], bytes]

TUNNELS: list[Wrap] = [tunnel_4in6, tunnel_4in4, tunnel_6in4, tunnel_6in6]
DIRECT: list[Wrap] = [
    *(plain4, options4, plain6, extended6, authenticated6, mobile6),
    *(tagged4, tagged6, tagged_twice4, tagged_twice6, session4, session6, tagged_session4),
]
# Everything the gate can read up to the ports.
READABLE: list[Wrap] = [*DIRECT, *TUNNELS]


def is_inner_v6(wrap: Wrap) -> bool:
    """Say whether the innermost packet is IPv6."""
    return wrap.__name__ not in ("tunnel_4in6", "tunnel_4in4") and "6" in wrap.__name__


# IP the gate can block by address, but whose ports it may not trust: never bypassed.
NEVER_BYPASSED: dict[str, Callable[[bool], bytes]] = {
    "first IPv4 fragment": lambda out: ethernet(IPV4, ipv4(TCP, tcp(out=out), out=out, fragment=0x2000), out=out),
    "later IPv4 fragment": lambda out: ethernet(IPV4, ipv4(TCP, tcp(out=out), out=out, fragment=0x0010), out=out),
    "last IPv4 fragment": lambda out: ethernet(IPV4, ipv4(UDP, udp(out=out), out=out, fragment=0x0001), out=out),
    "first IPv6 fragment": lambda out: ethernet(IPV6, ipv6(FRAGMENT, fragment6(TCP, tcp(out=out)), out=out), out=out),
    "later IPv6 fragment": lambda out: ethernet(
        IPV6, ipv6(FRAGMENT, fragment6(TCP, tcp(out=out), offset=32), out=out), out=out
    ),
    "IPv6 fragment that is the whole": lambda out: ethernet(
        IPV6, ipv6(FRAGMENT, struct.pack("!BBHI", TCP, 0, 0, 9) + tcp(out=out), out=out), out=out
    ),
    "fragment of a tunnel": lambda out: ethernet(
        IPV6, ipv6(FRAGMENT, fragment6(IPIP, ipv4(TCP, tcp(out=out), out=out)), out=out), out=out
    ),
    "fragment in a tunnel": lambda out: ethernet(
        IPV4, ipv4(IPIP, ipv4(TCP, tcp(out=out), out=out, fragment=0x2000), out=out), out=out
    ),
    "tunnel in a tunnel": lambda out: ethernet(
        IPV4, ipv4(IPIP, ipv4(IPIP, ipv4(TCP, tcp(out=out), out=out), out=out), out=out), out=out
    ),
    "ICMP": lambda out: ethernet(IPV4, ipv4(1, struct.pack("!BBHHH", 8, 0, 0, 1, 1), out=out), out=out),
    "ICMPv6": lambda out: ethernet(IPV6, ipv6(58, struct.pack("!BBHHH", 128, 0, 0, 1, 1), out=out), out=out),
    "GRE": lambda out: ethernet(IPV4, ipv4(47, bytes(8), out=out), out=out),
    "ESP": lambda out: ethernet(IPV6, ipv6(50, bytes(32), out=out), out=out),
    "SCTP": lambda out: ethernet(IPV4, ipv4(132, struct.pack("!HHII", 50000, 443, 0, 0), out=out), out=out),
    "no next header": lambda out: ethernet(IPV6, ipv6(59, tcp(out=out), out=out), out=out),
    "nine extension headers": lambda out: ethernet(
        IPV6, ipv6(60, bytes([60, 0, 0, 0, 0, 0, 0, 0]) * 9, out=out), out=out
    ),
}

# What the gate does not read at all: neither dropped nor bypassed, whatever it may carry.
UNREADABLE: dict[str, bytes] = {
    "ARP": ethernet(0x0806, bytes(28)),
    "runt": ethernet(0x1234, b"\0"),
    "runt that ends in its tag": ethernet(VLAN, b"\0\x0a\x08"),
    "runt that ends in its session": ethernet(SESSION, b"\x11\0\0\x07\0"),
    "three VLAN tags": ethernet(VLAN, vlan(1, VLAN, vlan(2, VLAN, vlan(3, IPV4, ipv4(TCP, tcp()))))),
    "PPPoE discovery": ethernet(0x8863, pppoe(0, b"", code=9)),
    "PPPoE session frame with a code": ethernet(SESSION, pppoe(0x0021, ipv4(TCP, tcp()), code=9)),
    "PPP link control": ethernet(SESSION, pppoe(0xC021, bytes(8))),
    "PPPoE session of a wrong version": ethernet(SESSION, b"\x21" + pppoe(0x0021, ipv4(TCP, tcp()))[1:]),
    "IPv4 with a short header length": ethernet(IPV4, b"\x44" + ipv4(TCP, tcp())[1:]),
    "IPv4 that says it is version 6": ethernet(IPV4, b"\x65" + ipv4(TCP, tcp())[1:]),
    "IPv6 that says it is version 4": ethernet(IPV6, b"\x45" + ipv6(TCP, tcp())[1:]),
    "LLDP": ethernet(0x88CC, bytes(46), target=bytes.fromhex("0180c200000e")),
    "EAPOL": ethernet(0x888E, bytes(46), target=bytes.fromhex("0180c2000003")),
    "spanning tree": ethernet(38, b"\x42\x42\x03" + bytes(43), target=bytes.fromhex("0180c2000000")),
    "802.3 with SNAP around IPv4": ethernet(60, b"\xaa\xaa\x03\0\0\0\x08\x00" + ipv4(TCP, tcp())),
    "unknown Ethernet type": ethernet(0x1234, bytes(46)),
    "MACsec": ethernet(0x88E5, bytes(60)),
}
