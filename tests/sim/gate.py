"""The gate as engine and feed see it, in memory."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.gate import BlockedFlow, Terminal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class SimulatedGate:
    """`omamori_agent.engine.GatePort`."""

    def __init__(self) -> None:
        self.macs: dict[str, str] = {}
        self.flows: list[BlockedFlow] = []
        self.lists: dict[int, set[str]] = {}
        self.syncs = 0
        self.replacements = 0
        self.pauses = 0
        self.is_paused = False
        self.is_there = True
        self.capacity = 1000

    @property
    def blocked(self) -> set[str]:
        return set().union(*self.lists.values())

    def terminal(self, address: Address | str) -> Terminal | None:
        self._need()
        mac = self.macs.get(str(address))
        return Terminal(ipaddress.ip_address(address), mac, 3, 0.0, 0.0, 1, 60) if mac else None

    def drain_blocked(self) -> list[BlockedFlow]:
        self._need()
        flows, self.flows = self.flows, []
        return flows

    def change_block(self, changes: Iterable[tuple[bytes, int | None]]) -> tuple[int, int]:
        """Like the real one: a list it cannot take is in force up to there."""
        self._need()
        self.syncs += 1
        written = removed = 0
        for line, number in changes:
            prefix = str(ipaddress.ip_network(line.decode()))
            for entries in self.lists.values():
                entries.discard(prefix)
            if number is None:
                removed += 1
                continue
            if len(self.blocked) >= self.capacity:
                raise RejectedError("the block list has too many prefixes")
            self.lists.setdefault(number, set()).add(prefix)
            written += 1
        return written, removed

    def replace_block(self, entries: Callable[[], Iterable[tuple[bytes, int]]]) -> tuple[int, int]:
        self._need()
        wanted: dict[int, set[str]] = {}
        for line, number in entries():
            wanted.setdefault(number, set()).add(str(ipaddress.ip_network(line.decode())))
        if sum(map(len, wanted.values())) > self.capacity:
            raise RejectedError("the block list has too many prefixes")
        before, self.lists = self.blocked, wanted
        self.syncs += 1
        self.replacements += 1
        return len(self.blocked), len(before - self.blocked)

    def pause_engine(self) -> None:
        self._need()
        self.pauses += 1
        self.is_paused = True

    def resume_engine(self) -> None:
        self._need()
        self.is_paused = False

    def _need(self) -> None:
        if not self.is_there:
            raise TransientError("gate map block: no such file")
