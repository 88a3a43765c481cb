"""How a feed does on the boxes that have it: what each box reported, judged by the rollout's rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from omamori_ota.rollout import Limits, Outcome, Tally, Vitals, find_regressions, is_reached
from omamori_protocol.vocabulary import FeedState

MAX_NAMED = 100  # boxes with a bad outcome that an answer names


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """What is known of one feed on one box.

    Attributes:
        device: The box.
        last_contact_ms: When it was last heard of.
        verdict: The newest thing it said about this feed; None if nothing.
        reason: The box's own words.
        before: The box before it took the feed.
        after: The box since.
    """

    device: str
    last_contact_ms: int | None
    verdict: FeedState | None = None
    reason: str | None = None
    before: Vitals | None = None
    after: Vitals | None = None


@dataclasses.dataclass(frozen=True)
class BoxOutcome:
    """The judgement on one box, with the reason for people."""

    device: str
    outcome: Outcome
    reason: str


@dataclasses.dataclass(frozen=True)
class Trial:
    """The judgement on a feed: numbers over all boxes it has reached, and the boxes that speak against it."""

    tally: Tally
    bad: tuple[BoxOutcome, ...]


def judge_box(facts: TrialFacts, *, now_ms: int, silence_s: int, limits: Limits) -> BoxOutcome:
    """Return what one box says about the feed."""
    match facts.verdict:
        case FeedState.REFUSED:
            return BoxOutcome(facts.device, Outcome.REFUSED, facts.reason or "refused")
        case FeedState.ROLLED_BACK:
            return BoxOutcome(facts.device, Outcome.ROLLED_BACK, facts.reason or "rolled back")
        case FeedState.ACTIVE:
            pass
        case _:
            return BoxOutcome(facts.device, Outcome.PENDING, "")
    silent_s = (now_ms - (facts.last_contact_ms or 0)) / 1000
    if silent_s > silence_s:
        return BoxOutcome(facts.device, Outcome.SILENT, f"not heard of for {silent_s:.0f} s")
    if facts.before is not None and facts.after is not None:
        worse = find_regressions(facts.before, facts.after, limits)
        if worse:
            return BoxOutcome(facts.device, Outcome.REGRESSED, "; ".join(item.value for item in worse))
    return BoxOutcome(facts.device, Outcome.GOOD, "")


def judge(
    facts: Iterable[TrialFacts],
    *,
    channel: str,
    permille: int,
    now_ms: int,
    silence_s: int,
    limits: Limits | None = None,
) -> Trial:
    """Judge a feed by the boxes that it has reached.

    Args:
        facts: All boxes; those that the feed has not reached are passed over.
        channel: The feed's channel.
        permille: How much of the fleet it has reached.
        now_ms: The present, Unix time in milliseconds.
        silence_s: A box with the feed that was not heard of for longer counts as silent.
        limits: From when on a box is worse off than before.
    """
    reached = (item for item in facts if is_reached(item.device, channel, permille))
    outcomes = [judge_box(item, now_ms=now_ms, silence_s=silence_s, limits=limits or Limits()) for item in reached]
    bad = tuple(item for item in outcomes if item.outcome.is_bad)
    return Trial(Tally.of(item.outcome for item in outcomes), bad[:MAX_NAMED])
