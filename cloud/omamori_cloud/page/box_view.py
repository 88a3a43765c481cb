"""Makes a box ready to be read: every value in words, every text from outside harmless."""

from __future__ import annotations

import dataclasses

from omamori_cloud.clock import JAPAN, to_datetime, to_rfc3339
from omamori_cloud.facts import BoxFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.health import Finding, Health, Level, assess, feed_problem
from omamori_cloud.wording import Wording
from omamori_protocol.trouble import trouble_of
from omamori_protocol.vocabulary import EngineState, FeedState

_FEED_FINDINGS = frozenset({Finding.FEED_REFUSED, Finding.FEED_ROLLED_BACK, Finding.FEED_STALE})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindingView:
    """Something to know about the box; `technical` is the box's own explanation, or empty."""

    level: str
    title: str
    advice: str
    reason: str = ""
    technical: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureView:
    """One labelled figure of a card; `tone` is ``ok``, ``notice``, ``danger`` or empty."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    help: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxView:
    """A card."""

    device: str
    name: str
    named: bool
    level: str
    status: str
    online: bool
    presence: str
    contact: str
    contact_iso: str
    contact_exact: str
    model: str
    development: bool
    findings: tuple[FindingView, ...]
    figures: tuple[FigureView, ...]
    spooled: str
    more_url: str  # where more about the box is told; empty there


def exact(at_ms: int) -> str:
    """Return for example ``2026-01-31 18:00:00 JST``."""
    return f"{to_datetime(at_ms).astimezone(JAPAN):%Y-%m-%d %H:%M:%S} JST"


def view_box(
    box: BoxFacts, *, name: str | None, now_ms: int, offline_after_s: int, words: Wording, more_url: str = ""
) -> BoxView:
    """Return the card of `box`.

    Args:
        box: What it last said.
        name: What its owner calls it, if anything.
        now_ms: The present.
        offline_after_s: Silence after which it counts as offline.
        words: The language.
        more_url: Where more about the box is told, if not here.
    """
    health = assess(box, now_ms=now_ms, offline_after_s=offline_after_s)
    contact_ms = box.last_contact_ms
    return BoxView(
        device=box.device,
        name=harmless(name or box.device, limit=60),
        named=name is not None,
        level=health.level.word,
        status=_status(health, words),
        online=health.online,
        presence=_presence(health, words),
        contact=words.box.never if contact_ms is None else words.times.ago(max(0, now_ms - contact_ms) // 1000),
        contact_iso="" if contact_ms is None else to_rfc3339(contact_ms),
        contact_exact="" if contact_ms is None else exact(contact_ms),
        model=harmless(box.model or "", limit=32),
        development=box.flavour == "dev",
        findings=tuple(_finding(finding, box, health, words) for finding in health.findings),
        figures=_figures(box, health, words),
        spooled=words.box.spooled(box.spool_depth) if health.online and box.spool_depth else "",
        more_url=more_url,
    )


def _status(health: Health, words: Wording) -> str:
    if Finding.NEVER_HEARD in health.findings:
        return words.box.waiting
    if not health.online:
        return words.box.offline
    return words.box.protecting if health.level is Level.OK else words.box.attention


def _presence(health: Health, words: Wording) -> str:
    if Finding.NEVER_HEARD in health.findings:
        return words.box.waiting
    return words.box.online if health.online else words.box.offline


def _finding(finding: Finding, box: BoxFacts, health: Health, words: Wording) -> FindingView:
    text = words.findings[finding]
    reason = technical = ""
    if finding is Finding.TROUBLE:
        trouble = trouble_of(box.trouble)
        about = words.liveness.unknown_trouble if trouble is None else words.liveness.troubles[trouble]
        return FindingView(
            level=Level.NOTICE.word,
            title=about.title,
            advice=about.advice,
            reason=words.liveness.code.format(code=box.trouble),
        )
    if finding is Finding.OFFLINE and box.outage is not None:
        cause = words.liveness.outages[box.outage.reason]
        reason = f"{words.liveness.reason}: {cause.name}"
    if finding in _FEED_FINDINGS and box.feed_reason:
        technical = harmless(box.feed_reason)
        reason = words.feed_problems[feed_problem(box.feed_reason)]
    return FindingView(
        level=health.level.word, title=text.title, advice=text.advice, reason=reason, technical=technical
    )


def _figures(box: BoxFacts, health: Health, words: Wording) -> tuple[FigureView, ...]:
    unknown = words.box.unknown
    # Of a silent box the last figures are still worth showing, but nothing in them is good news.
    good = "ok" if health.online else ""
    engine_tones = {EngineState.INSPECTING: good, EngineState.STARTING: "notice", EngineState.DOWN: "danger"}
    return (
        FigureView(
            label=words.box.firmware,
            value=harmless(box.firmware, limit=32) if box.firmware else unknown,
            note="" if box.slot is None else words.box.slot.format(slot=box.slot.name),
        ),
        _feed_figure(box, good, words),
        FigureView(
            label=words.box.engine,
            value=unknown if box.engine is None else words.engine[box.engine],
            tone="" if box.engine is None else engine_tones[box.engine],
        ),
        FigureView(
            label=words.box.uninspected,
            value=_uninspected(box.uninspected_s, words),
            help=words.box.uninspected_help,
        ),
        FigureView(label=words.box.memory, value=_memory(box.memory_available_kib, words)),
        FigureView(label=words.box.uptime, value=_uptime(box.uptime_s, words)),
    )


def _memory(kib: int | None, words: Wording) -> str:
    return words.box.unknown if kib is None else words.box.memory_free.format(mib=f"{kib // 1024:,}")


def _uptime(seconds: int | None, words: Wording) -> str:
    if seconds is None:
        return words.box.unknown
    return words.times.span(seconds if seconds < 60 else seconds // 60 * 60)


def _uninspected(seconds: int | None, words: Wording) -> str:
    if seconds is None:
        return words.box.unknown
    return words.times.span(seconds) if seconds else words.box.uninspected_none


def _feed_figure(box: BoxFacts, good: str, words: Wording) -> FigureView:
    if not box.feed_serial:
        return FigureView(label=words.box.feed, value=words.box.never, tone="notice")
    notes = {
        FeedState.ACTIVE: (words.box.feed_current, good),
        FeedState.REFUSED: (words.box.feed_old, "notice"),
        FeedState.ROLLED_BACK: (words.box.feed_old, "notice"),
        FeedState.STALE: (words.other.feed_stale, "notice"),
    }
    note, tone = notes.get(box.feed_state, ("", "")) if box.feed_state is not None else ("", "")
    return FigureView(
        label=words.box.feed, value=words.box.feed_version.format(serial=box.feed_serial), note=note, tone=tone
    )
