"""How carefully a release spreads: the rings and when to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from omamori_protocol.rings import PERMILLE

MAX_RINGS = 16
_MAX_BAKE_S = 90 * 86400


class PolicyError(ValueError):
    """A policy that could never stop anything, or never end; it is refused before the rollout begins."""


@dataclasses.dataclass(frozen=True)
class Ring:
    """A part of the fleet.

    Attributes:
        name: What an operator calls it.
        permille: How much of the fleet the release reaches with this ring, the rings before included.
        bake_s: Seconds the release has to prove itself in this ring before the next one.
        minimum_reports: So many boxes must have reported before the next ring, unless the ring has fewer.
    """

    name: str
    permille: int
    bake_s: int
    minimum_reports: int


@dataclasses.dataclass(frozen=True)
class RolloutPolicy:
    """The rings in their order, and the halt rule.

    A rollout halts when, of at least `halt_reports` reports, more than `halt_rate` are bad; and on the first bad
    report of the first ring if `is_first_ring_strict`, because there every box is one of ours.

    Attributes:
        rings: From small to everyone.
        halt_rate: Rate of bad reports (0 to 1) above which the rollout stops.
        halt_reports: How many reports it takes before the rate means anything.
        silence_s: A box that took the release and has not been heard of for so long counts as bad.
        is_first_ring_strict: One bad report in the first ring stops the rollout.
    """

    rings: tuple[Ring, ...]
    halt_rate: float
    halt_reports: int
    silence_s: int
    is_first_ring_strict: bool = True

    def __post_init__(self) -> None:
        """Refuse a policy that would not do what its author believes.

        Raises:
            PolicyError: With the reason.
        """
        _check_rings(self.rings)
        if not 0 <= self.halt_rate < 1:
            raise PolicyError(f"halt rate {self.halt_rate}: at 1 nothing would ever stop the rollout")
        if self.halt_reports < 1 or self.silence_s < 1:
            raise PolicyError("halt_reports and silence_s must be positive")


def _check_rings(rings: Sequence[Ring]) -> None:
    if not 1 <= len(rings) <= MAX_RINGS:
        raise PolicyError(f"a rollout has 1 to {MAX_RINGS} rings, not {len(rings)}")
    before = 0
    for ring in rings:
        if not before < ring.permille <= PERMILLE:
            raise PolicyError(f"ring {ring.name}: {ring.permille} ‰ must be above {before} and at most {PERMILLE}")
        if not 0 <= ring.bake_s <= _MAX_BAKE_S or ring.minimum_reports < 0:
            raise PolicyError(f"ring {ring.name}: bake time or number of reports out of range")
        before = ring.permille
    if before != PERMILLE:
        raise PolicyError(f"the last ring reaches {before} ‰: the rollout would never reach everyone")
    if len({ring.name for ring in rings}) != len(rings):
        raise PolicyError("two rings have the same name")
