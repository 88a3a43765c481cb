"""Judges why a box was away, or is. Rules only: no clock, no database.

An absence begins with the last word of the box and ends with its next birth message. While it lasts, little can be
known: whether the box said goodbye, and whether it went alone. When it is over, the box itself tells the rest: a box
that ran on the whole time had no line; one that started anew says how its run before ended. What a box says about
itself beats what the crowd looks like, except that a box that merely lost its line at the same time as many others, or
while we ourselves were cut off, lost it because of us.

No reason is more than the most probable one; the evidence is kept beside it (docs/adr/0053-why-a-box-was-away.md).
"""

from __future__ import annotations

import dataclasses

from omamori_protocol.trouble import trouble_of
from omamori_protocol.vocabulary import Leaving, PowerKind, RunEnd, WireEnum

Evidence = dict[str, int | str]


class OutageReason(WireEnum):
    """Why a box was not there; numbers are stored and never reused."""

    UNKNOWN = 0  # too early to say
    MAINTENANCE = 1  # it said that it would restart, and did or still may
    OVERDUE = 2  # it said so and did not come back in time
    SWITCHED_OFF = 3  # somebody switched it off in an orderly way
    POWER = 4  # the power went away
    LINE = 5  # it ran on without a way to us
    CRASH = 6  # it restarted by itself: watchdog or panic
    PROGRAM = 7  # only the agent restarted
    SERVICE = 8  # our own service was not reachable
    LINE_OR_POWER = 9  # it is away for long; what it was, it will tell when it is back
    DEAD = 10  # so long that somebody should look


@dataclasses.dataclass(frozen=True, kw_only=True)
class LivenessConfig:
    """Thresholds; seconds unless named otherwise."""

    every_s: int = 5  # between two looks
    blink_s: int = 20  # a connection that is made anew within this is no absence
    notice_after_s: int = 600  # the customer is told of an absence that lasts
    dead_after_s: int = 86_400
    together_s: int = 90  # boxes that went within this went together: a heartbeat's interval and a half
    together_boxes: int = 5  # fewer never look like our own failure
    together_permille: int = 500  # share of the boxes that were there
    worker_silent_s: int = 30  # a worker that has not signed for so long takes nothing in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crowd:
    """What happened to others at the same moment.

    Attributes:
        gone: How many boxes went together with this one, itself included.
        there: How many had been there until then.
        is_blind: Whether we ourselves were cut off, or are.
    """

    gone: int = 1
    there: int = 1
    is_blind: bool = False

    def is_ours(self, config: LivenessConfig) -> bool:
        """Tell whether this looks like a failure of our own."""
        enough = self.gone >= config.together_boxes
        return self.is_blind or (enough and self.gone * 1000 >= self.there * config.together_permille)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absence:
    """What is known of a box that is away: from when on, and what it last said about it.

    Attributes:
        start_ms: When it was last heard.
        left_ms: When the broker said that it is gone (its goodbye or its will); None while it is only silent.
        leaving: Why it said goodbye; None without a goodbye.
        quiet_s: How long it said it would be silent.
    """

    start_ms: int
    left_ms: int | None = None
    leaving: Leaving | None = None
    quiet_s: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Return:
    """What a box said when it was back.

    Attributes:
        at_ms: When that came in.
        is_same_run: Whether its agent is the one from before (same boot number).
        uptime_s: Since power-on; None from a firmware that does not tell.
        last_end: How the run before ended.
        away_s: How long its agent was without a connection.
        trouble: Code of the gravest trouble that it saw meanwhile.
        power: What its supervisor saw of the power when this run of it began; None without a supervisor.
        power_ms: For how long the power had been away; 0 where nobody could measure it.
    """

    at_ms: int
    is_same_run: bool
    uptime_s: int | None = None
    last_end: RunEnd | None = None
    away_s: int | None = None
    trouble: int | None = None
    power: PowerKind | None = None
    power_ms: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The most probable reason and what speaks for it."""

    reason: OutageReason
    evidence: Evidence


def is_absence(absence: Absence, back: Return, config: LivenessConfig) -> bool:
    """Tell whether a box that has connected anew had been away at all.

    A box that restarted was; one that merely changed its connection was only if it took longer than a blink.
    """
    if not back.is_same_run:
        return True
    away_s = back.away_s if back.away_s is not None else (back.at_ms - absence.start_ms) / 1000
    return away_s >= config.blink_s


def judge_absence(absence: Absence, crowd: Crowd, now_ms: int, config: LivenessConfig) -> Verdict:
    """Return the most probable reason of an absence that lasts."""
    evidence = _evidence(absence, crowd, config)
    lasts_s = (now_ms - absence.start_ms) / 1000
    if absence.leaving is Leaving.OFF:
        return Verdict(reason=OutageReason.SWITCHED_OFF, evidence=evidence)
    if absence.leaving is not None:
        is_quiet = now_ms < (absence.left_ms or absence.start_ms) + absence.quiet_s * 1000
        if is_quiet:
            return Verdict(reason=OutageReason.MAINTENANCE, evidence=evidence)
    if crowd.is_ours(config):
        return Verdict(reason=OutageReason.SERVICE, evidence=evidence)
    if lasts_s >= config.dead_after_s:
        reason = OutageReason.DEAD
    elif absence.leaving is not None and absence.leaving is not Leaving.SESSION:
        reason = OutageReason.OVERDUE
    elif lasts_s >= config.notice_after_s:
        reason = OutageReason.LINE_OR_POWER
    else:
        reason = OutageReason.UNKNOWN
    return Verdict(reason=reason, evidence=evidence)


def judge_return(absence: Absence, back: Return, crowd: Crowd, config: LivenessConfig) -> Verdict:
    """Return the most probable reason of an absence that is over."""
    evidence = _evidence(absence, crowd, config)
    for name, value in (("uptime_s", back.uptime_s), ("away_s", back.away_s), ("trouble", back.trouble)):
        if value is not None:
            evidence[name] = value
    if back.last_end is not None:
        evidence["last_end"] = back.last_end.word
    if back.power is not None and _has_restarted(absence, back):
        evidence["power"] = back.power.word
        if back.power_ms:
            evidence["power_ms"] = back.power_ms
    return Verdict(reason=_judge_return(absence, back, crowd, config), evidence=evidence)


def _judge_return(absence: Absence, back: Return, crowd: Crowd, config: LivenessConfig) -> OutageReason:
    if back.is_same_run:
        return OutageReason.SERVICE if crowd.is_ours(config) else OutageReason.LINE
    otherwise = OutageReason.UNKNOWN if absence.leaving is None else OutageReason.MAINTENANCE
    if back.uptime_s is None:
        return otherwise
    if not _has_restarted(absence, back):
        # It had been on since before we last heard it.
        return OutageReason.PROGRAM if absence.leaving is None else OutageReason.MAINTENANCE
    return _judge_restart(absence, back) or otherwise


def _has_restarted(absence: Absence, back: Return) -> bool:
    """Tell whether the box started anew after we last heard it."""
    lasted_s = (back.at_ms - absence.start_ms) / 1000
    return not back.is_same_run and back.uptime_s is not None and back.uptime_s < lasted_s


def _judge_restart(absence: Absence, back: Return) -> OutageReason | None:
    """Return why a box started anew; None if it does not say."""
    if back.last_end in (RunEnd.WATCHDOG, RunEnd.PANIC):
        return OutageReason.CRASH
    if back.last_end is RunEnd.ABRUPT and back.power is PowerKind.NONE:
        return OutageReason.CRASH  # the supervisor saw that the power stayed; something reset the box
    if back.last_end is RunEnd.ABRUPT or (back.last_end is not RunEnd.ORDERLY and back.power):
        # Who has no line pulls the plug, because that helps so often: the line came first.
        return OutageReason.LINE if _is_about_line(back.trouble) else OutageReason.POWER
    if absence.leaving is Leaving.OFF:
        return OutageReason.SWITCHED_OFF
    return OutageReason.MAINTENANCE if back.last_end is RunEnd.ORDERLY else None


def is_notice_due(reason: OutageReason, absence: Absence, now_ms: int, config: LivenessConfig) -> bool:
    """Tell whether the customer should hear of an absence that lasts.

    Not of a planned one, not of one that is our own fault, and not of one that may be over in a moment.
    """
    if reason in (OutageReason.MAINTENANCE, OutageReason.SERVICE):
        return False
    since_ms = absence.start_ms if reason is not OutageReason.OVERDUE else absence.left_ms or absence.start_ms
    quiet_s = absence.quiet_s if reason is OutageReason.OVERDUE else 0
    return now_ms - since_ms >= (config.notice_after_s + quiet_s) * 1000


def _is_about_line(code: int | None) -> bool:
    trouble = trouble_of(code)
    return trouble is not None and not trouble.is_remark and 7000 <= trouble < 8000


def _evidence(absence: Absence, crowd: Crowd, config: LivenessConfig) -> Evidence:
    found: Evidence = {}
    if absence.leaving is not None:
        found["goodbye"] = absence.leaving.word
        found["quiet_s"] = absence.quiet_s
    elif absence.left_ms is not None:
        found["will_after_s"] = max(0, absence.left_ms - absence.start_ms) // 1000
    if crowd.is_blind:
        found["service_cut_off"] = 1
    if crowd.gone >= config.together_boxes:
        found["gone_together"] = crowd.gone
        found["boxes_there"] = crowd.there
    return found
