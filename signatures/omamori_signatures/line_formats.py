"""Readers of the line formats in which lists are published.

* plain: one indicator a line, `#` and `;` begin a comment; also netset and CIDR lists, and mixed ones (`kind_of`);
* hosts: ``0.0.0.0 name …``, as in a hosts file;
* adblock: ``||name^``, the filter language of advertisement blockers, of which a box understands the host rules;
* csv: one column of a table, among rows that a second column may select;
* ut1: a directory of categories with a file `domains` each;
* reports: false alarms that the operator has accepted (`omamori_protocol.accepted_reports`).

A reader takes one member of a source and yields what it says (`tokens`). It never raises for a line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator

from omamori_protocol.accepted_reports import parse_report
from omamori_protocol.errors import ProtocolError

from .archive import Member
from .catalogue import Format, Kind, Source
from .tokens import Bad, Saying, Skipped, Token, TokenKind, kind_of, read_lines

_UNREADABLE = "too long or not UTF-8"
_SINKS = {"0.0.0.0", "127.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%lo0", "ff00::0", "ff02::1", "ff02::2"}  # noqa: S104 - text
_LOCAL_NAMES = {
    "localhost", "localhost.localdomain", "local", "broadcasthost", "ip6-localhost", "ip6-loopback",
    "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts",
}  # fmt: skip
_ADBLOCK_HOST = re.compile(r"\|\|([^\s/^$*|]+)\^?\|?")
_ADBLOCK_PATH = re.compile(r"\|\|([^\s^$*|]+/[^\s^$*|]*)\^?\|?")
_PLAIN_NAME = re.compile(r"[^\s/$*|#@!\[\]^]+")
# Options that leave the rule a rule about the whole host.
_ADBLOCK_OPTIONS = {"all", "document", "doc", "important", "third-party", "3p", "popup"}
_UT1_DOMAINS = "domains"

Reader = Callable[[Member, Source], Iterator[Saying]]


def _kind_by(source: Source, text: str) -> TokenKind:
    match source.kind:
        case Kind.DOMAIN | Kind.CATEGORY:
            return TokenKind.IP if kind_of(text) is TokenKind.IP else TokenKind.DOMAIN
        case Kind.IP:
            return TokenKind.IP
        case Kind.URL:
            return TokenKind.URL
        case _:
            return kind_of(text)


def read_plain(member: Member, source: Source) -> Iterator[Saying]:
    """Read one indicator a line; of what follows it, nothing is looked at but a score.

    A path without a host, as some mixed lists have them, says nothing to a box.
    """
    for number, line in read_lines(member.stream):
        if line is None:
            yield Bad(number, _UNREADABLE)
            continue
        if not line or line[0] in "#;!":
            continue
        fields = line.split()
        # A URL may hold `#` and `;`; elsewhere they end the indicator.
        text = fields[0] if "://" in fields[0] else re.split("[#;,]", fields[0], maxsplit=1)[0]
        if not text:
            yield Bad(number, "nothing before the comment")
        elif text.startswith("/") or (source.minimum_score and not _scores(fields, source.minimum_score)):
            yield Skipped(number)
        else:
            yield Token(number, _kind_by(source, text), text)


def _scores(fields: list[str], minimum: int) -> bool:
    return len(fields) > 1 and fields[1].isdecimal() and int(fields[1][:9]) >= minimum


def read_hosts(member: Member, _source: Source) -> Iterator[Saying]:
    """Read a hosts file: an address that leads nowhere, then names."""
    for number, line in read_lines(member.stream):
        if line is None:
            yield Bad(number, _UNREADABLE)
            continue
        names = line.partition("#")[0].split()
        if not names or names[0].startswith("!"):
            continue
        if len(names) > 1 and names[0] not in _SINKS:
            yield Bad(number, f"{names[0][:40]!r} leads somewhere")
            continue
        names = names[1:] or names
        for name in names:
            yield (
                Skipped(number)
                if name.lower() in _LOCAL_NAMES or name in _SINKS
                else Token(number, TokenKind.DOMAIN, name)
            )


def read_adblock(member: Member, _source: Source) -> Iterator[Saying]:
    """Read the filter language of advertisement blockers: rules about whole hosts and about plain URLs."""
    for number, line in read_lines(member.stream):
        if line is None:
            yield Bad(number, _UNREADABLE)
        elif line and line[0] not in "![#":
            yield _adblock_line(number, line)


def _adblock_line(number: int, line: str) -> Saying:
    rule, _, options = line.partition("$")
    if "##" in line or "#@#" in line or "#?#" in line or line.startswith(("@@", "/")):
        return Skipped(number)
    if options and not set(options.split(",")) <= _ADBLOCK_OPTIONS:
        return Skipped(number)
    if match := _ADBLOCK_HOST.fullmatch(rule):
        return Token(number, kind_of(match[1]), match[1])
    if match := _ADBLOCK_PATH.fullmatch(rule):
        return Token(number, TokenKind.URL, match[1])
    if _PLAIN_NAME.fullmatch(rule):
        return Token(number, kind_of(rule), rule)
    return Skipped(number) if "*" in rule or "/" in rule or "^" in rule or "|" in rule else Bad(number, "not a rule")


def read_csv(member: Member, source: Source) -> Iterator[Saying]:
    """Read one column of a table."""
    assert source.column is not None
    skip_first = source.has_header
    for number, line in read_lines(member.stream):
        if line is None:
            yield Bad(number, _UNREADABLE)
            continue
        if not line or line.startswith("#"):
            continue
        if skip_first:
            skip_first = False
            continue
        try:
            (row,) = csv.reader([line], skipinitialspace=True, strict=True)
            text = row[source.column].strip()
            chosen = source.where is None or row[source.where[0]].strip() in source.where[1]
        except (csv.Error, ValueError, IndexError):
            yield Bad(number, "not a row of this table")
            continue
        yield Token(number, _kind_by(source, text), text) if chosen and text else Skipped(number)


def read_ut1(member: Member, source: Source) -> Iterator[Saying]:
    """Read one file of a directory of categories; files of categories that nobody asked for say nothing."""
    category, _, name = member.name.rpartition("/")
    category = category.rpartition("/")[2]
    if name != _UT1_DOMAINS or category not in source.categories:
        return
    for number, line in read_lines(member.stream):
        if line is None:
            yield Bad(number, _UNREADABLE)
        elif line and not line.startswith("#"):
            yield Token(number, kind_of(line), line, category)


def read_reports(member: Member, _source: Source) -> Iterator[Saying]:
    """Read accepted reports; the group of an indicator is the number of its report."""
    for number, line in read_lines(member.stream):
        if line is None:
            yield Bad(number, _UNREADABLE)
        elif line and not line.startswith("#"):
            try:
                report = parse_report(line)
            except ProtocolError as err:
                yield Bad(number, str(err))
            else:
                yield Token(number, TokenKind(report.kind.value), report.indicator, str(report.number))


LINE_READERS: dict[Format, Reader] = {
    Format.PLAIN: read_plain,
    Format.HOSTS: read_hosts,
    Format.ADBLOCK: read_adblock,
    Format.CSV: read_csv,
    Format.UT1: read_ut1,
    Format.REPORTS: read_reports,
}
