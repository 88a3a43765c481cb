"""How long to wait before the next try: doubling, capped, and never two boxes in step."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays of full-range jitter: each one is between half and all of an exponentially growing bound.

    Args:
        first_s: Bound of the first delay in seconds.
        cap_s: Largest bound in seconds.
        uniform: Source of chance, `random.uniform` unless a test needs to know.
    """

    def __init__(
        self, first_s: float, cap_s: float, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._uniform = uniform
        self._bound_s = first_s

    def next_s(self) -> float:
        """Return the next delay in seconds."""
        bound_s = self._bound_s
        self._bound_s = min(self._cap_s, bound_s * 2)
        return self._uniform(bound_s / 2, bound_s)

    def reset(self) -> None:
        """Start over after a success."""
        self._bound_s = self._first_s
