"""What the gate's maps say, in the agent's words: addresses, MACs, Unix times. Pure: bytes in, values out.

Rules:
- IPv4 stands in the maps as ::ffff:a.b.c.d; here it is IPv4 again.
- The gate counts time since boot; here it is Unix time, converted when read, so that a clock set late (no battery)
  does not matter.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Iterable

from omamori_agent.gate import layout
from omamori_agent.gate.errors import ExemptionsFullError, PrefixTooWideError
from omamori_agent.gate.layout import ConfigFlag, ExemptKind, PacketDirection
from omamori_protocol.vocabulary import Direction

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ToUnix = Callable[[int], float]

# The widest prefixes that may be blocked or exempt.
MIN_IPV4_BITS = 8
MIN_IPV6_BITS = 16
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclasses.dataclass(frozen=True)
class Terminal:
    """A device behind a LAN port, seen as the source of packets.

    Attributes:
        address: Its IP address.
        mac: Its MAC address, or that of the router it is behind; lower case with colons.
        ifindex: The port it was last seen on.
        first_seen: Unix time when this address was first used with this MAC.
        last_seen: Unix time of its last packet.
        tx_packets: Packets it sent since.
        tx_bytes: Bytes it sent since.
        rx_packets: Packets that were sent to it, those included that the engine then stopped.
        rx_bytes: Their bytes.
        bypassed_tx_bytes: The part of `tx_bytes` in flows the engine had finished with.
        bypassed_rx_bytes: The part of `rx_bytes` likewise.
    """

    address: Address
    mac: str
    ifindex: int
    first_seen: float
    last_seen: float
    tx_packets: int
    tx_bytes: int
    rx_packets: int = 0
    rx_bytes: int = 0
    bypassed_tx_bytes: int = 0
    bypassed_rx_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class BlockedFlow:
    """Packets that the block list stopped, of one pair of addresses, port, protocol and direction.

    Attributes:
        src: Source address of the packets.
        dst: Destination address.
        sport: Source port of the first packet, 0 if none.
        dport: Destination port, 0 if none.
        proto: IP protocol number.
        direction: OUT when they came from a LAN port.
        packets: How many since the last drain.
        bytes: Their size.
        first_seen: Unix time of the first.
        last_seen: Unix time of the last.
        mac: MAC of the terminal: of the sender going out, of the receiver coming in; None for a group of receivers.
        list_id: Number of the list that named the address.
    """

    src: Address
    dst: Address
    sport: int
    dport: int
    proto: int
    direction: Direction
    packets: int
    bytes: int
    first_seen: float
    last_seen: float
    mac: str | None
    list_id: int


@dataclasses.dataclass(frozen=True)
class BypassedFlow:
    """A flow the engine has finished with; `a` and `b` are its ends in no particular order.

    Attributes:
        is_tunnelled: It runs inside IP in IP; the addresses are the inner ones.
        epoch: Of the time it was learned; another one than the gate's present epoch means it is no longer bypassed.
        last_seen: Unix time of its last packet.
    """

    a: Address
    a_port: int
    b: Address
    b_port: int
    vlan: int
    proto: int
    in_packets: int
    in_bytes: int
    out_packets: int
    out_bytes: int
    is_tunnelled: bool = False
    epoch: int = 0
    last_seen: float = 0.0


@dataclasses.dataclass(frozen=True)
class Station:
    """Where a MAC address was last seen as a sender, on any side.

    Attributes:
        mac: Lower case with colons.
        vlan: Outer VLAN number, 0 if none.
        ifindex: The port.
        last_seen: Unix time, to the second.
    """

    mac: str
    vlan: int
    ifindex: int
    last_seen: float


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """How the gate was set by the loader: its switches, the two ports if there are exactly two, the bridge's MAC."""

    flags: ConfigFlag
    wan_ifindex: int
    lan_ifindex: int
    own_mac: str


@dataclasses.dataclass(frozen=True)
class Control:
    """What steers the gate at run time. Times are Unix times, None when the lease is over.

    Attributes:
        hung_until: The watch says that the engine hangs.
        bypass_until: A command lets everything pass.
        button_until: The board's button lets everything pass.
        epoch: Bypass learned under another one is void.
        fail_closed: What nothing has inspected is dropped.
        paused_until: The engine is about to be stopped on purpose.
    """

    hung_until: float | None
    bypass_until: float | None
    button_until: float | None
    epoch: int
    fail_closed: bool
    paused_until: float | None = None


@dataclasses.dataclass(frozen=True)
class Count:
    """Packets and bytes since the gate was loaded."""

    packets: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class ExemptAddress:
    """Addresses whose traffic passes the engine and the block list by.

    Attributes:
        prefix: The addresses.
        kind: On which side: as terminal (LAN side), as destination (far side), or both.
        exemption_id: The caller's number, for its own use.
    """

    prefix: Network
    kind: ExemptKind
    exemption_id: int = 0


@dataclasses.dataclass(frozen=True)
class ExemptMac:
    """A device on the LAN side whose traffic passes the engine and the block list by.

    Attributes:
        mac: Six octets in hexadecimal, with or without colons or dashes.
        exemption_id: The caller's number, for its own use.
    """

    mac: str
    exemption_id: int = 0


def packed(address: Address) -> bytes:
    """Return an address as the maps hold it."""
    if isinstance(address, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def address_of(raw: bytes) -> Address:
    """Return the address that stands in a map."""
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address


def network_of(raw: bytes, bits: int) -> Network:
    """Return the prefix that stands in a map."""
    address = address_of(raw)
    if isinstance(address, ipaddress.IPv4Address) and bits >= 96:
        return ipaddress.IPv4Network((address, bits - 96))
    return ipaddress.IPv6Network((raw, bits))


def prefix_key(prefix: Network) -> bytes:
    """Return the key of a prefix in the block list and the exemptions.

    Raises:
        PrefixTooWideError: It covers so much that one entry would change the whole box.
    """
    if isinstance(prefix, ipaddress.IPv4Network):
        bits, minimum = prefix.prefixlen + 96, MIN_IPV4_BITS + 96
    elif prefix.overlaps(_MAPPED):
        bits, minimum = prefix.prefixlen, MIN_IPV4_BITS + 96  # it means IPv4, whatever it says
    else:
        bits, minimum = prefix.prefixlen, MIN_IPV6_BITS
    if bits < minimum:
        raise PrefixTooWideError(str(prefix))
    return layout.BLOCK_KEY.pack(bits, packed(prefix.network_address))


def exempt_entries(addresses: Iterable[ExemptAddress]) -> dict[bytes, bytes]:
    """Return the content of the map of exempt addresses.

    The gate finds only the longest prefix of an address, so every prefix also gets the kinds of those around it.

    Raises:
        ExemptionsFullError: They are too many.
        PrefixTooWideError: One is too wide.
    """
    kinds: dict[tuple[int, int], ExemptKind] = {}
    numbers: dict[tuple[int, int], int] = {}
    for exempt in addresses:
        bits, raw = layout.EXEMPT_KEY.unpack(prefix_key(exempt.prefix))
        at = (bits, int.from_bytes(raw, "big"))
        kinds[at] = kinds.get(at, ExemptKind(0)) | exempt.kind
        numbers.setdefault(at, exempt.exemption_id)
        if len(kinds) > layout.MAX_EXEMPT:
            raise ExemptionsFullError("addresses", layout.MAX_EXEMPT)
    lengths = sorted({bits for bits, _ in kinds})
    entries = {}
    for (bits, number), kind in kinds.items():
        for wider in lengths:
            if wider < bits:
                around = number >> (128 - wider) << (128 - wider)
                kind |= kinds.get((wider, around), ExemptKind(0))  # noqa: PLW2901 - it is being completed
        key = layout.EXEMPT_KEY.pack(bits, number.to_bytes(16, "big"))
        entries[key] = layout.EXEMPT.pack(kind, numbers[bits, number])
    return entries


def exempt_mac_entries(macs: Iterable[ExemptMac]) -> dict[bytes, bytes]:
    """Return the content of the map of exempt MACs.

    Raises:
        ExemptionsFullError: They are too many.
        ValueError: One is not the MAC of a single device.
    """
    entries: dict[bytes, bytes] = {}
    for exempt in macs:
        entries.setdefault(
            layout.EXEMPT_MAC_KEY.pack(parse_mac(exempt.mac)), layout.EXEMPT_MAC.pack(exempt.exemption_id)
        )
        if len(entries) > layout.MAX_EXEMPT_MAC:
            raise ExemptionsFullError("MACs", layout.MAX_EXEMPT_MAC)
    return entries


def parse_mac(text: str) -> bytes:
    """Return the six octets of a device's MAC.

    Raises:
        ValueError: It is not one, or a group's, or zero.
    """
    raw = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(raw) != 6 or raw[0] & 1 or not any(raw):
        raise ValueError(f"not the MAC of one device: {text!r}")
    return raw


def mac_text(raw: bytes) -> str:
    """Return a MAC in lower case with colons."""
    return raw.hex(":")


def config_of(value: bytes) -> tuple[int, GateConfig]:
    """Return version and content of the configuration."""
    abi, flags, wan, lan, _, _, _, own_mac = layout.CONFIG.unpack(value)
    return abi, GateConfig(ConfigFlag(flags), wan, lan, mac_text(own_mac))


def terminal_of(key: bytes, value: bytes, to_unix: ToUnix) -> Terminal:
    """Return one element of the map of terminals."""
    mac, ifindex, first, last, *sums = layout.TERMINAL.unpack(value)
    return Terminal(address_of(key), mac_text(mac), ifindex, to_unix(first), to_unix(last), *sums)


def station_of(key: bytes, value: bytes, to_unix: ToUnix) -> Station:
    """Return one element of the map of stations."""
    mac, vlan = layout.STATION_KEY.unpack(key)
    ifindex, last = layout.STATION.unpack(value)
    return Station(mac_text(mac), vlan, ifindex, to_unix(last))


def flow_of(key: bytes, value: bytes, to_unix: ToUnix) -> BypassedFlow:
    """Return one element of the map of flows."""
    a, b, a_port, b_port, vlan, _, _, proto, tunnel = layout.FLOW_KEY.unpack(key)
    _, last, in_packets, in_bytes, out_packets, out_bytes, epoch = layout.FLOW.unpack(value)
    return BypassedFlow(
        a=address_of(a),
        a_port=int.from_bytes(a_port, "big"),
        b=address_of(b),
        b_port=int.from_bytes(b_port, "big"),
        vlan=vlan,
        proto=proto,
        in_packets=in_packets,
        in_bytes=in_bytes,
        out_packets=out_packets,
        out_bytes=out_bytes,
        is_tunnelled=tunnel != 0,
        epoch=epoch,
        last_seen=to_unix(last),
    )


def blocked_of(key: bytes, value: bytes, to_unix: ToUnix) -> BlockedFlow:
    """Return one element of the map of blocked packets."""
    src, dst, dport, proto, direction = layout.BLOCKED_KEY.unpack(key)
    packets, size, first, last, mac, sport, list_id = layout.BLOCKED.unpack(value)
    return BlockedFlow(
        src=address_of(src),
        dst=address_of(dst),
        sport=int.from_bytes(sport, "big"),
        dport=int.from_bytes(dport, "big"),
        proto=proto,
        direction=Direction.OUT if direction == PacketDirection.OUT else Direction.IN,
        packets=packets,
        bytes=size,
        first_seen=to_unix(first),
        last_seen=to_unix(last),
        mac=mac_text(mac) if any(mac) else None,
        list_id=list_id,
    )
