"""Reads one copy of a source: from bytes to checked indicators, with a tally of what was not used.

A bad line is counted and reported with its number, never fatal; whether so many bad lines are believable is the
guard's to say (`guard`). The reader holds one line at a time.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .archive import open_members
from .catalogue import MAX_SID, Format, Kind, Ports, Source
from .document_formats import DOCUMENT_READERS
from .errors import SourceError
from .indicators import BadLine, DomainRules, IndicatorError, normalise_digest, normalise_network
from .line_formats import LINE_READERS
from .rule_lines import read_rule_lines
from .tokens import Bad, Saying, Skipped, Token, TokenKind
from .urls import normalise_url

MAX_REPORTED = 20
# Beyond this a source is cut off: no list that a box can take has so many lines.
MAX_SAYINGS = 20_000_000


class Entry(NamedTuple):
    """A checked indicator.

    Attributes:
        kind: What it is. A URL is one whose path a box sees.
        value: Canonical text; of a URL the host.
        path: Of a URL what stands behind the host, else empty.
        group: The source's own category, the number of an accepted report, else empty.
    """

    kind: TokenKind
    value: str
    path: str = ""
    group: str = ""


@dataclasses.dataclass
class Tally:
    """What became of a source's lines.

    Attributes:
        used: Indicators, repetitions included; of rules, the active ones.
        bad: Lines that cannot be read.
        skipped: Lines that are right and say nothing to a box, digests other than SHA-256 among them.
        bad_lines: The first of the bad ones.
    """

    used: int = 0
    bad: int = 0
    skipped: int = 0
    bad_lines: list[BadLine] = dataclasses.field(default_factory=list)

    def add_bad(self, file: str, number: int, reason: str) -> None:
        """Count a bad line."""
        self.bad += 1
        if len(self.bad_lines) < MAX_REPORTED:
            self.bad_lines.append(BadLine(file=file, number=number, reason=reason))


def count_source(source: Source, path: Path, domains: DomainRules) -> Tally:
    """Read a copy of a source for its tally only.

    Raises:
        SourceError: It cannot be read or is not intact.
    """
    tally = Tally()
    if source.kind is Kind.RULES:
        for line in read_rule_lines(source, path, tally.add_bad):
            if line.is_active:
                tally.used += 1
            else:
                tally.skipped += 1
        return tally
    for _ in read_entries(source, path, domains, tally):
        pass
    return tally


def read_entries(source: Source, path: Path, domains: DomainRules, tally: Tally) -> Iterator[Entry]:
    """Yield the indicators of a copy of a source, in its order, repetitions included.

    Args:
        source: How to read it.
        path: File, directory or archive.
        domains: Rules for host names.
        tally: Counts are added to it.

    Raises:
        SourceError: It cannot be read, is not intact, or has no end.
    """
    reader = {**LINE_READERS, **DOCUMENT_READERS}[source.format]
    sayings = 0
    with open_members(path) as members:
        for member in members:
            if source.only_files and not any(fnmatch.fnmatchcase(member.name, form) for form in source.only_files):
                continue
            for saying in reader(member, source):
                sayings += 1
                if sayings > MAX_SAYINGS:
                    raise SourceError(f"source {source.name}: more than {MAX_SAYINGS} lines")
                entry = _judge(saying, source, member.name, domains, tally)
                if entry is not None:
                    yield entry


def _judge(saying: Saying, source: Source, file: str, domains: DomainRules, tally: Tally) -> Entry | None:
    if isinstance(saying, Bad):
        tally.add_bad(file, saying.number, saying.reason)
        return None
    if isinstance(saying, Skipped):
        tally.skipped += 1
        return None
    try:
        entry = _check(saying, source, domains)
    except IndicatorError as err:
        if source.kind is Kind.ALLOW:  # what no list may hold needs no protection either
            tally.skipped += 1
        else:
            tally.add_bad(file, saying.number, str(err))
        return None
    if entry is None or not _is_wanted(entry, source):
        tally.skipped += 1
        return None
    tally.used += 1
    return entry


def _is_wanted(entry: Entry, source: Source) -> bool:
    if source.kind is Kind.CATEGORY:
        return entry.kind is TokenKind.DOMAIN
    return source.kind is Kind.ALLOW or entry.kind in source.lists


def _check(token: Token, source: Source, domains: DomainRules) -> Entry | None:
    """Return the indicator of a token, or None if it is nothing for a box."""
    match token.kind:
        case TokenKind.DOMAIN:
            name = token.text.removeprefix("*.").removeprefix(".")
            return Entry(TokenKind.DOMAIN, domains.normalise(name), group=token.group)
        case TokenKind.IP:
            return _check_address(token, source)
        case TokenKind.SHA256:
            return Entry(TokenKind.SHA256, normalise_digest(token.text), group=token.group)
        case TokenKind.URL:
            return _check_url(token, source, domains)
        case TokenKind.RULE if source.kind is Kind.ALLOW:
            return Entry(TokenKind.RULE, str(_rule_id(token.text)), group=token.group)
        case _:
            return None


def _rule_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= MAX_SID):
        raise IndicatorError("not the id of a rule")
    return int(text)


def _check_address(token: Token, source: Source) -> Entry | None:
    text = token.text
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and ":" not in host:
        if source.ports is Ports.SKIP:
            return None
        text = host
    network = normalise_network(text, allow_documentation=_may_name_examples(source))
    return Entry(TokenKind.IP, network, group=token.group)


def _check_url(token: Token, source: Source, domains: DomainRules) -> Entry | None:
    text = token.text
    url = normalise_url(text, domains)
    if url.path and url.is_visible:
        return Entry(TokenKind.URL, url.host, url.path, token.group)
    if url.path and not (source.https_hosts and not url.is_address):
        return None
    if not url.is_address:
        return Entry(TokenKind.DOMAIN, url.host, group=token.group)
    has_port = ":" in text.rpartition("://")[2]
    return None if has_port and source.ports is Ports.SKIP else Entry(TokenKind.IP, url.host, group=token.group)


def _may_name_examples(source: Source) -> bool:
    # An operator's own list may hold addresses of documentation: that is how a box is tried out.
    return bool(source.file) and source.format in {Format.PLAIN, Format.REPORTS}
