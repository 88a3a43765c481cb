"""Answers an operator: why is this blocked, since when, from which source; and what changed between two serials.

It reads the history that `assemble` leaves beside the packs, and decides nothing.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from .errors import SourceError
from .history import RULES_NAME, History, Record
from .indicators import DomainRules, IndicatorError, Network
from .tokens import TokenKind, kind_of
from .urls import normalise_url

MAX_SAMPLES = 20
_SID = re.compile(r"[1-9][0-9]{3,9}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """An entry that reaches the indicator.

    Attributes:
        list: List that it is in.
        entry: As it stands there; not necessarily the indicator itself.
        function: Word of the function, as customers' reports have it.
        severity: 1 to 3.
        action: ``blocked`` or ``logged``.
        since_serial: Since which serial it is in without a break.
        since: The time of that serial.
        sources: Name, attribution, origin and time of the copy of each source that lists it.
    """

    list: str
    entry: str
    function: str
    severity: int
    action: str
    since_serial: int
    since: str
    sources: tuple[dict[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a serial says to an indicator.

    Attributes:
        indicator: In its canonical form.
        serial: That was asked.
        verdict: ``blocked``, ``logged``, ``allowed`` (listed, and taken out by an allow-list) or ``not listed``.
        matches: Entries that reach it.
        allowed: What an allow-list took out, and why.
        rule: Of a rule's id: source, action and message.
    """

    indicator: str
    serial: int
    verdict: str
    matches: tuple[Match, ...]
    allowed: tuple[dict[str, str], ...]
    rule: dict[str, str] | None = None


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
        text = text.strip()
        if _SID.fullmatch(text):
            return self._explain_rule(int(text))
        try:
            indicator, candidates = self._candidates(text)
        except IndicatorError as err:
            raise SourceError(f"{text[:80]!r}: {err}", hint="a domain, address, URL, SHA-256, or id of a rule") from err
        matches = tuple(
            self._match(name, record)
            for name in self._history.list_names(self._serial)
            for candidate in candidates
            if (record := self._history.find(self._serial, name, candidate)) is not None
        )
        allowed = tuple(
            {"entry": row[0], "list": row[1], "sources": row[2], "allowed": row[3], "allow_list": row[4]}
            for candidate in candidates
            if (row := self._history.find_allowed(self._serial, candidate)) is not None
        )
        actions = {match.action for match in matches}
        verdict = next(
            (word for word in ("blocked", "logged") if word in actions), "allowed" if allowed else "not listed"
        )
        return Explanation(indicator=indicator, serial=self._serial, verdict=verdict, matches=matches, allowed=allowed)

    def _candidates(self, text: str) -> tuple[str, list[str]]:
        """Return the canonical form, and the entries that would reach it."""
        match kind_of(text):
            case TokenKind.SHA256:
                return text.lower(), [text.lower()]
            case TokenKind.IP:
                network = ipaddress.ip_network(text, strict=False)
                covering = list(_covering(network))
                return covering[0], covering
            case TokenKind.URL:
                url = normalise_url(text, self._domains)
                hosts = [url.host] if url.is_address else self._names(url.host)
                return f"{url.host}{url.path or '/'}", [*([f"{url.host} {url.path}"] if url.path else []), *hosts]
            case TokenKind.DOMAIN:
                name = self._domains.normalise(text.removeprefix("*."))
                return name, self._names(name)
            case other:
                raise IndicatorError(f"{other} says nothing to a box")

    def _names(self, name: str) -> list[str]:
        return list(dict.fromkeys([name, self._domains.registrable(name)]))

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
            sources=tuple(self._source(source) for source in record.sources),
        )

    def _source(self, name: str) -> dict[str, str]:
        item = self._sources.get(name, {})
        return {
            "source": name,
            **{key: str(item.get(key, "")) for key in ("attribution", "origin", "fetched", "sha256")},
        }

    def _explain_rule(self, sid: int) -> Explanation:
        row = self._history.find_rule(self._serial, sid)
        rule = None
        if row is not None:
            rule = {"sid": str(sid), "source": row[1], "action": row[2], "message": row[3]}
        verdict = "not listed" if row is None else "logged" if row[2] == "alert" else "blocked"
        return Explanation(indicator=str(sid), serial=self._serial, verdict=verdict, matches=(), allowed=(), rule=rule)


def _covering(network: Network) -> Iterator[str]:
    for length in range(network.prefixlen, 7, -1):
        cover = network.supernet(new_prefix=length)
        yield str(cover.network_address) if cover.num_addresses == 1 else str(cover)


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
    path = history.directory / str(serial) / RULES_NAME
    if path.is_file():
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\n").replace("\t", " ")


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
