"""Customers' reports of false alarms: what they are, and how far one has come. Pure.

A report is open until the operator accepts or refuses it. An accepted one goes to the feed compiler, which leaves the
indicator out of the next pack; it is done when the box of the report (without one: every box) has that pack.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from enum import StrEnum

import idna

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_book import Explanation, Kind, Question, Verdict, parse_question
from omamori_protocol.vocabulary import Function, WireEnum

from .errors import QueryError
from .facts import BoxFacts, EventFacts

MAX_NOTE = 500
MAX_NAME = 60
_SPACES = re.compile(r"\s+")
# An alert of these is about a rule; of the others, about the other side.
_BY_RULE = frozenset({Function.IPS, Function.BEHAVIOUR, Function.APPLICATION})


class ReportState(WireEnum):
    """What the operator has decided; the numbers stand in the database."""

    OPEN = 1
    ACCEPTED = 2
    REFUSED = 3


class Progress(StrEnum):
    """How far a report has come."""

    OPEN = "open"
    REFUSED = "refused"
    NEXT_FEED = "next-feed"  # accepted; the newest feed known here still has it
    BOXES = "boxes"  # a feed without it is there, and not every box has it
    DONE = "done"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewReport:
    """What somebody reports; texts are as typed, but bounded. `device` is empty without an alert."""

    kind: Kind
    indicator: str
    note: str = ""
    reporter: str = ""
    device: str = ""
    alert_id: int | None = None
    terminal_ip: str | None = None
    terminal_mac: bytes | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What the operator decides; of an accepted report also what shall be left out."""

    state: ReportState
    by: str
    reason: str
    kind: Kind | None = None
    indicator: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """A report as it is kept."""

    number: int
    created_ms: int
    kind: Kind
    indicator: str
    note: str
    reporter: str
    times: int
    device: str
    alert_id: int | None
    terminal_ip: str | None
    terminal_mac: bytes | None
    state: ReportState
    decided_ms: int | None
    decided_by: str
    reason: str
    accepted_kind: Kind | None
    accepted_indicator: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a report has come, with the numbers behind it.

    Attributes:
        progress: The stage.
        serial: The first feed without the indicator; 0 if there is none yet.
        boxes: How many boxes are waited for.
        updated: How many of them have that feed.
        still: The indicator is still blocked, by something else.
    """

    progress: Progress
    serial: int = 0
    boxes: int = 0
    updated: int = 0
    still: bool = False


def ask(text: str, parameter: str = "indicator") -> Question:
    """Read what a person or a script asks about.

    Raises:
        QueryError: It is nothing that a list could hold.
    """
    try:
        return parse_question(text, _to_ascii)
    except ProtocolError as err:
        raise QueryError(parameter, str(err), hint=err.hint) from err


def _to_ascii(name: str) -> str:
    return idna.encode(name, uts46=True).decode()


def one_line(text: str, maximum: int) -> str:
    """Return what somebody typed as one line of at most `maximum` characters."""
    return _SPACES.sub(" ", text).strip()[:maximum]


def suspect(alert: EventFacts) -> str:
    """Return what a report about an alert is most likely about: the rule, or the other side."""
    if alert.function in _BY_RULE and alert.rule_id is not None:
        return str(alert.rule_id)
    return alert.destination or alert.remote_ip or ("" if alert.rule_id is None else str(alert.rule_id))


def standing(report: ReportFacts, told: Explanation | None, boxes: Sequence[BoxFacts]) -> Standing:
    """Return how far a report has come.

    Args:
        report: The report.
        told: What the feed book says to what was accepted; None without a book.
        boxes: All boxes.
    """
    if report.state is ReportState.OPEN:
        return Standing(progress=Progress.OPEN)
    if report.state is ReportState.REFUSED:
        return Standing(progress=Progress.REFUSED)
    if told is None:
        return Standing(progress=Progress.NEXT_FEED)
    serials = [item.since_serial for item in told.allowed if item.report == report.number]
    if not serials and told.verdict is Verdict.NOT_LISTED:
        serials = [told.serial]  # its source has dropped it meanwhile
    if not serials:
        return Standing(progress=Progress.NEXT_FEED)
    first = min(serials)
    waited = [box for box in boxes if not report.device or box.device == report.device]
    updated = sum((box.feed_serial or 0) >= first for box in waited)
    return Standing(
        progress=Progress.DONE if waited and updated == len(waited) else Progress.BOXES,
        serial=first,
        boxes=len(waited),
        updated=updated,
        still=told.verdict in {Verdict.BLOCKED, Verdict.LOGGED},
    )
