"""How fast a backlog goes out after an outage, so that a fleet that comes back at once does not arrive at once.

* Only what waited when the connection was made is paced, and never three stars.
* A backlog is spread over a part of the time in which it came together. So the fleet sends at most a few times as fast
  as it does every day, however many boxes were cut off and for how long, and nobody has to tell a box about others.
* Each connection draws its own share of chance: rate and beginning differ from box to box.

No input or output; times are monotonic seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from omamori_agent.config import LinkLimits


class Pace:
    """The pace of one connection's backlog.

    Args:
        backlog: How many events waited when the connection was made.
        age_s: How long ago the oldest of them happened; nonsense of a clock that jumped does no harm.
        now_s: The present.
        limits: Share, longest spread, and what goes at once.
        uniform: Source of chance, `random.uniform` unless a test needs to know.
    """

    def __init__(
        self,
        backlog: int,
        age_s: float,
        now_s: float,
        limits: LinkLimits,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._at_once = float(limits.backlog_at_once)
        self._allowance = uniform(1.0, max(1.0, self._at_once))
        spread_s = min(limits.backlog_spread_cap_s, max(0.0, age_s) * limits.backlog_share)
        spread_s *= uniform(1.0 - limits.backlog_jitter, 1.0 + limits.backlog_jitter)
        is_paced = backlog > limits.backlog_at_once and spread_s > 0
        self._rate_per_s = backlog / spread_s if is_paced else 0.0
        self._at_s = now_s

    def room(self, now_s: float, most: int) -> int:
        """Return how many events of the backlog may go now, `most` at most."""
        if self._rate_per_s <= 0:
            return most
        allowance = self._allowance + (now_s - self._at_s) * self._rate_per_s
        # Whoever could not send for a while does not make up for it at once.
        self._allowance = min(max(self._at_once, self._rate_per_s), allowance)
        self._at_s = now_s
        return min(most, int(self._allowance))

    def sent(self, count: int) -> None:
        """Note that `count` events of the backlog went out."""
        self._allowance -= count

    def wait_s(self) -> float:
        """Return how long it takes until another one may go."""
        return max(0.0, (1.0 - self._allowance) / self._rate_per_s) if self._rate_per_s > 0 else 0.0
