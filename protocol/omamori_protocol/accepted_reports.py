"""Customers' reports of false alarms that the operator has accepted, on their way from the cloud to the feed compiler.

A text file, one report a line, which a person can read and correct:

    # omamori accepted reports, format 1
    17<TAB>domain<TAB>shop.example
    18<TAB>rule<TAB>2012345

The number is that of the report; it comes back in the feed book, so that everybody sees what became of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from .errors import MalformedError
from .feed_book import Kind

HEADER = "# omamori accepted reports, format 1"
MAX_NUMBER = 2**31 - 1
MAX_INDICATOR = 1400  # a host and a path, as lists may hold


@dataclasses.dataclass(frozen=True, kw_only=True)
class AcceptedReport:
    """One report: `indicator` is canonical, as `feed_book.parse_question` gives it; of a URL host and path."""

    number: int
    kind: Kind
    indicator: str


def render_reports(reports: Iterable[AcceptedReport]) -> bytes:
    """Return the file, in the order of the numbers."""
    lines = [f"{item.number}\t{item.kind.value}\t{item.indicator}" for item in sorted(reports, key=lambda r: r.number)]
    return "".join(f"{line}\n" for line in [HEADER, *lines]).encode()


def parse_report(line: str) -> AcceptedReport:
    """Read one line that is no comment.

    Raises:
        MalformedError: It is not a report.
    """
    cells = line.split("\t")
    if len(cells) != 3:
        raise MalformedError("expected number, kind and indicator, with tabs between")
    number, kind, indicator = cells
    if not (number.isascii() and number.isdigit() and len(number) <= 10 and 1 <= int(number) <= MAX_NUMBER):
        raise MalformedError(f"{number[:20]!r} is not the number of a report")
    if kind not in {item.value for item in Kind}:
        raise MalformedError(f"{kind[:20]!r} is not a kind of indicator")
    if not 1 <= len(indicator) <= MAX_INDICATOR or not indicator.isprintable() or " " in indicator:
        raise MalformedError("not an indicator")
    return AcceptedReport(number=int(number), kind=Kind(kind), indicator=indicator)
