"""The gate's maps in the agent's words: addresses, MACs, times, lists.

Rules:
- IPv4 stands in the maps as ::ffff:a.b.c.d; here it is IPv4 again.
- The gate counts time since boot; here it is Unix time, converted when read, so that a clock set late (no battery)
  does not matter.
- A new block list is checked as a whole before the first entry changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from omamori_agent.gate import layout
from omamori_agent.gate.bpf import BpfMap
from omamori_agent.gate.errors import BlockListFullError, GateUnavailableError, PrefixTooWideError
from omamori_agent.gate.layout import ConfigFlag, Counter, MapName, PacketDirection
from omamori_protocol.vocabulary import Direction

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PIN_DIRECTORY = Path("/sys/fs/bpf/omamori")
# The widest prefixes that may be blocked.
MIN_IPV4_BITS = 8
MIN_IPV6_BITS = 16
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
_SIZES = {
    MapName.CONFIG: (4, layout.CONFIG.size),
    MapName.BLOCK: (layout.BLOCK_KEY.size, layout.BLOCK.size),
    MapName.BLOCKED: (layout.BLOCKED_KEY.size, layout.BLOCKED.size),
    MapName.TERMINALS: (layout.TERMINAL_KEY.size, layout.TERMINAL.size),
    MapName.FLOWS: (layout.FLOW_KEY.size, layout.FLOW.size),
    MapName.COUNTERS: (4, layout.COUNT.size),
}


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
    """

    address: Address
    mac: str
    ifindex: int
    first_seen: float
    last_seen: float
    tx_packets: int
    tx_bytes: int


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
    """A flow the engine has finished with; `a` and `b` are its ends in no particular order."""

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


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """How the gate is set: its switches, and the two ports if there are exactly two."""

    flags: ConfigFlag
    wan_ifindex: int
    lan_ifindex: int


@dataclasses.dataclass(frozen=True)
class Count:
    """Packets and bytes since the gate was loaded."""

    packets: int
    bytes: int


class Gate:
    """The gate of this box.

    Args:
        pin_directory: Where its maps are pinned.
        clocks: Returns Unix time and time since boot in seconds, read at one moment.

    Raises:
        GateUnavailableError: The maps are not there, not readable, or of another version.
    """

    def __init__(
        self,
        pin_directory: Path = DEFAULT_PIN_DIRECTORY,
        *,
        clocks: Callable[[], tuple[float, float]] | None = None,
    ) -> None:
        self._clocks = clocks or _clocks
        self._maps: dict[MapName, BpfMap] = {}
        try:
            for name, (key_size, value_size) in _SIZES.items():
                with _told(name):
                    self._maps[name] = BpfMap(pin_directory / name, key_size, value_size)
            self.config()
        except GateUnavailableError:
            self.close()
            raise
        self._cpus = _possible_cpus()

    def close(self) -> None:
        """Let go of the maps; the gate works on."""
        for one in self._maps.values():
            one.close()

    def config(self) -> GateConfig:
        """Return how the gate is set.

        Raises:
            GateUnavailableError: It is not set yet, or of another version.
        """
        with _told(MapName.CONFIG):
            raw = self._maps[MapName.CONFIG].lookup(b"\0\0\0\0")
        abi, flags, wan, lan, _, _ = layout.CONFIG.unpack(raw or bytes(layout.CONFIG.size))
        if abi != layout.ABI:
            raise GateUnavailableError(MapName.CONFIG, f"version {abi} instead of {layout.ABI}")
        return GateConfig(ConfigFlag(flags), wan, lan)

    def terminals(self) -> list[Terminal]:
        """Return every terminal the gate remembers (8192 at most, the least recent are forgotten first)."""
        to_unix = self._converter()
        with _told(MapName.TERMINALS):
            return [_terminal(key, value, to_unix) for key, value in self._maps[MapName.TERMINALS].items()]

    def terminal(self, address: Address | str) -> Terminal | None:
        """Return the terminal that uses an address, or None."""
        key = _packed(ipaddress.ip_address(address))
        with _told(MapName.TERMINALS):
            value = self._maps[MapName.TERMINALS].lookup(key)
        return _terminal(key, value, self._converter()) if value is not None else None

    def drain_blocked(self) -> list[BlockedFlow]:
        """Return what the block list stopped since the last call, and forget it (4096 at most)."""
        to_unix = self._converter()
        with _told(MapName.BLOCKED):
            return [_blocked(key, value, to_unix) for key, value in self._maps[MapName.BLOCKED].take()]

    def bypassed_flows(self) -> Iterator[BypassedFlow]:
        """Walk over the flows that pass the engine by (65536 at most)."""
        with _told(MapName.FLOWS):
            for key, value in self._maps[MapName.FLOWS].items():
                a, b, a_port, b_port, vlan, _, _, proto = layout.FLOW_KEY.unpack(key)
                _, _, in_packets, in_bytes, out_packets, out_bytes = layout.FLOW.unpack(value)
                yield BypassedFlow(
                    a=_address(a),
                    a_port=int.from_bytes(a_port, "big"),
                    b=_address(b),
                    b_port=int.from_bytes(b_port, "big"),
                    vlan=vlan,
                    proto=proto,
                    in_packets=in_packets,
                    in_bytes=in_bytes,
                    out_packets=out_packets,
                    out_bytes=out_bytes,
                )

    def counters(self) -> dict[Counter, Count]:
        """Return all counters, summed over the processors."""
        sums = {}
        for counter in Counter:
            with _told(MapName.COUNTERS):
                raw = self._maps[MapName.COUNTERS].lookup(
                    counter.to_bytes(4, "little"), size=layout.COUNT.size * self._cpus
                )
            pairs = list(layout.COUNT.iter_unpack(raw or b""))
            sums[counter] = Count(sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs))
        return sums

    def sync_block(self, prefixes: Iterable[Network]) -> tuple[int, int]:
        """Make the block list consist of exactly these prefixes, all of list 0.

        Returns:
            How many entries were added (or changed) and how many removed.

        Raises:
            BlockListFullError: They are too many.
            PrefixTooWideError: One is too wide.
            GateUnavailableError: The map cannot be used; the list may be changed in part.
        """
        return self.sync_block_lists({0: prefixes})

    def sync_block_lists(self, lists: Mapping[int, Iterable[Network]]) -> tuple[int, int]:
        """Make the block list consist of exactly these lists.

        Args:
            lists: Prefixes by the number of their list, which comes back in `BlockedFlow.list_id`. A prefix that
                is in several belongs to the first.

        Returns:
            How many entries were added (or changed) and how many removed.

        Raises:
            BlockListFullError: They are too many.
            PrefixTooWideError: One is too wide.
            GateUnavailableError: The map cannot be used; the list may be changed in part.
        """
        wanted: dict[bytes, bytes] = {}
        for list_id, prefixes in lists.items():
            value = layout.BLOCK.pack(0, list_id)
            for prefix in prefixes:
                wanted.setdefault(_block_key(prefix), value)
                if len(wanted) > layout.MAX_BLOCK:
                    raise BlockListFullError(layout.MAX_BLOCK)
        stale = []
        with _told(MapName.BLOCK):
            block = self._maps[MapName.BLOCK]
            for key, value in block.items():
                if key not in wanted:
                    stale.append(key)
                elif wanted[key] == value:
                    del wanted[key]
            block.delete_many(stale)
            block.update_many(list(wanted), list(wanted.values()))
        return len(wanted), len(stale)

    def _converter(self) -> Callable[[int], float]:
        now, since_boot = self._clocks()
        return lambda boot_ns: round(now - since_boot + boot_ns / 1e9, 3)


@contextlib.contextmanager
def _told(name: MapName) -> Iterator[None]:
    """Turn a refusal of the kernel into the package's own error."""
    try:
        yield
    except OSError as err:
        raise GateUnavailableError(name, err.strerror or str(err)) from err


def _clocks() -> tuple[float, float]:
    return time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)


def _possible_cpus() -> int:
    """Return how many values a per-CPU map has; the kernel's list looks like 0-3,8."""
    try:
        text = _POSSIBLE_CPUS.read_text(encoding="ascii").strip()
        return max(int(part.split("-")[-1]) for part in text.split(",")) + 1
    except (OSError, ValueError):
        return os.cpu_count() or 1


def _packed(address: Address) -> bytes:
    if isinstance(address, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def _address(raw: bytes) -> Address:
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _block_key(prefix: Network) -> bytes:
    if isinstance(prefix, ipaddress.IPv4Network):
        bits, minimum = prefix.prefixlen + 96, MIN_IPV4_BITS + 96
    elif prefix.overlaps(_MAPPED):
        bits, minimum = prefix.prefixlen, MIN_IPV4_BITS + 96  # it means IPv4, whatever it says
    else:
        bits, minimum = prefix.prefixlen, MIN_IPV6_BITS
    if bits < minimum:
        raise PrefixTooWideError(str(prefix))
    return layout.BLOCK_KEY.pack(bits, _packed(prefix.network_address))


def _terminal(key: bytes, value: bytes, to_unix: Callable[[int], float]) -> Terminal:
    mac, ifindex, first, last, packets, size = layout.TERMINAL.unpack(value)
    return Terminal(_address(key), _mac(mac), ifindex, to_unix(first), to_unix(last), packets, size)


def _blocked(key: bytes, value: bytes, to_unix: Callable[[int], float]) -> BlockedFlow:
    src, dst, dport, proto, direction = layout.BLOCKED_KEY.unpack(key)
    packets, size, first, last, mac, sport, list_id = layout.BLOCKED.unpack(value)
    return BlockedFlow(
        src=_address(src),
        dst=_address(dst),
        sport=int.from_bytes(sport, "big"),
        dport=int.from_bytes(dport, "big"),
        proto=proto,
        direction=Direction.OUT if direction == PacketDirection.OUT else Direction.IN,
        packets=packets,
        bytes=size,
        first_seen=to_unix(first),
        last_seen=to_unix(last),
        mac=_mac(mac) if any(mac) else None,
        list_id=list_id,
    )
