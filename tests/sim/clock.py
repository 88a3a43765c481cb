"""A clock that moves when a test says so."""

from __future__ import annotations


class ManualClock:
    """`omamori_agent.ports.Clock` under a test's control."""

    def __init__(self, now_s: float = 1_790_000_000.0, monotonic_s: float = 100.0) -> None:
        self.now_s = now_s
        self.monotonic_s = monotonic_s

    def now(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        self.monotonic_s += seconds
