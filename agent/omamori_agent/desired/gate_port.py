"""What desired state and commands need of the gate, and how they bear that it is not there.

The gate's maps appear when the wire is set up, which may be after the agent has started; after a failure the gate is
opened anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from omamori_agent.errors import TransientError
from omamori_agent.gate import ExemptAddress, ExemptMac, Gate

_T = TypeVar("_T")


class SteeringPort(Protocol):
    """The part of the gate that steers; every call raises `TransientError` while there is no gate."""

    def set_bypass(self, left_s: float) -> None:
        """Let everything pass uninspected for so many seconds from now; 0 ends it."""

    def button_left_s(self) -> float:
        """Return for how many seconds more everything passes because of the board's button; 0 if it does not."""

    def is_fail_closed(self) -> bool:
        """Return whether what was not inspected is dropped."""

    def set_fail_closed(self, *, on: bool) -> None:
        """Drop what was not inspected, or let it pass."""

    def raise_epoch(self) -> None:
        """Make every flow inspected again."""

    def sync_exemptions(self, addresses: Sequence[ExemptAddress], macs: Sequence[ExemptMac]) -> int:
        """Make the exemptions be exactly these; return how many entries changed."""


class Steering:
    """`SteeringPort` over the gate's maps.

    Args:
        opener: Opens the gate; raises `TransientError` while it is not there.
    """

    def __init__(self, opener: Callable[[], Gate]) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._gate: Gate | None = None

    def set_bypass(self, left_s: float) -> None:
        """Let everything pass uninspected for so many seconds from now; 0 ends it."""
        # The gate turns Unix time into time since power-on with the same clock, so a wrong clock does not matter.
        self._use(lambda gate: gate.set_bypass_until(time.time() + left_s if left_s > 0 else None))

    def button_left_s(self) -> float:
        """Return for how many seconds more everything passes because of the board's button; 0 if it does not."""
        until = self._use(lambda gate: gate.button_until())
        return 0.0 if until is None else max(0.0, until - time.time())

    def is_fail_closed(self) -> bool:
        """Return whether what was not inspected is dropped."""
        return self._use(lambda gate: gate.is_fail_closed())

    def set_fail_closed(self, *, on: bool) -> None:
        """Drop what was not inspected, or let it pass."""
        self._use(lambda gate: gate.set_fail_closed(on=on))

    def raise_epoch(self) -> None:
        """Make every flow inspected again."""
        self._use(lambda gate: gate.raise_epoch())

    def sync_exemptions(self, addresses: Sequence[ExemptAddress], macs: Sequence[ExemptMac]) -> int:
        """Make the exemptions be exactly these; return how many entries changed."""
        return sum(self._use(lambda gate: gate.sync_exemptions(addresses, macs)))

    def _use(self, action: Callable[[Gate], _T]) -> _T:
        with self._lock:
            if self._gate is None:
                self._gate = self._opener()
            try:
                return action(self._gate)
            except TransientError:
                self._gate.close()
                self._gate = None
                raise
