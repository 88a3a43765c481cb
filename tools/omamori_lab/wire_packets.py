"""Builds packets of the Internet's protocols byte by byte, checksums included."""

from __future__ import annotations

import ipaddress
import struct

MIN_FRAME = 60  # without the checksum; shorter ones are padded by the sender's network card
_UDP, _TCP, _ICMPV6 = 17, 6, 58


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of `data`."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ethernet(target: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    """Return a frame as a network card sends it: padded to the least length."""
    return (target + source + struct.pack("!H", kind) + payload).ljust(MIN_FRAME, b"\0")


def ipv4(
    source: str,
    target: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    tos: int = 0,
    number: int = 0x4711,
    offset: int = 0,
    more: bool = False,
    whole: bool = False,
    options: bytes = b"",
) -> bytes:
    """Return an IPv4 packet; `offset` in bytes, `whole` sets "don't fragment"."""
    flags = (0x4000 if whole else 0) | (0x2000 if more else 0) | offset // 8
    words = (len(options) + 20) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, tos, words * 4 + len(payload), number, flags, ttl, protocol, 0)
    head += packed(source) + packed(target) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(
    source: str, target: str, kind: int, payload: bytes, *, hops: int = 64, traffic: int = 0, flow: int = 0
) -> bytes:
    """Return an IPv6 packet."""
    head = struct.pack("!IHBB", 6 << 28 | traffic << 20 | flow, len(payload), kind, hops)
    return head + packed(source) + packed(target) + payload


def udp(source: str, target: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """Return a UDP datagram with its checksum."""
    body = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    value = checksum(_pseudo(source, target, _UDP, len(body)) + body) or 0xFFFF
    return body[:6] + struct.pack("!H", value) + body[8:]


def tcp(
    source: str, target: str, ports: tuple[int, int], flags: int, payload: bytes = b"", *, options: bytes = b""
) -> bytes:
    """Return a TCP segment with its checksum."""
    words = (20 + len(options)) // 4
    body = struct.pack("!HHIIBBHHH", *ports, 0x01020304, 0x05060708, words << 4, flags, 8192, 0, 0) + options + payload
    value = checksum(_pseudo(source, target, _TCP, len(body)) + body)
    return body[:16] + struct.pack("!H", value) + body[18:]


def icmp(kind: int, code: int, rest: bytes) -> bytes:
    """Return an ICMP message."""
    body = struct.pack("!BBH", kind, code, 0) + rest
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def icmpv6(source: str, target: str, kind: int, code: int, rest: bytes) -> bytes:
    """Return an ICMPv6 message."""
    body = struct.pack("!BBH", kind, code, 0) + rest
    return body[:2] + struct.pack("!H", checksum(_pseudo(source, target, _ICMPV6, len(body)) + body)) + body[4:]


def multicast_mac(address: str) -> bytes:
    """Return the group's MAC address (RFC 1112, RFC 2464)."""
    group = packed(address)
    if len(group) == 16:
        return b"\x33\x33" + group[-4:]
    return b"\x01\x00\x5e" + bytes([group[1] & 0x7F]) + group[2:]


def packed(address: str) -> bytes:
    """Return an IP address as on the wire."""
    return ipaddress.ip_address(address).packed


def _pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    if ":" in source:
        return packed(source) + packed(target) + struct.pack("!IxxxB", length, protocol)
    return packed(source) + packed(target) + struct.pack("!xBH", protocol, length)
