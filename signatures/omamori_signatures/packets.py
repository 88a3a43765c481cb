"""Makes recorded traffic out of a few words, for asking the engine what it would say.

Raw IPv4 and IPv6 packets in a file of libpcap: whole TCP connections, single datagrams, and the first messages of the
protocols by which a box recognises things. The same words give the same bytes.
"""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

_RAW_IP = 101
_START_US = 1_700_000_000_000_000
_SEGMENT = 1400
_FIRST_PORT = 20_000
_PORTS = 40_000


class Recording:
    """Packets in the order in which they were made, a millisecond apart."""

    def __init__(self) -> None:
        self._records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IP)]
        self._microseconds = _START_US
        self._ports = 0

    def save(self, path: Path) -> Path:
        """Write the recording; return its path."""
        path.write_bytes(b"".join(self._records))
        return path

    def datagram(self, source: str, target: str, port: int, data: bytes) -> None:
        """Add a UDP datagram from a port that was not used before."""
        header = struct.pack(">HHHH", self._next_port(), port, 8 + len(data), 0)
        self._packet(source, target, 17, header + data)

    def connection(self, source: str, target: str, port: int, request: bytes, answer: bytes = b"") -> None:
        """Add a whole TCP connection: opened, a request, an answer, closed."""
        mine_port = self._next_port()
        there, back = (mine_port, port), (port, mine_port)
        mine, yours = 1000, 5000
        self._segment(source, target, there, (mine, 0), 0x02)
        self._segment(target, source, back, (yours, mine + 1), 0x12)
        mine, yours = mine + 1, yours + 1
        self._segment(source, target, there, (mine, yours), 0x10)
        for part in _parts(request):
            self._segment(source, target, there, (mine, yours), 0x18, part)
            mine += len(part)
            self._segment(target, source, back, (yours, mine), 0x10)
        for part in _parts(answer):
            self._segment(target, source, back, (yours, mine), 0x18, part)
            yours += len(part)
            self._segment(source, target, there, (mine, yours), 0x10)
        self._segment(source, target, there, (mine, yours), 0x11)
        self._segment(target, source, back, (yours, mine + 1), 0x11)
        self._segment(source, target, there, (mine + 1, yours + 1), 0x10)

    def _next_port(self) -> int:
        self._ports += 1
        return _FIRST_PORT + self._ports % _PORTS

    def _segment(
        self, source: str, target: str, ports: tuple[int, int], numbers: tuple[int, int], flags: int, data: bytes = b""
    ) -> None:
        self._packet(source, target, 6, struct.pack(">HHIIBBHHH", *ports, *numbers, 0x50, flags, 65535, 0, 0) + data)

    def _packet(self, source: str, target: str, protocol: int, payload: bytes) -> None:
        addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
        if len(addresses) == 8:
            head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses
            header = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
        else:
            header = struct.pack(">IHBB", 0x60000000, len(payload), protocol, 64) + addresses
        packet = header + payload
        self._microseconds += 1000
        seconds, rest = divmod(self._microseconds, 1_000_000)
        self._records.append(struct.pack("<IIII", seconds, rest, len(packet), len(packet)) + packet)


def _parts(data: bytes) -> list[bytes]:
    return [data[start : start + _SEGMENT] for start in range(0, len(data), _SEGMENT)]


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - int(total)


def dns_query(name: str) -> bytes:
    """Return a question for the IPv4 address of a name (RFC 1035)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def http_request(host: str, path: str = "/", *, agent: str = "Mozilla/5.0", method: str = "GET") -> bytes:
    """Return a request of HTTP/1.1."""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n".encode()


def http_answer(body: bytes = b"ok", kind: str = "text/html") -> bytes:
    """Return an answer of HTTP/1.1."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def client_hello(name: str) -> bytes:
    """Return the first message of a TLS 1.3 client that asks for a server name (RFC 8446, 6066)."""
    host = name.encode()
    server_name = struct.pack(">HBH", len(host) + 3, 0, len(host)) + host
    extensions = b"".join(
        struct.pack(">HH", kind, len(body)) + body
        for kind, body in (
            (0, server_name),
            (10, bytes.fromhex("0004001d0017")),  # groups: X25519, P-256
            (13, bytes.fromhex("0006040308040401")),  # signature algorithms
            (16, bytes.fromhex("000c02683208687474702f312e31")),  # ALPN: h2, http/1.1
            (43, bytes.fromhex("020304")),  # version: TLS 1.3
            (51, bytes.fromhex("0024001d0020") + bytes(range(32))),  # a share for X25519
        )
    )
    body = b"\x03\x03" + bytes(range(32)) + b"\0" + bytes.fromhex("0006130113021303") + b"\x01\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message
