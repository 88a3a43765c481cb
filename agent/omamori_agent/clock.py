"""The clock of the box, with a floor: a real-time clock that lost its battery must not put us back to 1970."""

from __future__ import annotations

import time


class SystemClock:
    """`ports.Clock` over the kernel's clocks.

    Args:
        floor_s: Unix time that `now` never goes below: when the running image was built.
    """

    def __init__(self, floor_s: float = 0.0) -> None:
        self._floor_s = floor_s

    def now(self) -> float:
        """Unix time in seconds, never before the floor."""
        return max(time.time(), self._floor_s)

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()
