"""What engine and feed need of the gate, and how they bear that it is not there.

The gate's maps appear when the wire is set up, which may be after the agent started, or never on a broken box. The
agent must not end for that: `GateAccess` opens the gate when it is needed and forgets it after a failure.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from omamori_agent.errors import TransientError
from omamori_agent.gate import BlockedFlow, Gate, Terminal
from omamori_protocol.device import parse_mac
from omamori_protocol.errors import MalformedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_T = TypeVar("_T")


class GatePort(Protocol):
    """The part of the gate that engine and feed use."""

    def terminal(self, address: Address | str) -> Terminal | None:
        """Return the terminal that uses an address."""

    def drain_blocked(self) -> list[BlockedFlow]:
        """Return what the block list stopped since the last call, and forget it."""

    def change_block(self, changes: Iterable[tuple[bytes, int | None]]) -> tuple[int, int]:
        """Add lines with the numbers of their lists to the block list, remove those with None; return how many."""

    def replace_block(self, entries: Callable[[], Iterable[tuple[bytes, int]]]) -> tuple[int, int]:
        """Make the block list consist of exactly these lines; return how many were written and removed."""

    def pause_engine(self) -> None:
        """Lead traffic past the engine for some seconds, because it is about to be stopped."""

    def resume_engine(self) -> None:
        """End that before its time."""


class GateAccess:
    """A gate that is opened when it is needed.

    Args:
        opener: Opens the gate; raises `TransientError` while it is not there.
        gate: One that is open already; its owner closes it.
    """

    def __init__(self, opener: Callable[[], Gate], gate: GatePort | None = None) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._gate = gate
        self._opened: Gate | None = None

    def terminal(self, address: Address | str) -> Terminal | None:
        """Return the terminal that uses an address; raises `TransientError` without a gate."""
        return self._use(lambda gate: gate.terminal(address))

    def drain_blocked(self) -> list[BlockedFlow]:
        """Return what was blocked since the last call; raises `TransientError` without a gate."""
        return self._use(lambda gate: gate.drain_blocked())

    def change_block(self, changes: Iterable[tuple[bytes, int | None]]) -> tuple[int, int]:
        """Change the block list; raises `TransientError` without a gate, `RejectedError` for what it cannot take."""
        return self._use(lambda gate: gate.change_block(changes))

    def replace_block(self, entries: Callable[[], Iterable[tuple[bytes, int]]]) -> tuple[int, int]:
        """Set the block list; raises `TransientError` without a gate, `RejectedError` for a list it cannot take."""
        return self._use(lambda gate: gate.replace_block(entries))

    def pause_engine(self) -> None:
        """Lead traffic past the engine; raises `TransientError` without a gate."""
        self._use(lambda gate: gate.pause_engine())

    def resume_engine(self) -> None:
        """End the pause; raises `TransientError` without a gate."""
        self._use(lambda gate: gate.resume_engine())

    def _use(self, action: Callable[[GatePort], _T]) -> _T:
        with self._lock:
            if self._gate is None:
                self._gate = self._opened = self._opener()
            try:
                return action(self._gate)
            except TransientError:
                self._gate = None
                if self._opened is not None:
                    self._opened.close()
                    self._opened = None
                raise


def mac_of(gate: GatePort, address: Address) -> bytes | None:
    """Return the MAC address of a terminal, or None if the gate does not know it or is not there."""
    with contextlib.suppress(TransientError, MalformedError):
        terminal = gate.terminal(address)
        return parse_mac(terminal.mac) if terminal is not None else None
    return None
