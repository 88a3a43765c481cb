"""The gate as engine and feed see it, in memory."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.gate import BlockedFlow, Network, Terminal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class SimulatedGate:
    """`omamori_agent.engine.GatePort`."""

    def __init__(self) -> None:
        self.macs: dict[str, str] = {}
        self.flows: list[BlockedFlow] = []
        self.lists: dict[int, set[str]] = {}
        self.syncs = 0
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

    def sync_block_lists(self, lists: Mapping[int, Iterable[Network]]) -> tuple[int, int]:
        self._need()
        wanted = {number: {str(prefix) for prefix in prefixes} for number, prefixes in lists.items()}
        if sum(map(len, wanted.values())) > self.capacity:
            raise RejectedError("the block list has too many prefixes")
        before, self.lists = self.blocked, wanted
        self.syncs += 1
        return len(self.blocked - before), len(before - self.blocked)

    def _need(self) -> None:
        if not self.is_there:
            raise TransientError("gate map block: no such file")
