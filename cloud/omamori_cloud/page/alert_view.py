"""Makes alerts and other events ready to be read: every value in words, every text from outside harmless."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from urllib.parse import urlencode

from omamori_cloud.clock import JAPAN, to_datetime, to_rfc3339
from omamori_cloud.facts import EventFacts, RefusalFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.health import feed_problem
from omamori_cloud.reports import suspect
from omamori_cloud.wording import Wording
from omamori_protocol.device import format_mac
from omamori_protocol.vocabulary import Direction, EventKind, FeedState, Function

from .box_view import exact
from .supervisor_view import power_name

_PLAIN_FUNCTIONS = frozenset({Function.CATEGORY, Function.APPLICATION})  # not dangerous by themselves


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeView:
    """A moment: in words, exactly, and for machines."""

    words: str
    exact: str
    iso: str


def view_time(at_ms: int, now_ms: int, words: Wording) -> TimeView:
    """Return a moment in Japanese time."""
    at, now = to_datetime(at_ms).astimezone(JAPAN), to_datetime(now_ms).astimezone(JAPAN)
    return TimeView(words=words.times.moment(at, now), exact=exact(at_ms), iso=to_rfc3339(at_ms))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertView:
    """One line of the list and what opens below it."""

    id: int
    time: TimeView
    stars: str
    severity: int
    severity_title: str
    severity_advice: str
    function: str
    function_name: str
    terminal_ip: str
    terminal_mac: str
    peer: str
    peer_address: str
    inward: bool
    direction: str
    action: str
    action_label: str
    category: str
    rule: str
    rule_id: str
    count: str
    box: str
    device: str
    sentence: str
    outcome: str
    meaning: str
    advice: str
    received: TimeView | None  # only when the box's own clock was wrong
    why_url: str  # where it is explained and can be reported as a false alarm; empty if nothing is known to ask for


def view_alert(alert: EventFacts, *, names: Mapping[str, str], now_ms: int, words: Wording) -> AlertView:
    """Return `alert` in `words`; `names` are what owners call their boxes."""
    function = words.unknown_function if alert.function is None else words.functions[alert.function]
    terminal_ip = harmless(alert.terminal_ip, limit=45) if alert.terminal_ip else ""
    peer = harmless(alert.destination or alert.remote_ip or "", limit=255)
    severity = words.severities[alert.severity]
    return AlertView(
        id=alert.id,
        time=view_time(alert.occurred_ms, now_ms, words),
        stars=alert.severity.stars,
        severity=int(alert.severity),
        severity_title=severity.title,
        severity_advice="" if alert.function in _PLAIN_FUNCTIONS and alert.severity == 1 else severity.advice,
        function="other" if alert.function is None else alert.function.word,
        function_name=function.name,
        terminal_ip=terminal_ip or words.alert.terminal_unknown,
        terminal_mac=words.alert.mac_unknown if alert.terminal_mac is None else format_mac(alert.terminal_mac),
        peer=peer or words.alert.destination_unknown,
        peer_address=_address(alert),
        inward=alert.direction is Direction.IN,
        direction="" if alert.direction is None else words.directions[alert.direction],
        action="" if alert.action is None else alert.action.word,
        action_label="" if alert.action is None else words.actions[alert.action],
        category=_category(alert.category, words),
        rule=harmless(alert.rule or "", limit=200),
        rule_id="" if alert.rule_id is None else str(alert.rule_id),
        count=words.alert.times(alert.count) if alert.count != 1 else "",
        box=harmless(names.get(alert.device, alert.device), limit=60),
        device=alert.device,
        sentence=_sentence(alert, terminal_ip or words.alert.terminal_unknown, peer, words),
        outcome="" if alert.action is None else words.outcomes[alert.action],
        meaning=function.meaning,
        advice=function.advice,
        received=view_time(alert.at_ms, now_ms, words) if alert.at_ms != alert.occurred_ms else None,
        why_url=f"/explain?{urlencode({'q': asked, 'alert': alert.id})}" if (asked := suspect(alert)) else "",
    )


def _sentence(alert: EventFacts, terminal: str, peer: str, words: Wording) -> str:
    template = words.sentence_unknown
    if alert.function is not None and alert.direction is not None:
        template = words.sentences[alert.function, alert.direction]
    return template.format(terminal=terminal, peer=peer or words.alert.destination_unknown)


def _category(category: str | None, words: Wording) -> str:
    return words.categories.get(category, harmless(category, limit=40)) if category else ""


def _address(alert: EventFacts) -> str:
    """Return for example ``203.0.113.66:80 TCP``, without what is unknown."""
    address = harmless(alert.remote_ip or "", limit=45)
    if address and alert.remote_port:
        address = f"[{address}]:{alert.remote_port}" if ":" in address else f"{address}:{alert.remote_port}"
    elif alert.remote_port:
        address = f":{alert.remote_port}"
    protocol = harmless(alert.protocol or "", limit=16).upper()
    return f"{address} {protocol}".strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class HappeningView:
    """Something a box did, other than raise an alert; `tone` is ``ok``, ``notice`` or empty."""

    id: int
    time: TimeView
    box: str
    tone: str
    title: str
    reason: str
    technical: str


def view_happening(event: EventFacts, *, names: Mapping[str, str], now_ms: int, words: Wording) -> HappeningView:
    """Return `event` in `words`."""
    text = harmless(event.text or "")
    title, reason, tone = text or words.other.happening_unnamed, "", ""
    if event.kind is EventKind.FEED:
        tone = "ok" if event.feed_state is FeedState.ACTIVE else "notice"
        titles = {
            FeedState.ACTIVE: words.other.feed_active.format(serial=event.feed_serial),
            FeedState.REFUSED: words.other.feed_refused,
            FeedState.ROLLED_BACK: words.other.feed_rolled_back,
            FeedState.STALE: words.other.feed_stale,
        }
        title = titles.get(event.feed_state, words.box.feed) if event.feed_state is not None else words.box.feed
        if event.feed_state is FeedState.ACTIVE and text:  # nothing new was taken: it says that all is well again
            title = words.other.feed_fine
        reason = words.feed_problems[feed_problem(text)] if text and tone == "notice" else ""
    elif event.kind is EventKind.POWER and event.power_kind is not None:
        tone = "notice" if event.severity > 1 else ""
        title = power_name(event.power_kind, event.power_ms, words)
        reason = words.supervisor.powers[event.power_kind].meaning if tone else ""
    else:
        tone = "notice" if event.severity > 1 else ""
        for beginning, translation in words.system_events:
            if text.lower().startswith(beginning):
                title = translation
                break
    return HappeningView(
        id=event.id,
        time=view_time(event.occurred_ms, now_ms, words),
        box=harmless(names.get(event.device, event.device), limit=60),
        tone=tone,
        title=title,
        reason=reason,
        technical=text if tone == "notice" and text != title else "",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefusalView:
    """A message that was not taken in."""

    time: TimeView
    device: str
    reason: str
    detail: str


def view_refusal(refusal: RefusalFacts, *, now_ms: int, words: Wording) -> RefusalView:
    """Return `refusal` in `words`."""
    return RefusalView(
        time=view_time(refusal.received_ms, now_ms, words),
        device=harmless(refusal.device, limit=32) or words.other.no_device,
        reason=words.refusal_reasons.get(refusal.reason, harmless(refusal.reason, limit=32)),
        detail=harmless(refusal.detail, limit=200),
    )
