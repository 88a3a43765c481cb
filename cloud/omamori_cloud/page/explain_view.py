"""Makes what a feed book says ready to be read: every value in words, every text from outside harmless."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from omamori_cloud.facts import BoxFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.wording import Wording
from omamori_protocol.feed_book import BookFacts, BookSource, Explanation, LeftOut, Match, RuleFacts
from omamori_protocol.vocabulary import Action, Function

from .alert_view import TimeView, view_time

_TONES = {"blocked": "danger", "logged": "notice", "allowed": "ok", "not listed": "plain"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceView:
    """A source of indicators."""

    name: str
    attribution: str
    licence: str
    origin: str
    copy: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchView:
    """An entry that reaches the indicator, or a rule."""

    list: str
    entry: str
    stars: str
    severity: int
    function: str
    function_name: str
    action: str
    action_label: str
    since: str
    sources: tuple[SourceView, ...] = ()
    message: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOutView:
    """What is listed and not in the feed; `report` is the number of a report, or 0."""

    entry: str
    title: str
    because: str
    keeps: str
    listed_by: str
    since: str
    report: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplanationView:
    """The answer to one question."""

    indicator: str
    kind: str
    tone: str
    title: str
    text: str
    boxes: str
    matches: tuple[MatchView, ...]
    rule: MatchView | None
    left_out: tuple[LeftOutView, ...]


def explain_url(text: str, alert: int | None = None) -> str:
    """Return the address of the page that explains `text`, for an alert if it is about one."""
    return f"/explain?{urlencode({'q': text} | ({} if alert is None else {'alert': str(alert)}))}"


def view_moment(text: str, now_ms: int, words: Wording) -> TimeView | None:
    """Return a time of a feed book (RFC 3339), or None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return view_time(int(moment.timestamp() * 1000), now_ms, words)
    except (ValueError, OverflowError):
        return None


def _moment(text: str, now_ms: int, words: Wording) -> str:
    found = view_moment(text, now_ms, words)
    return harmless(text, limit=40) if found is None else found.words


def view_about(book: BookFacts, now_ms: int, words: Wording) -> str:
    """Return which feed is asked."""
    about = words.explain.about.format(serial=book.serial, created=_moment(book.created, now_ms, words))
    return f"{about} {words.explain.holds.format(entries=f'{book.entries:,}', rules=f'{book.rules:,}')}"


def view_explanation(found: Explanation, boxes: Sequence[BoxFacts], *, now_ms: int, words: Wording) -> ExplanationView:
    """Return an answer in `words`; `boxes` are all that there are."""
    said = words.explain.verdicts[found.verdict]
    updated = sum((box.feed_serial or 0) >= found.serial for box in boxes)
    return ExplanationView(
        indicator=harmless(found.indicator, limit=400),
        kind=words.explain.kinds[found.kind],
        tone=_TONES[found.verdict.value],
        title=said.title,
        text=said.text,
        boxes=words.explain.boxes.format(boxes=len(boxes), updated=updated) if boxes else "",
        matches=tuple(_match(match, now_ms, words) for match in found.matches),
        rule=None if found.rule is None else _rule(found.rule, now_ms, words),
        left_out=tuple(_left_out(item, now_ms, words) for item in found.allowed),
    )


def _since(serial: int, time: str, now_ms: int, words: Wording) -> str:
    return words.explain.since_serial.format(time=_moment(time, now_ms, words), serial=serial) if time else ""


def _function(word: str, words: Wording) -> tuple[str, str]:
    known = {function.word: function for function in Function}
    return (word, words.functions[known[word]].name) if word in known else ("other", words.unknown_function.name)


def _action(word: str, words: Wording) -> str:
    return {action.word: words.actions[action] for action in Action}.get(word, harmless(word, limit=20))


def _match(match: Match, now_ms: int, words: Wording) -> MatchView:
    function, function_name = _function(match.function, words)
    return MatchView(
        list=harmless(match.list, limit=40),
        entry=harmless(match.entry, limit=400),
        stars="★" * max(0, min(match.severity, 3)),
        severity=max(1, min(match.severity, 3)),
        function=function,
        function_name=function_name,
        action=match.action if match.action in {"blocked", "logged"} else "",
        action_label=_action(match.action, words),
        since=_since(match.since_serial, match.since, now_ms, words),
        sources=tuple(_source(source, now_ms, words) for source in match.sources),
    )


def _source(source: BookSource, now_ms: int, words: Wording) -> SourceView:
    fetched = words.explain.copy.format(time=_moment(source.fetched, now_ms, words)) if source.fetched else ""
    return SourceView(
        name=harmless(source.source, limit=60),
        attribution=harmless(source.attribution),
        licence=harmless(source.licence),
        origin=harmless(source.origin),
        copy=fetched,
    )


def _rule(rule: RuleFacts, now_ms: int, words: Wording) -> MatchView:
    function, function_name = _function(rule.function, words)
    action = "logged" if rule.action == "alert" else "blocked"
    return MatchView(
        list=harmless(rule.source, limit=60),
        entry=str(rule.sid),
        stars="★" * max(0, min(rule.severity, 3)),
        severity=max(1, min(rule.severity, 3)),
        function=function,
        function_name=function_name,
        action=action,
        action_label=_action(action, words),
        since=_since(rule.since_serial, rule.since, now_ms, words),
        message=harmless(rule.message),
    )


def _left_out(item: LeftOut, now_ms: int, words: Wording) -> LeftOutView:
    text = words.explain
    because = text.because_report.format(number=item.report)
    if not item.report:
        because = text.because_list.format(name=harmless(item.allow_list, limit=60))
    return LeftOutView(
        entry=harmless(item.entry, limit=400),
        title=text.left_out_of.format(list=harmless(item.list, limit=40)),
        because=because,
        keeps=text.keeps.format(allowed=harmless(item.allowed, limit=400)),
        listed_by=text.listed_by.format(sources=harmless(item.sources.replace(",", ", "))),
        since=_since(item.since_serial, item.since, now_ms, words),
        report=item.report,
    )
