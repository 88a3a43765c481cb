"""Go on, wait, or stop."""

from __future__ import annotations

import dataclasses
import enum

from .bound import failure_bound
from .policy import RolloutPolicy
from .tally import Tally


class Move(enum.Enum):
    """What to do with a rollout."""

    WAIT = "wait"
    ADVANCE = "advance"
    HALT = "halt"
    DONE = "done"


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do, and why.

    Attributes:
        move: What to do.
        reason: One sentence for the operator.
        failure_bound: The failure rate (0 to 1) that the reports so far rule out, at 95 % confidence.
    """

    move: Move
    reason: str
    failure_bound: float


def decide(policy: RolloutPolicy, ring: int, in_ring_s: float, tally: Tally) -> Decision:
    """Decide about a rollout.

    Nothing but reports moves a rollout on: time alone never does, and boxes that are switched off neither stop nor
    hasten it. A halt is final; going on is a new rollout.

    Args:
        policy: The rings and the halt rule.
        ring: Number of the ring that was reached last, from 0.
        in_ring_s: Seconds since it was reached.
        tally: Outcomes of all boxes reached so far.

    Raises:
        ValueError: There is no such ring.
    """
    if not 0 <= ring < len(policy.rings):
        raise ValueError(f"no ring {ring} among {len(policy.rings)}")
    here = policy.rings[ring]
    bound = failure_bound(tally.reports, tally.bad)
    halt = _halt_reason(policy, ring, tally)
    if halt:
        return Decision(Move.HALT, halt, bound)
    needed = min(here.minimum_reports, tally.boxes)
    if tally.reports < needed:
        return Decision(Move.WAIT, f"{tally.reports} of {needed} reports in ring {here.name}", bound)
    if in_ring_s < here.bake_s:
        return Decision(Move.WAIT, f"ring {here.name} bakes for {here.bake_s - in_ring_s:.0f} s more", bound)
    if ring == len(policy.rings) - 1:
        return Decision(Move.DONE, f"everyone is reached; {tally.reports} reports, {tally.bad} bad", bound)
    if not tally.reports and tally.boxes:
        return Decision(Move.WAIT, f"no box of ring {here.name} has reported yet", bound)
    following = policy.rings[ring + 1]
    reason = f"ring {here.name} is good: {tally.reports} reports, {tally.bad} bad; next is {following.name}"
    return Decision(Move.ADVANCE, reason, bound)


def _halt_reason(policy: RolloutPolicy, ring: int, tally: Tally) -> str:
    if ring == 0 and policy.is_first_ring_strict and tally.bad:
        return f"bad report in the first ring: {tally.describe_bad()}"
    # A fleet smaller than that has said everything it can when all its boxes have reported.
    is_enough = tally.reports >= min(policy.halt_reports, tally.boxes)
    if is_enough and tally.bad > policy.halt_rate * tally.reports:
        return (
            f"{tally.bad} of {tally.reports} reports are bad ({tally.describe_bad()}), more than {policy.halt_rate:.1%}"
        )
    return ""
