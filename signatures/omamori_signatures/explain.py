"""Answers an operator: why is this blocked, since when, from which source; and what changed between two serials.

It reads the history that `assemble` leaves beside the packs, and decides nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import idna

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_book import (
    BookSource,
    Explanation,
    Kind,
    LeftOut,
    Match,
    Question,
    RuleFacts,
    Verdict,
    entry_of,
    parse_question,
    verdict_of,
)

from .errors import SourceError
from .history import RULES_NAME, AllowedRow, History, Record, RuleRow
from .indicators import DomainRules

MAX_SAMPLES = 20


class Explainer:
    """Looks indicators up in one serial.

    Args:
        history: Of the packs.
        serial: To look into.

    Raises:
        SourceError: There is no such serial.
    """

    def __init__(self, history: History, serial: int) -> None:
        self._history, self._serial = history, serial
        self._domains = DomainRules()
        self._report = history.report(serial)
        self._sources = {item["source"]: item for item in self._report["sources"]}

    def explain(self, text: str) -> Explanation:
        """Look up a domain, address, network, URL, SHA-256, or id of a rule.

        Raises:
            SourceError: It is none of these.
        """
        question = ask(text, self._domains)
        allowed = tuple(
            _left_out(row)
            for candidate in self._candidates(question)
            if (row := self._history.find_allowed(self._serial, candidate)) is not None
        )
        if question.kind is Kind.RULE:
            return self._explain_rule(question, allowed)
        matches = tuple(
            self._match(name, record)
            for name in self._history.list_names(self._serial)
            for candidate in self._candidates(question)
            if (record := self._history.find(self._serial, name, candidate)) is not None
        )
        return Explanation(
            indicator=question.indicator,
            kind=question.kind,
            serial=self._serial,
            verdict=verdict_of(matches, allowed),
            matches=matches,
            allowed=allowed,
        )

    def _candidates(self, question: Question) -> list[str]:
        """Return the entries that would reach the indicator."""
        found = [entry_of(key) for key in question.keys]
        return [*found, *(name for name in question.parents if self._domains.registrable(name) == name)]

    def _match(self, name: str, record: Record) -> Match:
        facts = self._report["lists"][name]
        return Match(
            list=name,
            entry=record.entry.replace(" ", ""),
            function=facts["function"],
            severity=facts["severity"],
            action=facts["action"],
            since_serial=record.serial,
            since=record.time,
            sources=tuple(book_source(source, self._sources.get(source, {})) for source in record.sources),
        )

    def _explain_rule(self, question: Question, allowed: tuple[LeftOut, ...]) -> Explanation:
        row = self._history.find_rule(self._serial, int(question.indicator))
        verdict = Verdict.ALLOWED if allowed else Verdict.NOT_LISTED
        if row is not None:
            verdict = Verdict.LOGGED if row.action == "alert" else Verdict.BLOCKED
        return Explanation(
            indicator=question.indicator,
            kind=question.kind,
            serial=self._serial,
            verdict=verdict,
            allowed=allowed,
            rule=rule_facts(row) if row is not None else None,
        )


def ask(text: str, domains: DomainRules) -> Question:
    """Read what a person asks about.

    Raises:
        SourceError: It is nothing that a list could hold, or would cover everybody below a public suffix.
    """
    try:
        question = parse_question(text, _to_ascii)
    except ProtocolError as err:
        raise SourceError(str(err), hint=err.hint) from err
    if question.kind is Kind.DOMAIN and domains.is_suffix(question.indicator):
        raise SourceError(f"{question.indicator!r} is a top-level domain or public suffix, which no list may hold")
    return question


def _to_ascii(name: str) -> str:
    return idna.encode(name, uts46=True).decode()


def book_source(name: str, report: Mapping[str, Any]) -> BookSource:
    """Return a source as a person is told about it, from its part of a serial's report."""
    facts = {key: str(report.get(key, "")) for key in ("licence", "attribution", "origin", "fetched", "sha256")}
    return BookSource(source=name, **facts)


def rule_facts(row: RuleRow) -> RuleFacts:
    """Return a rule as a person is told about it."""
    return RuleFacts(
        sid=int(row.sid),
        source=row.source,
        action=row.action,
        message=row.message,
        function=row.function,
        severity=int(row.severity),
        since_serial=int(row.since_serial),
        since=row.since,
    )


def _left_out(row: AllowedRow) -> LeftOut:
    return LeftOut(
        entry=row.entry.replace(" ", ""),
        list=row.list,
        sources=row.sources,
        allowed=row.allowed,
        allow_list=row.allow_list,
        report=int(row.report),
        since_serial=int(row.since_serial),
        since=row.since,
    )


@dataclasses.dataclass
class ListChange:
    """What differs in one list: numbers, and the first of each."""

    added: int = 0
    removed: int = 0
    added_first: list[str] = dataclasses.field(default_factory=list)
    removed_first: list[str] = dataclasses.field(default_factory=list)

    def note(self, entry: str, *, is_added: bool) -> None:
        """Count an entry."""
        if is_added:
            self.added += 1
        else:
            self.removed += 1
        first = self.added_first if is_added else self.removed_first
        if len(first) < MAX_SAMPLES:
            first.append(entry)


def compare_serials(history: History, old: int, new: int) -> dict[str, Any]:
    """Return what changed between two serials: lists, rules, and copies of sources.

    Raises:
        SourceError: One of them is not there.
    """
    reports = [history.report(serial) for serial in (old, new)]
    names = sorted({*history.list_names(old), *history.list_names(new)})
    lists = {name: _compare(_keys(history, old, name), _keys(history, new, name)) for name in names}
    rules = _compare(_rules(history, old), _rules(history, new))
    copies = [{item["source"]: item["sha256"] for item in report["sources"]} for report in reports]
    return {
        "from": old,
        "to": new,
        "lists": {name: dataclasses.asdict(change) for name, change in lists.items() if change.added or change.removed},
        "rules": dataclasses.asdict(rules),
        "sources": {
            name: "added" if name not in copies[0] else "removed" if name not in copies[1] else "changed"
            for name in sorted({*copies[0], *copies[1]})
            if copies[0].get(name) != copies[1].get(name)
        },
    }


def _keys(history: History, serial: int, name: str) -> Iterator[str]:
    return (record.entry for record in history.records(serial, name))


def _rules(history: History, serial: int) -> Iterator[str]:
    return (" ".join(row[:4]) for row in history.rows(serial, RULES_NAME, RuleRow))


def _compare(old: Iterator[str], new: Iterator[str]) -> ListChange:
    change = ListChange()
    left, right = next(old, None), next(new, None)
    while left is not None or right is not None:
        if left == right:
            left, right = next(old, None), next(new, None)
        elif right is None or (left is not None and left < right):
            change.note(left or "", is_added=False)
            left = next(old, None)
        else:
            change.note(right, is_added=True)
            right = next(new, None)
    return change
