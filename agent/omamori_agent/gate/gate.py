"""The gate of this box: reads what it has seen, writes what steers it.

Rules:
- A new block list and new exemptions are checked as a whole before the first entry changes.
- Maps that only the gate or its loader writes are opened for reading only.
- Of the control slots only the agent's own are written here; the others are omamori-watch's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from omamori_agent.gate import block_list, layout
from omamori_agent.gate.bpf import BpfMap
from omamori_agent.gate.errors import BlockListFullError, GateUnavailableError
from omamori_agent.gate.layout import ControlSlot, Counter, MapName, Uninspected
from omamori_agent.gate.values import (
    Address,
    BlockedFlow,
    BypassedFlow,
    Control,
    Count,
    ExemptAddress,
    ExemptMac,
    GateConfig,
    Network,
    Station,
    Terminal,
    ToUnix,
    blocked_of,
    config_of,
    exempt_entries,
    exempt_mac_entries,
    flow_of,
    network_of,
    packed,
    prefix_key,
    station_of,
    terminal_of,
)

DEFAULT_PIN_DIRECTORY = Path("/sys/fs/bpf/omamori")
_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
_MAX_LEASE_S = 7 * 86400.0
PAUSE_S = 3.0  # as the watch's own
# Sizes of key and value, and whether the agent writes it.
_MAPS = {
    MapName.CONFIG: (4, layout.CONFIG.size, False),
    MapName.BLOCK: (layout.BLOCK_KEY.size, layout.BLOCK.size, True),
    MapName.BLOCKED: (layout.BLOCKED_KEY.size, layout.BLOCKED.size, True),
    MapName.TERMINALS: (layout.TERMINAL_KEY.size, layout.TERMINAL.size, False),
    MapName.FLOWS: (layout.FLOW_KEY.size, layout.FLOW.size, False),
    MapName.COUNTERS: (4, layout.COUNT.size, False),
    MapName.CONTROL: (4, layout.CONTROL.size, True),
    MapName.EXEMPT: (layout.EXEMPT_KEY.size, layout.EXEMPT.size, True),
    MapName.EXEMPT_MAC: (layout.EXEMPT_MAC_KEY.size, layout.EXEMPT_MAC.size, True),
    MapName.STATIONS: (layout.STATION_KEY.size, layout.STATION.size, False),
    MapName.UNINSPECTED: (4, layout.COUNT.size, False),
}


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
            # The version first: a map that is new in this one is missing in an older gate.
            for name, (key_size, value_size, is_written) in _MAPS.items():
                with _told(name):
                    path = pin_directory / name
                    self._maps[name] = BpfMap(path, key_size, value_size, read_only=not is_written)
                if name is MapName.CONFIG:
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
            raw = self._maps[MapName.CONFIG].lookup(bytes(4))
        abi, config = config_of(raw or bytes(layout.CONFIG.size))
        if abi != layout.ABI:
            raise GateUnavailableError(MapName.CONFIG, f"version {abi} instead of {layout.ABI}")
        return config

    def terminals(self) -> list[Terminal]:
        """Return every terminal the gate remembers (8192 at most, the least recent are forgotten first)."""
        to_unix = self._converter()
        with _told(MapName.TERMINALS):
            return [terminal_of(key, value, to_unix) for key, value in self._maps[MapName.TERMINALS].items()]

    def terminal(self, address: Address | str) -> Terminal | None:
        """Return the terminal that uses an address, or None."""
        key = packed(ipaddress.ip_address(address))
        with _told(MapName.TERMINALS):
            value = self._maps[MapName.TERMINALS].lookup(key)
        return terminal_of(key, value, self._converter()) if value is not None else None

    def stations(self) -> list[Station]:
        """Return behind which port each MAC was last seen (8192 at most)."""
        to_unix = self._converter()
        with _told(MapName.STATIONS):
            return [station_of(key, value, to_unix) for key, value in self._maps[MapName.STATIONS].items()]

    def drain_blocked(self) -> list[BlockedFlow]:
        """Return what the block list stopped since the last call, and forget it (4096 at most)."""
        return list(self._blocked(self._maps[MapName.BLOCKED].take()))

    def blocked(self) -> list[BlockedFlow]:
        """Return what the block list stopped and the agent has not drained yet."""
        return list(self._blocked(self._maps[MapName.BLOCKED].items()))

    def bypassed_flows(self) -> Iterator[BypassedFlow]:
        """Walk over the flows that pass the engine by (65536 at most), those included whose epoch is over."""
        to_unix = self._converter()
        with _told(MapName.FLOWS):
            for key, value in self._maps[MapName.FLOWS].items():
                yield flow_of(key, value, to_unix)

    def counters(self) -> dict[Counter, Count]:
        """Return all counters, summed over the processors."""
        return {counter: self._count(MapName.COUNTERS, counter) for counter in Counter}

    def uninspected(self) -> dict[Uninspected, Count]:
        """Return what left the box uninspected since the gate was loaded, by reason, summed over the processors."""
        return {reason: self._count(MapName.UNINSPECTED, reason) for reason in Uninspected}

    def control(self) -> Control:
        """Return what steers the gate now."""
        return Control(
            hung_until=self.hung_until(),
            bypass_until=self.bypass_until(),
            button_until=self.button_until(),
            epoch=self._slot(ControlSlot.EPOCH),
            fail_closed=self.is_fail_closed(),
            paused_until=self._lease(ControlSlot.PAUSED_UNTIL_NS),
        )

    def hung_until(self) -> float | None:
        """Return until when (Unix time) everything passes because the engine hangs; None when it does not."""
        return self._lease(ControlSlot.HUNG_UNTIL_NS)

    def bypass_until(self) -> float | None:
        """Return until when (Unix time) everything passes by command; None when there is none."""
        return self._lease(ControlSlot.BYPASS_UNTIL_NS)

    def button_until(self) -> float | None:
        """Return until when (Unix time) everything passes because of the board's button; None when it does not."""
        return self._lease(ControlSlot.BUTTON_UNTIL_NS)

    def set_bypass_until(self, until: float | None) -> None:
        """Let everything pass engine and block list until a moment; the gate ends it by itself.

        Args:
            until: Unix time, at most a week ahead; None or the past ends it at once.

        Raises:
            ValueError: It is more than a week ahead.
            GateUnavailableError: The map cannot be used.
        """
        now, since_boot = self._clocks()
        left_s = 0.0 if until is None else until - now
        if left_s > _MAX_LEASE_S:
            raise ValueError("a bypass may last a week at most")
        self._set_slot(ControlSlot.BYPASS_UNTIL_NS, round((since_boot + left_s) * 1e9) if left_s > 0 else 0)

    def pause_engine(self) -> None:
        """Lead everything past the engine for `PAUSE_S`, because it is about to be stopped on purpose.

        What waits in its queues when they close is lost; after this nothing new gets there. Not with fail-closed.

        Raises:
            GateUnavailableError: The map cannot be used.
        """
        _now, since_boot = self._clocks()
        self._set_slot(ControlSlot.PAUSED_UNTIL_NS, round((since_boot + PAUSE_S) * 1e9))

    def resume_engine(self) -> None:
        """End `pause_engine` before its time, because the engine is back. Raises `GateUnavailableError`."""
        self._set_slot(ControlSlot.PAUSED_UNTIL_NS, 0)

    def raise_epoch(self) -> int:
        """End the bypass of every flow at once; return the new epoch. For a change of policy or of blocks."""
        epoch = (self._slot(ControlSlot.EPOCH) + 1) % (1 << 64)
        self._set_slot(ControlSlot.EPOCH, epoch)
        return epoch

    def is_fail_closed(self) -> bool:
        """Say whether forwarded IP that nothing has inspected is dropped."""
        return self._slot(ControlSlot.FAIL_CLOSED) == 1

    def set_fail_closed(self, *, on: bool) -> None:
        """Choose whether forwarded IP that nothing has inspected is dropped (the policy switch; normally not)."""
        self._set_slot(ControlSlot.FAIL_CLOSED, int(on))

    def block_list(self) -> Iterator[tuple[Network, int]]:
        """Walk over the block list: prefix and number of its list (131072 at most)."""
        with _told(MapName.BLOCK):
            for key, value in self._maps[MapName.BLOCK].items():
                bits, raw = layout.BLOCK_KEY.unpack(key)
                yield network_of(raw, bits), layout.BLOCK.unpack(value)[1]

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
                wanted.setdefault(prefix_key(prefix), value)
                if len(wanted) > layout.MAX_BLOCK:
                    raise BlockListFullError(layout.MAX_BLOCK)
        return self._sync(MapName.BLOCK, wanted)

    def change_block(self, changes: Iterable[tuple[bytes, int | None]]) -> tuple[int, int]:
        """Add entries to the block list and remove entries from it, in the order given.

        Args:
            changes: Lines of a list (``b"203.0.113.7"``, ``b"2001:db8::/32"``) with the number of their list, or with
                None when they are to go; one that is not there may go too. They are read in small batches.

        Returns:
            How many entries were written and how many removals asked for.

        Raises:
            BadPrefixError: A line is no address or prefix.
            PrefixTooWideError: One is too wide.
            BlockListFullError: They do not fit.
            GateUnavailableError: The map cannot be used.
            In each case the batches before are in force.
        """
        with _told(MapName.BLOCK):
            return block_list.change(self._maps[MapName.BLOCK], changes)

    def replace_block(self, entries: Callable[[], Iterable[tuple[bytes, int]]]) -> tuple[int, int]:
        """Make the block list consist of exactly these entries, without holding them in memory.

        Args:
            entries: Called twice, returns the same lines with the numbers of their lists both times. Of a line that
                comes twice the later counts.

        Returns:
            How many entries were written and how many removed.

        Raises:
            BadPrefixError: A line is no address or prefix; nothing was changed.
            PrefixTooWideError: One is too wide; nothing was changed.
            BlockListFullError: They are too many; nothing was changed.
            GateUnavailableError: The map cannot be used; the list may be changed in part.
        """
        with _told(MapName.BLOCK):
            return block_list.replace(self._maps[MapName.BLOCK], entries)

    def sync_exemptions(
        self, addresses: Iterable[ExemptAddress] = (), macs: Iterable[ExemptMac] = ()
    ) -> tuple[int, int]:
        """Make the exemptions consist of exactly these.

        What they name passes engine and block list by, at once and for running connections too.

        Returns:
            How many entries were added (or changed) and how many removed.

        Raises:
            ExemptionsFullError: They are too many.
            PrefixTooWideError: One is too wide.
            ValueError: A MAC is not one device's.
            GateUnavailableError: A map cannot be used; the exemptions may be changed in part.
        """
        wanted_addresses, wanted_macs = exempt_entries(addresses), exempt_mac_entries(macs)
        sums = (self._sync(MapName.EXEMPT, wanted_addresses), self._sync(MapName.EXEMPT_MAC, wanted_macs))
        return sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]

    def _sync(self, name: MapName, wanted: dict[bytes, bytes]) -> tuple[int, int]:
        stale = []
        with _told(name):
            one = self._maps[name]
            for key, value in one.items():
                if key not in wanted:
                    stale.append(key)
                elif wanted[key] == value:
                    del wanted[key]
            one.delete_many(stale)
            one.update_many(list(wanted), list(wanted.values()))
        return len(wanted), len(stale)

    def _blocked(self, items: Iterator[tuple[bytes, bytes]]) -> Iterator[BlockedFlow]:
        to_unix = self._converter()
        with _told(MapName.BLOCKED):
            for key, value in items:
                yield blocked_of(key, value, to_unix)

    def _count(self, name: MapName, index: int) -> Count:
        with _told(name):
            raw = self._maps[name].lookup(index.to_bytes(4, "little"), size=layout.COUNT.size * self._cpus)
        pairs = list(layout.COUNT.iter_unpack(raw or b""))
        return Count(sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs))

    def _slot(self, slot: ControlSlot) -> int:
        with _told(MapName.CONTROL):
            raw = self._maps[MapName.CONTROL].lookup(slot.to_bytes(4, "little"))
        (number,) = layout.CONTROL.unpack(raw or bytes(layout.CONTROL.size))
        return int(number)

    def _set_slot(self, slot: ControlSlot, number: int) -> None:
        with _told(MapName.CONTROL):
            self._maps[MapName.CONTROL].update(slot.to_bytes(4, "little"), layout.CONTROL.pack(number))

    def _lease(self, slot: ControlSlot) -> float | None:
        until_ns = self._slot(slot)
        now, since_boot = self._clocks()
        left_s = until_ns / 1e9 - since_boot
        return round(now + left_s, 3) if left_s > 0 else None

    def _converter(self) -> ToUnix:
        now, since_boot = self._clocks()
        return lambda boot_ns: round(now - since_boot + boot_ns / 1e9, 3)


@contextlib.contextmanager
def _told(name: MapName) -> Iterator[None]:
    """Turn a refusal of the kernel into the package's own error."""
    try:
        yield
    except PermissionError as err:
        hint = "it is for root and the group omamori"
        raise GateUnavailableError(name, err.strerror or str(err), hint=hint) from err
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
