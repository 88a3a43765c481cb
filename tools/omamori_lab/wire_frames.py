"""Every kind of frame that a box has to pass as if it were a cable: built byte by byte, in both directions.

The stations that speak here are nobody's: their MAC addresses belong to no interface of the lab, so no host answers
and nothing but the box stands between sender and receiver. Only documentation addresses, only private ethertypes
where a protocol has no number of its own.
"""

from __future__ import annotations

import dataclasses
import struct

from .wire_packets import MIN_FRAME, checksum, ethernet, icmp, icmpv6, ipv4, ipv6, multicast_mac, packed, tcp, udp

FULL_MTU = 1500

_IPV4, _ARP, _RARP, _WOL, _VLAN, _IPV6 = 0x0800, 0x0806, 0x8035, 0x0842, 0x8100, 0x86DD
_QINQ, _PPPOE_DISCOVERY, _PPPOE_SESSION, _EAPOL, _LLDP = 0x88A8, 0x8863, 0x8864, 0x888E, 0x88CC
_ICMP, _IGMP, _IPIP, _TCP, _UDP, _IN6, _ROUTING, _FRAGMENT = 1, 2, 4, 6, 17, 41, 43, 44
_GRE, _ESP, _AH, _ICMPV6, _NONE, _OPTIONS, _OSPF, _VRRP, _L2TP, _SCTP, _TEST = (
    47,
    50,
    51,
    58,
    59,
    60,
    89,
    112,
    115,
    132,
    253,
)
_BROADCAST = b"\xff" * 6


@dataclasses.dataclass(frozen=True)
class Station:
    """Somebody on one side of the box."""

    mac: bytes
    ipv4: str
    ipv6: str
    link_local: str


OFFICE = Station(bytes.fromhex("02005e100a01"), "192.0.2.11", "2001:db8:1::11", "fe80::5e10:a01")
INTERNET = Station(bytes.fromhex("02005e100b01"), "192.0.2.12", "2001:db8:1::12", "fe80::5e10:b01")


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame and its name."""

    name: str
    data: bytes


def frames(near: Station, far: Station) -> tuple[Frame, ...]:
    """Return every kind of frame from `near` to `far`; each name once."""
    made = [
        *_neighbours(near, far),
        *_configuration(near),
        *_link_protocols(near, far),
        *_groups(near),
        *_tunnels(near, far),
        *_internet(near, far),
        *_fragments(near, far),
        *_tagged(near, far),
        *_pppoe(near, far),
        *_odd(near, far),
    ]
    return tuple(Frame(name, data) for name, data in made)


def _neighbours(near: Station, far: Station) -> list[tuple[str, bytes]]:
    def arp(operation: int, target_mac: bytes, source: str, target: str, seen: bytes) -> bytes:
        body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation)
        return ethernet(target_mac, near.mac, _ARP, body + near.mac + packed(source) + seen + packed(target))

    def neighbour(target: str, kind: int, rest: bytes, source: str = near.link_local) -> bytes:
        mac = multicast_mac(target) if target.startswith("ff") else far.mac
        message = icmpv6(source, target, kind, 0, rest)
        return ethernet(mac, near.mac, _IPV6, ipv6(source, target, _ICMPV6, message, hops=255))

    solicited = "ff02::1:ff" + packed(far.ipv6)[-3:].hex()[:2] + ":" + packed(far.ipv6)[-2:].hex()
    own = b"\x01\x01" + near.mac
    # A router of lifetime 0 with nothing to offer: no host of the lab takes it for its own.
    advertisement = struct.pack("!BBHII", 64, 0, 0, 0, 0) + own + struct.pack("!BBHI", 5, 1, 0, 1500)
    zero = bytes(6)
    return [
        ("ARP request", arp(1, _BROADCAST, near.ipv4, far.ipv4, zero)),
        ("ARP reply", arp(2, far.mac, near.ipv4, far.ipv4, far.mac)),
        ("ARP announcement", arp(1, _BROADCAST, near.ipv4, near.ipv4, zero)),
        ("ARP probe", arp(1, _BROADCAST, "0.0.0.0", near.ipv4, zero)),  # noqa: S104 - no address yet
        ("RARP", ethernet(_BROADCAST, near.mac, _RARP, struct.pack("!HHBBH", 1, _IPV4, 6, 4, 3) + bytes(20))),
        ("IPv6 router solicitation", neighbour("ff02::2", 133, bytes(4) + own)),
        ("IPv6 router advertisement", neighbour("ff02::1", 134, advertisement)),
        ("IPv6 neighbour solicitation", neighbour(solicited, 135, bytes(4) + packed(far.ipv6) + own)),
        ("IPv6 neighbour advertisement", neighbour(far.link_local, 136, b"\x60\0\0\0" + packed(near.ipv6) + own)),
        ("IPv6 duplicate address detection", neighbour(solicited, 135, bytes(4) + packed(far.ipv6), source="::")),
    ]


def _configuration(near: Station) -> list[tuple[str, bytes]]:
    def dhcp(operation: int, kind: int, source: str, ports: tuple[int, int]) -> bytes:
        body = (
            struct.pack("!BBBBIHH", operation, 1, 6, 0, 0x12345678, 0, 0x8000) + bytes(16) + near.mac.ljust(16, b"\0")
        )
        body += bytes(192) + b"\x63\x82\x53\x63" + bytes([53, 1, kind, 255])
        packet = ipv4(source, "255.255.255.255", _UDP, udp(source, "255.255.255.255", ports, body))
        return ethernet(_BROADCAST, near.mac, _IPV4, packet)

    group = "ff02::1:2"
    solicit = udp(near.link_local, group, (546, 547), b"\x01\x12\x34\x56" + b"\0\x08\0\x02\0\0")
    return [
        ("DHCP discover", dhcp(1, 1, "0.0.0.0", (68, 67))),  # noqa: S104 - no address yet
        ("DHCP request", dhcp(1, 3, "0.0.0.0", (68, 67))),  # noqa: S104 - no address yet
        ("DHCP offer", dhcp(2, 2, near.ipv4, (67, 68))),
        ("DHCP acknowledgement", dhcp(2, 5, near.ipv4, (67, 68))),
        ("DHCPv6 solicit", _to_group6(near, group, ipv6(near.link_local, group, _UDP, solicit, hops=1))),
    ]


def _link_protocols(near: Station, far: Station) -> list[tuple[str, bytes]]:
    def reserved(last: int) -> bytes:
        return bytes.fromhex("0180c20000") + bytes([last])

    def llc(target: bytes, body: bytes) -> bytes:
        return ethernet(target, near.mac, len(body), body)

    bridge_id = b"\x80\0" + near.mac
    bpdu = (
        b"\x42\x42\x03"
        + bytes(5)
        + bridge_id
        + bytes(4)
        + bridge_id
        + struct.pack("!HHHHH", 0x8001, 0, 20 << 8, 512, 3840)
    )
    rapid = b"\x42\x42\x03\0\0\x02\x02\x3c" + bpdu[8:] + b"\0"
    cisco = bytes.fromhex("aaaa0300000c")
    lldp = b"\x02\x07\x04" + near.mac + b"\x04\x07\x03" + near.mac + b"\x06\x02\0\x78\0\0"
    return [
        ("STP BPDU", llc(reserved(0x00), bpdu)),
        ("RSTP BPDU", llc(reserved(0x00), rapid)),
        ("PVST+ BPDU", llc(bytes.fromhex("01000ccccccd"), cisco + b"\x01\x0b" + bpdu[3:])),
        ("CDP", llc(bytes.fromhex("01000ccccccc"), cisco + b"\x20\0" + bytes(30))),
        ("pause frame", ethernet(reserved(0x01), near.mac, 0x8808, b"\0\x01\0\xff")),
        ("LACP", ethernet(reserved(0x02), near.mac, 0x8809, b"\x01\x01" + bytes(108))),
        ("EAPOL to the group", ethernet(reserved(0x03), near.mac, _EAPOL, b"\x02\x01\0\0")),
        ("EAPOL to a station", ethernet(far.mac, near.mac, _EAPOL, b"\x02\0\0\x05\x01\x01\0\x05\x01")),
        ("LLDP", ethernet(reserved(0x0E), near.mac, _LLDP, lldp)),
        ("LLDP to the customer bridge", ethernet(reserved(0x00), near.mac, _LLDP, lldp)),
        ("MVRP", ethernet(reserved(0x21), near.mac, 0x88F5, bytes(46))),
        ("802.3 with LLC", llc(far.mac, b"\xf0\xf0\x03" + bytes(range(80)))),
        ("802.3 with SNAP", llc(far.mac, b"\xaa\xaa\x03\0\0\0\x88\xb5" + bytes(range(60)))),
        ("802.3 IPX", llc(_BROADCAST, b"\xff\xff\0\x22" + bytes(40))),
        ("wake on LAN", ethernet(_BROADCAST, near.mac, _WOL, _BROADCAST + far.mac * 16)),
        ("precision time", ethernet(bytes.fromhex("011b19000000"), near.mac, 0x88F7, bytes(44))),
        ("MACsec", ethernet(far.mac, near.mac, 0x88E5, b"\x2c\0\0\0\0\x01" + bytes(60))),
        ("MPLS", ethernet(far.mac, near.mac, 0x8847, b"\0\x01\x01\x40" + ipv4(near.ipv4, far.ipv4, _TEST, bytes(30)))),
        ("private ethertype", ethernet(far.mac, near.mac, 0x88B5, bytes(range(100)))),
        ("unassigned ethertype", ethernet(far.mac, near.mac, 0x1234, bytes(range(46)))),
        ("broadcast of a private ethertype", ethernet(_BROADCAST, near.mac, 0x88B6, b"hello")),
    ]


def _to_group6(near: Station, group: str, packet: bytes) -> bytes:
    return ethernet(multicast_mac(group), near.mac, _IPV6, packet)


def _groups(near: Station) -> list[tuple[str, bytes]]:
    def group4(group: str, protocol: int, payload: bytes, ttl: int, options: bytes = b"") -> bytes:
        packet = ipv4(near.ipv4, group, protocol, payload, ttl=ttl, options=options)
        return ethernet(multicast_mac(group), near.mac, _IPV4, packet)

    def announce(group: str, port: int, text: bytes, ttl: int) -> bytes:
        return group4(group, _UDP, udp(near.ipv4, group, (port, port), text), ttl)

    def broadcast(target: str, port: int) -> bytes:
        packet = ipv4(near.ipv4, target, _UDP, udp(near.ipv4, target, (port, port), bytes(range(50))))
        return ethernet(_BROADCAST, near.mac, _IPV4, packet)

    query = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x05_ipps\x04_tcp\x05local\0\0\x0c\0\x01"
    alert = b"\x94\x04\0\0"
    alert6 = bytes([_ICMPV6, 0]) + b"\x05\x02\0\0\x01\0"
    listener = icmpv6(near.link_local, "ff02::16", 143, 0, b"\0\0\0\x01\x04\0\0\0" + packed("ff02::fb"))
    report3 = b"\x22\0" + bytes(4) + b"\0\x01\x04\0\0\0" + packed("239.255.255.250")
    report3 = report3[:2] + struct.pack("!H", checksum(report3)) + report3[4:]
    mdns6 = udp(near.link_local, "ff02::fb", (5353, 5353), query)
    ssdp = b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n'
    return [
        ("mDNS", announce("224.0.0.251", 5353, query, 255)),
        ("mDNS by IPv6", _to_group6(near, "ff02::fb", ipv6(near.link_local, "ff02::fb", _UDP, mdns6, hops=255))),
        ("SSDP", announce("239.255.255.250", 1900, ssdp, 2)),
        ("LLMNR", announce("224.0.0.252", 5355, query, 1)),
        ("IGMPv2 report", group4("239.1.2.3", _IGMP, icmp(0x16, 0, packed("239.1.2.3")), 1, alert)),
        ("IGMPv2 query", group4("224.0.0.1", _IGMP, icmp(0x11, 100, bytes(4)), 1, alert)),
        ("IGMPv3 report", group4("224.0.0.22", _IGMP, report3, 1, alert)),
        (
            "MLDv2 report",
            _to_group6(near, "ff02::16", ipv6(near.link_local, "ff02::16", 0, alert6 + listener, hops=1)),
        ),
        ("OSPF hello", group4("224.0.0.5", _OSPF, b"\x02\x01\0\x2c" + bytes(40), 1)),
        ("VRRP", group4("224.0.0.18", _VRRP, b"\x21\x01\x64\x01\0\x01" + bytes(14), 255)),
        ("stream of a group", announce("239.7.8.9", 5004, bytes(1316), 8)),
        ("NetBIOS broadcast", broadcast("192.0.2.255", 137)),
        ("limited broadcast", broadcast("255.255.255.255", 1947)),
    ]


def _tunnels(near: Station, far: Station) -> list[tuple[str, bytes]]:
    inner4 = ipv4("198.51.100.1", "203.0.113.1", _UDP, udp("198.51.100.1", "203.0.113.1", (4000, 4001), b"inner"))
    inner6 = ipv6("2001:db8:8::1", "2001:db8:9::1", _UDP, udp("2001:db8:8::1", "2001:db8:9::1", (4000, 4001), b"inner"))
    made = []
    for name, protocol, payload in (
        ("IPv4 in {}", _IPIP, inner4),
        ("IPv6 in {}", _IN6, inner6),
        ("GRE with IPv4 in {}", _GRE, b"\0\0\x08\0" + inner4),
        ("GRE of PPTP in {}", _GRE, b"\x30\x81\x88\x0b\0\x04\0\x01\0\0\0\x01\0\0\0\0\xff\x03\0\x21"),
        ("ESP in {}", _ESP, struct.pack("!II", 0x1000, 1) + bytes(range(64))),
        (
            "AH in {}",
            _AH,
            bytes([_UDP, 4, 0, 0]) + struct.pack("!II", 0x1001, 1) + bytes(12) + b"\x0f\xa0\x0f\xa1\0\x0c\0\0data",
        ),
        ("L2TP in {}", _L2TP, b"\0\0\0\x07" + bytes(40)),
        ("SCTP in {}", _SCTP, struct.pack("!HHII", 4000, 4001, 0, 0) + b"\x01\0\0\x14" + bytes(16)),
        ("unknown protocol in {}", _TEST, bytes(range(90))),
    ):
        made.append((name.format("IPv4"), _send4(near, far, ipv4(near.ipv4, far.ipv4, protocol, payload))))
        made.append((name.format("IPv6"), _send6(near, far, ipv6(near.ipv6, far.ipv6, protocol, payload))))
    return made


def _send4(near: Station, far: Station, packet: bytes) -> bytes:
    return ethernet(far.mac, near.mac, _IPV4, packet)


def _send6(near: Station, far: Station, packet: bytes) -> bytes:
    return ethernet(far.mac, near.mac, _IPV6, packet)


def _internet(near: Station, far: Station) -> list[tuple[str, bytes]]:
    def packet4(protocol: int, payload: bytes, *, ttl: int = 64, tos: int = 0) -> bytes:
        return _send4(near, far, ipv4(near.ipv4, far.ipv4, protocol, payload, ttl=ttl, tos=tos))

    def packet6(kind: int, payload: bytes, *, traffic: int = 0, flow: int = 0) -> bytes:
        return _send6(near, far, ipv6(near.ipv6, far.ipv6, kind, payload, traffic=traffic, flow=flow))

    def message6(kind: int, code: int, rest: bytes) -> bytes:
        return packet6(_ICMPV6, icmpv6(near.ipv6, far.ipv6, kind, code, rest))

    datagram, datagram6 = (
        udp(*pair, (4000, 4001), b"omamori" * 20) for pair in ((near.ipv4, far.ipv4), (near.ipv6, far.ipv6))
    )
    wrong = datagram[:6] + b"\x12\x34" + datagram[8:]
    ports = (40001, 7777)
    segment = tcp(near.ipv4, far.ipv4, ports, 0x18, b"GET nothing\r\n")
    offer = b"\x02\x04\x05\xb4\x01\x03\x03\x07\x04\x02\x01\x01"
    quoted4 = ipv4(far.ipv4, near.ipv4, _TCP, tcp(far.ipv4, near.ipv4, (443, 40000), 0x10)[:8])
    quoted6 = ipv6(far.ipv6, near.ipv6, _TCP, tcp(far.ipv6, near.ipv6, (443, 40000), 0x10))
    full4 = udp(near.ipv4, far.ipv4, (4000, 4002), bytes(FULL_MTU - 28))
    full6 = udp(near.ipv6, far.ipv6, (4000, 4002), bytes(FULL_MTU - 48))
    stamp = b"\x44\x0c\x05\0" + bytes(8)
    return [
        ("UDP", packet4(_UDP, datagram)),
        ("UDP without checksum", packet4(_UDP, datagram[:6] + b"\0\0" + datagram[8:])),
        ("UDP with a wrong checksum", packet4(_UDP, wrong)),
        ("UDP of full length", packet4(_UDP, full4)),
        ("UDP with TTL 1", packet4(_UDP, datagram, ttl=1)),
        ("UDP with DSCP and congestion mark", packet4(_UDP, datagram, tos=0xBB)),
        ("UDP with IP options", _send4(near, far, ipv4(near.ipv4, far.ipv4, _UDP, datagram, options=stamp))),
        ("TCP SYN", packet4(_TCP, tcp(near.ipv4, far.ipv4, ports, 0x02, options=offer))),
        ("TCP data of an unknown connection", packet4(_TCP, segment)),
        ("TCP with a wrong checksum", packet4(_TCP, segment[:16] + b"\x12\x34" + segment[18:])),
        ("TCP with strange flags", packet4(_TCP, tcp(near.ipv4, far.ipv4, (40002, 7778), 0x29))),
        ("TCP RST", packet4(_TCP, tcp(near.ipv4, far.ipv4, ports, 0x04))),
        ("ICMP echo", packet4(_ICMP, icmp(8, 0, b"\0\x01\0\x01" + bytes(range(56))))),
        ("ICMP too big", packet4(_ICMP, icmp(3, 4, struct.pack("!HH", 0, 1400) + quoted4))),
        ("ICMP port unreachable", packet4(_ICMP, icmp(3, 3, bytes(4) + quoted4))),
        ("ICMP time exceeded", packet4(_ICMP, icmp(11, 0, bytes(4) + quoted4))),
        ("UDP by IPv6", packet6(_UDP, datagram6, traffic=0xBB, flow=0x54321)),
        ("UDP by IPv6 of full length", packet6(_UDP, full6)),
        ("TCP SYN by IPv6", packet6(_TCP, tcp(near.ipv6, far.ipv6, ports, 0x02, options=offer))),
        ("ICMPv6 echo", message6(128, 0, b"\0\x01\0\x01" + bytes(range(56)))),
        ("ICMPv6 too big", message6(2, 0, struct.pack("!I", 1400) + quoted6)),
        ("ICMPv6 unreachable", message6(1, 4, bytes(4) + quoted6)),
        ("IPv6 hop-by-hop options", packet6(0, bytes([_UDP, 0]) + b"\x01\x04" + bytes(4) + datagram6)),
        ("IPv6 destination options", packet6(_OPTIONS, bytes([_UDP, 0]) + b"\x01\x04" + bytes(4) + datagram6)),
        ("IPv6 routing header", packet6(_ROUTING, bytes([_UDP, 2, 2, 0]) + bytes(4) + packed(far.ipv6) + datagram6)),
        ("IPv6 without next header", packet6(_NONE, b"")),
    ]


def _fragments(near: Station, far: Station) -> list[tuple[str, bytes]]:
    """Pieces of one large ping each, out of order among them; and pieces that are odd."""
    echo4 = icmp(8, 0, b"\0\x02\0\x01" + bytes(range(256)) * 12)
    echo6 = icmpv6(near.ipv6, far.ipv6, 128, 0, b"\0\x02\0\x01" + bytes(range(256)) * 12)

    def piece4(name: str, number: int, begin: int, end: int) -> tuple[str, bytes]:
        part = echo4[begin:end]
        packet = ipv4(near.ipv4, far.ipv4, _ICMP, part, number=number, offset=begin, more=end < len(echo4))
        return f"ping fragment, {name}", _send4(near, far, packet)

    def piece6(name: str, number: int, begin: int, end: int) -> tuple[str, bytes]:
        head = struct.pack("!BBHI", _ICMPV6, 0, begin | (end < len(echo6)), number)
        packet = ipv6(near.ipv6, far.ipv6, _FRAGMENT, head + echo6[begin:end])
        return f"IPv6 ping fragment, {name}", _send6(near, far, packet)

    size = len(echo4)
    lone = struct.pack("!BBHI", _UDP, 0, 0, 5) + udp(near.ipv6, far.ipv6, (4000, 4001), b"alone")
    return [
        piece4("first", 1, 0, 1480),
        piece4("middle", 1, 1480, 2960),
        piece4("last", 1, 2960, size),
        piece4("last before the first", 2, 2960, size),
        piece4("first after the last", 2, 0, 1480),
        piece4("tiny first", 3, 0, 8),
        piece4("overlapping", 3, 0, 16),
        piece6("first", 1, 0, 1440),
        piece6("middle", 1, 1440, 2880),
        piece6("last", 1, 2880, len(echo6)),
        piece6("last before the first", 2, 2880, len(echo6)),
        ("IPv6 atomic fragment", _send6(near, far, ipv6(near.ipv6, far.ipv6, _FRAGMENT, lone))),
    ]


def _tagged(near: Station, far: Station) -> list[tuple[str, bytes]]:
    packet4 = ipv4(near.ipv4, far.ipv4, _UDP, udp(near.ipv4, far.ipv4, (4000, 4001), b"omamori" * 10))
    packet6 = ipv6(near.ipv6, far.ipv6, _UDP, udp(near.ipv6, far.ipv6, (4000, 4001), b"omamori" * 10))
    full = ipv4(near.ipv4, far.ipv4, _UDP, udp(near.ipv4, far.ipv4, (4000, 4003), bytes(FULL_MTU - 28)))
    session = struct.pack("!BBHHH", 0x11, 0, 9, len(packet4) + 2, 0x0021) + packet4
    ask = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + near.mac + packed(near.ipv4) + bytes(6) + packed(far.ipv4)

    def tagged(tags: tuple[tuple[int, int], ...], kind: int, payload: bytes, target: bytes = far.mac) -> bytes:
        kinds = [tpid for tpid, _ in tags[1:]] + [kind]
        inside = b"".join(struct.pack("!HH", tci, following) for (_, tci), following in zip(tags, kinds, strict=True))
        return ethernet(target, near.mac, tags[0][0], inside + payload)

    one, service = ((_VLAN, 10),), ((_QINQ, 20), (_VLAN, 10))
    return [
        ("VLAN: IPv4", tagged(one, _IPV4, packet4)),
        ("VLAN: IPv6", tagged(one, _IPV6, packet6)),
        ("VLAN: ARP", tagged(one, _ARP, ask, _BROADCAST)),
        ("VLAN: IPv4 of full length", tagged(one, _IPV4, full)),
        ("VLAN: private ethertype", tagged(one, 0x88B5, bytes(60))),
        ("VLAN: PPPoE session", tagged(one, _PPPOE_SESSION, session)),
        ("VLAN: priority only", tagged(((_VLAN, 5 << 13),), _IPV4, packet4)),
        ("VLAN: highest number", tagged(((_VLAN, 7 << 13 | 1 << 12 | 4094),), _IPV6, packet6)),
        ("two VLAN tags: IPv4", tagged(((_VLAN, 20), (_VLAN, 10)), _IPV4, packet4)),
        ("service tag and VLAN: IPv4", tagged(service, _IPV4, packet4)),
        ("service tag and VLAN: IPv6", tagged(service, _IPV6, packet6)),
        ("service tag and VLAN: ARP", tagged(service, _ARP, ask, _BROADCAST)),
        ("service tag alone: IPv4", tagged(((_QINQ, 20),), _IPV4, packet4)),
        ("three VLAN tags: IPv4", tagged(((_QINQ, 30), (_VLAN, 20), (_VLAN, 10)), _IPV4, packet4)),
    ]


def _pppoe(near: Station, far: Station) -> list[tuple[str, bytes]]:
    def discovery(code: int, number: int, tags: bytes, target: bytes = far.mac) -> bytes:
        return ethernet(target, near.mac, _PPPOE_DISCOVERY, struct.pack("!BBHH", 0x11, code, number, len(tags)) + tags)

    def session(kind: int, payload: bytes) -> bytes:
        body = struct.pack("!BBHHH", 0x11, 0, 7, len(payload) + 2, kind) + payload
        return ethernet(far.mac, near.mac, _PPPOE_SESSION, body)

    unique = b"\x01\x03\0\x04\x01\x02\x03\x04"
    service = b"\x01\x01\0\0"
    packet4 = ipv4(near.ipv4, far.ipv4, _UDP, udp(near.ipv4, far.ipv4, (4000, 4001), b"omamori" * 10))
    packet6 = ipv6(near.ipv6, far.ipv6, _UDP, udp(near.ipv6, far.ipv6, (4000, 4001), b"omamori" * 10))
    full = ipv4(near.ipv4, far.ipv4, _UDP, udp(near.ipv4, far.ipv4, (4000, 4004), bytes(1492 - 28)))
    return [
        ("PPPoE PADI", discovery(0x09, 0, service + unique, _BROADCAST)),
        ("PPPoE PADO", discovery(0x07, 0, service + b"\x01\x02\0\x02ac" + unique)),
        ("PPPoE PADR", discovery(0x19, 0, service + unique)),
        ("PPPoE PADS", discovery(0x65, 7, service + unique)),
        ("PPPoE PADT", discovery(0xA7, 7, b"")),
        ("PPPoE: LCP request", session(0xC021, b"\x01\x01\0\x0e\x01\x04\x05\xd4\x05\x06\x0a\x0b\x0c\x0d")),
        ("PPPoE: LCP echo", session(0xC021, b"\x09\x01\0\x08\x0a\x0b\x0c\x0d")),
        ("PPPoE: CHAP", session(0xC223, b"\x01\x01\0\x0c\x04abcdna")),
        ("PPPoE: IPCP", session(0x8021, b"\x01\x01\0\x0a\x03\x06\0\0\0\0")),
        ("PPPoE: IPv6CP", session(0x8057, b"\x01\x01\0\x0e\x01\x0a" + bytes(8))),
        ("PPPoE: IPv4", session(0x0021, packet4)),
        ("PPPoE: IPv4 of full length", session(0x0021, full)),
        ("PPPoE: IPv6", session(0x0057, packet6)),
        ("PPPoE: unknown protocol", session(0x4021, bytes(40))),
    ]


def _odd(near: Station, far: Station) -> list[tuple[str, bytes]]:
    """Frames that break a rule. Not padded: what a driver would hand to the bridge, runts among it."""

    def raw(kind: int, payload: bytes) -> bytes:
        return far.mac + near.mac + struct.pack("!H", kind) + payload

    good4 = ipv4(near.ipv4, far.ipv4, _UDP, udp(near.ipv4, far.ipv4, (4000, 4005), b"odd" * 20))
    good6 = ipv6(near.ipv6, far.ipv6, _UDP, udp(near.ipv6, far.ipv6, (4000, 4005), b"odd" * 20))
    ack = ipv4(near.ipv4, far.ipv4, _TCP, tcp(near.ipv4, far.ipv4, (40003, 7779), 0x10))
    cut_udp = ipv4(near.ipv4, far.ipv4, _UDP, b"\x0f\xa0\x0f")
    cut_tcp = ipv4(near.ipv4, far.ipv4, _TCP, b"\x0f\xa0\x0f\xa1\0\0\0\x01")
    return [
        ("header and nothing else", raw(0x88B5, b"")),
        ("runt", raw(0x88B5, b"\x01")),
        ("runt with IPv4 ACK", raw(_IPV4, ack)),
        ("IPv4 ACK with padding of zeros", raw(_IPV4, ack).ljust(MIN_FRAME, b"\0")),
        ("IPv4 ACK with padding of something", raw(_IPV4, ack) + b"\xa5" * 6),
        ("IPv4 with a long trailer", raw(_IPV4, good4) + b"\x5a" * 40),
        ("IPv6 with a trailer", raw(_IPV6, good6) + b"\x5a" * 10),
        ("UDP header cut off", raw(_IPV4, cut_udp)),
        ("TCP header cut off", raw(_IPV4, cut_tcp)),
        ("TCP header claims too much", raw(_IPV4, ipv4(near.ipv4, far.ipv4, _TCP, ack[20:32] + b"\xf0" + ack[33:40]))),
        ("VLAN tag and nothing else", raw(_VLAN, b"\0\x0a\x08\0")),
        ("VLAN tag cut off", raw(_VLAN, b"\0\x0a")),
        ("PPPoE header cut off", raw(_PPPOE_SESSION, b"\x11\0\0")),
        ("PPPoE session without content", raw(_PPPOE_SESSION, b"\x11\0\0\x07\0\x02\0\x21")),
        ("IPv4 without its header", raw(_IPV4, b"")),
        ("IPv4 header cut off", raw(_IPV4, good4[:12])),
        ("IPv4 with a wrong checksum", raw(_IPV4, good4[:10] + b"\x12\x34" + good4[12:])),
        ("IPv4 shorter than it says", raw(_IPV4, good4[:-10])),
        ("IPv4 of version 5", raw(_IPV4, b"\x55" + good4[1:])),
        ("IPv4 with a header of 16 bytes", raw(_IPV4, b"\x44" + good4[1:])),
        ("IPv6 header cut off", raw(_IPV6, good6[:20])),
        ("IPv6 shorter than it says", raw(_IPV6, good6[:-10])),
        ("IPv6 of version 4", raw(_IPV6, b"\x40" + good6[1:])),
    ]


# What a kernel bridge never forwards, whatever it is told: pause frames and link aggregation end at the next port
# (IEEE 802.1Q), and a tag or session header that is cut off is no frame.
NEVER_FORWARDED = frozenset(
    {"pause frame", "LACP", "VLAN tag and nothing else", "VLAN tag cut off", "PPPoE header cut off"}
)
# What a bare bridge forwards and the bridge's packet filter (br_netfilter) does not: IP that is no IP. No host would
# take it; nothing else may ever be in this list.
REFUSED_BY_FILTER = frozenset(
    {
        "IPv4 without its header",
        "IPv4 header cut off",
        "IPv4 with a wrong checksum",
        "IPv4 shorter than it says",
        "IPv4 of version 5",
        "IPv4 with a header of 16 bytes",
        "IPv6 header cut off",
        "IPv6 shorter than it says",
        "IPv6 of version 4",
        "PPPoE session without content",
    }
)


def without_trailer(data: bytes) -> bytes:
    """Return an IP frame without what follows the packet (padding); any other frame as it is.

    The bridge's packet filter cuts it off; the network card at the port pads again.
    """
    offset = 12
    while data[offset : offset + 2] in {b"\x81\x00", b"\x88\xa8"}:
        offset += 4
    kind, offset = data[offset : offset + 2], offset + 2
    if kind == b"\x88\x64":
        kind = {b"\x00\x21": b"\x08\x00", b"\x00\x57": b"\x86\xdd"}.get(data[offset + 6 : offset + 8], b"")
        offset += 8
    if kind == b"\x08\x00" and len(data) >= offset + 4:
        return data[: offset + int.from_bytes(data[offset + 2 : offset + 4])]
    if kind == b"\x86\xdd" and len(data) >= offset + 6:
        return data[: offset + 40 + int.from_bytes(data[offset + 4 : offset + 6])]
    return data


def is_same(sent: bytes, seen: bytes | None) -> bool:
    """Whether a frame came out as it went in; padding (zeros up to the least length) is nobody's content."""
    if seen is None:
        return False
    return seen in {sent, without_trailer(sent)} or seen == without_trailer(sent).ljust(MIN_FRAME, b"\0")


def jumbo(near: Station, far: Station, mtu: int) -> tuple[Frame, ...]:
    """Return frames that fill an unusual MTU."""
    packet4 = ipv4(near.ipv4, far.ipv4, _UDP, udp(near.ipv4, far.ipv4, (4000, 4006), bytes(mtu - 28)), whole=True)
    packet6 = ipv6(near.ipv6, far.ipv6, _UDP, udp(near.ipv6, far.ipv6, (4000, 4006), bytes(mtu - 48)))
    return (
        Frame("jumbo IPv4", _send4(near, far, packet4)),
        Frame("jumbo IPv6", _send6(near, far, packet6)),
        Frame("jumbo IPv4 in a VLAN", ethernet(far.mac, near.mac, _VLAN, b"\0\x0a\x08\0" + packet4)),
        Frame("jumbo of a private ethertype", ethernet(far.mac, near.mac, 0x88B5, bytes(mtu))),
    )
