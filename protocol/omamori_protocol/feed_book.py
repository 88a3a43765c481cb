"""The feed book: one file that says of one serial why it blocks what it blocks. Read here, written by the compiler.

Publisher and cloud meet through it: `omamori-feed` writes it beside the pack, the cloud's page opens it read-only. A
book is an SQLite file that never changes: a new serial is a new file in its place, so it is opened anew for every
question and never locked. Boxes see nothing of it.

    book         name → value: format, serial, created, channel, entries, rules
    moments      serial → its time
    sources      name, licence, attribution, origin, time and digest of the copy
    source_sets  which sources name an entry, as numbers with commas between
    lists        name, function, severity, action
    facts        what many entries share: list, whether names below are meant, since which serial, source set
    entries      key → fact; a key is a name, a network, ``host path`` of a URL, or the 32 bytes of a digest
    left_out     what an allow-list took out: key, list, source set, what it would reach, whose list, report, since
    rules        id → source, action, message, function, severity, since

What a name is compared with is what the engine compares: the name itself, and the registrable domain that it is below.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import re
import sqlite3
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .errors import MalformedError, OversizeError, UnknownVersionError

FORMAT = 1
APPLICATION_ID = 0x4F4D4642  # "OMFB"
MAX_QUESTION = 2048
MAX_ANSWERS = 100
_MAX_VALUE_BYTES = 64 * 1024
_WIDEST = 8  # no list holds a wider network
_MAX_PATH = 1024

_RULE_ID = re.compile(r"[1-9][0-9]{3,9}")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NETWORK = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?")
_WITH_PORT = re.compile(r"[^:/\[\]]+:[0-9]{1,5}")
_IN_PATH = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

Key = str | bytes
ToASCII = Callable[[str], str]


class Kind(StrEnum):
    """What can be asked about."""

    DOMAIN = "domain"
    IP = "ip"
    URL = "url"
    SHA256 = "sha256"
    RULE = "rule"


class Verdict(StrEnum):
    """What a serial does with an indicator; `ALLOWED` is listed, and taken out by an allow-list."""

    BLOCKED = "blocked"
    LOGGED = "logged"
    ALLOWED = "allowed"
    NOT_LISTED = "not listed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """An indicator in its canonical form.

    Attributes:
        kind: What it is.
        indicator: Its text.
        keys: Entries that are, or hold, the indicator.
        parents: Names that it is below; they count where names below are meant.
    """

    kind: Kind
    indicator: str
    keys: tuple[Key, ...]
    parents: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BookSource:
    """A source, and the copy of it that the serial was made from; times are RFC 3339."""

    source: str
    licence: str
    attribution: str
    origin: str
    fetched: str
    sha256: str


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
        sources: Who lists it.
    """

    list: str
    entry: str
    function: str
    severity: int
    action: str
    since_serial: int
    since: str
    sources: tuple[BookSource, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A listed indicator that is not in the pack.

    Attributes:
        entry: What was listed; of a rule its id.
        list: List that it would be in; of a rule ``rules``.
        sources: Who lists it, by name.
        allowed: What it would reach.
        allow_list: Whose list says so, by name.
        report: Number of the customer's report that it goes back to, or 0.
        since_serial: Since which serial it is left out without a break.
        since: The time of that serial.
    """

    entry: str
    list: str
    sources: str
    allowed: str
    allow_list: str
    report: int
    since_serial: int
    since: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleFacts:
    """A rule of the pack; function, severity and since are empty or 0 where they were not written down."""

    sid: int
    source: str
    action: str
    message: str
    function: str = ""
    severity: int = 0
    since_serial: int = 0
    since: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a serial says to an indicator."""

    indicator: str
    kind: Kind
    serial: int
    verdict: Verdict
    matches: tuple[Match, ...] = ()
    allowed: tuple[LeftOut, ...] = ()
    rule: RuleFacts | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BookFacts:
    """Which serial a book is about, and how much it holds."""

    serial: int
    created: str
    channel: str
    entries: int
    rules: int


def verdict_of(matches: tuple[Match, ...], allowed: tuple[LeftOut, ...]) -> Verdict:
    """Return what comes of entries that reach an indicator and of those that were left out."""
    actions = {match.action for match in matches}
    for verdict in (Verdict.BLOCKED, Verdict.LOGGED):
        if verdict.value in actions:
            return verdict
    return Verdict.ALLOWED if allowed else Verdict.NOT_LISTED


def key_of(entry: str) -> Key:
    """Return the key of an entry as lists have it: digests take half the room as bytes."""
    return bytes.fromhex(entry) if len(entry) == 64 and _HEX.fullmatch(entry) else entry


def entry_of(key: Key) -> str:
    """Return the entry of a key."""
    return key.hex() if isinstance(key, bytes) else key


def parse_question(text: str, to_ascii: ToASCII) -> Question:
    """Read what a person asks about: a domain, address, network, URL, SHA-256, or id of a rule.

    Args:
        text: As typed.
        to_ascii: Turns an international name into its A-labels; raises ValueError for what is none.

    Raises:
        OversizeError: Longer than `MAX_QUESTION` characters.
        MalformedError: It is none of these.
    """
    if len(text) > MAX_QUESTION:
        raise OversizeError(f"a question of {len(text)} characters", limit=MAX_QUESTION)
    text = text.strip()
    if not text or not text.isprintable() or " " in text:
        raise _unknown(text, "nothing that a list could hold")
    if _RULE_ID.fullmatch(text):
        return Question(kind=Kind.RULE, indicator=text, keys=(text,))
    if _HEX.fullmatch(text) and len(text) in (32, 40, 64):
        if len(text) != 64:
            raise _unknown(text, "a box compares SHA-256 only")
        return Question(kind=Kind.SHA256, indicator=text.lower(), keys=(bytes.fromhex(text),))
    if "://" not in text and _NETWORK.fullmatch(text):
        with contextlib.suppress(ValueError):
            keys = _covering(text)
            return Question(kind=Kind.IP, indicator=keys[0], keys=keys)
    if "/" in text or _WITH_PORT.fullmatch(text):
        return _url(text, to_ascii)
    name = _name(text.removeprefix("*."), to_ascii)
    return Question(kind=Kind.DOMAIN, indicator=name, keys=(name,), parents=_parents(name))


def _unknown(text: str, why: str) -> MalformedError:
    return MalformedError(f"{text[:80]!r}: {why}", hint="a domain, address, URL, SHA-256, or id of a rule")


def _covering(text: str) -> tuple[str, ...]:
    network = ipaddress.ip_network(text, strict=False)
    found = []
    for length in range(network.prefixlen, _WIDEST - 1, -1):
        cover = network.supernet(new_prefix=length)
        found.append(str(cover.network_address) if cover.num_addresses == 1 else str(cover))
    if not found:
        raise _unknown(text, f"wider than /{_WIDEST}")
    return tuple(found)


def _name(text: str, to_ascii: ToASCII) -> str:
    name = text.removesuffix(".")
    if not name.isascii():
        try:
            name = to_ascii(name)
        except ValueError as err:  # UnicodeError and the errors of `idna` are such
            raise _unknown(text, "not an international domain name") from err
    name = name.lower()
    labels = name.split(".")
    if len(name) > 253 or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _unknown(text, "not a domain name")
    if labels[-1].isdigit():
        raise _unknown(text, "not an address")
    return name


def _parents(name: str) -> tuple[str, ...]:
    labels = name.split(".")
    return tuple(".".join(labels[start:]) for start in range(1, len(labels) - 1))


def _url(text: str, to_ascii: ToASCII) -> Question:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError as err:
        raise _unknown(text, "not a URL") from err
    if parts.scheme not in {"http", "https"} or not host or ":" in host:
        raise _unknown(text, "not a URL of HTTP or HTTPS with a name or an IPv4 address")
    path = quote(parts.path + (f"?{parts.query}" if parts.query else ""), safe=_IN_PATH)
    path = "" if path == "/" else path
    if len(path) > _MAX_PATH:
        raise _unknown(text, f"a path of more than {_MAX_PATH} characters")
    is_address = re.fullmatch(r"[0-9.]+", host) is not None
    try:
        hosts = _covering(host) if is_address else (_name(host, to_ascii),)
    except ValueError as err:
        raise _unknown(text, "not an address") from err
    if not path:  # a URL that names nothing but a host is about the host
        kind = Kind.IP if is_address else Kind.DOMAIN
        return Question(kind=kind, indicator=hosts[0], keys=hosts, parents=() if is_address else _parents(hosts[0]))
    return Question(
        kind=Kind.URL,
        indicator=f"{hosts[0]}{path}",
        keys=(f"{hosts[0]} {path}", *hosts),
        parents=() if is_address else _parents(hosts[0]),
    )


class FeedBook:
    """A book in a file, which is opened for each question; safe to use from several threads.

    Args:
        path: The file. It need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def facts(self) -> BookFacts:
        """Return what the book is about.

        Raises:
            OSError: There is no such file, or it cannot be read.
            MalformedError: It is not a book.
            UnknownVersionError: It was written by a newer program.
        """
        with self._open() as connection:
            return _facts(connection)

    def explain(self, question: Question) -> Explanation:
        """Look an indicator up.

        Raises:
            OSError: There is no such file, or it cannot be read.
            MalformedError: It is not a book.
            UnknownVersionError: It was written by a newer program.
        """
        with self._open() as connection:
            serial = _facts(connection).serial
            allowed = _left_out(connection, question)
            if question.kind is Kind.RULE:
                rule = _rule(connection, int(question.indicator))
                found = Verdict.ALLOWED if allowed else Verdict.NOT_LISTED
                if rule is not None:
                    found = Verdict.LOGGED if rule.action == "alert" else Verdict.BLOCKED
                return Explanation(
                    indicator=question.indicator,
                    kind=question.kind,
                    serial=serial,
                    verdict=found,
                    rule=rule,
                    allowed=allowed,
                )
            matches = _matches(connection, question)
            return Explanation(
                indicator=question.indicator,
                kind=question.kind,
                serial=serial,
                verdict=verdict_of(matches, allowed),
                matches=matches,
                allowed=allowed,
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.stat()  # SQLite's own message for a file that is not there says nothing
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
            connection.row_factory = sqlite3.Row
            yield connection
        except (sqlite3.Error, ValueError, TypeError, KeyError, IndexError) as err:
            raise MalformedError(f"{self.path.name} is not an intact feed book: {str(err)[:120]}") from err
        finally:
            connection.close()


def _facts(connection: sqlite3.Connection) -> BookFacts:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise MalformedError("the file is not a feed book")
    values: dict[str, Any] = dict(connection.execute("SELECT name, value FROM book LIMIT 20").fetchall())
    if values.get("format") != FORMAT:
        raise UnknownVersionError("feed book", values.get("format"))
    return BookFacts(
        serial=int(values["serial"]),
        created=str(values["created"]),
        channel=str(values["channel"]),
        entries=int(values["entries"]),
        rules=int(values["rules"]),
    )


def _asked(question: Question) -> tuple[str, list[Any]]:
    """Return the beginning of a query that knows the keys asked for (question marks only), and its values."""
    wanted = [*((key, 1) for key in question.keys), *((name, 0) for name in question.parents)]
    places = ", ".join("(?, ?)" for _ in wanted)
    return f"WITH asked (key, is_itself) AS (VALUES {places}) ", [value for pair in wanted for value in pair]


def _matches(connection: sqlite3.Connection, question: Question) -> tuple[Match, ...]:
    asked, values = _asked(question)
    rows = connection.execute(
        asked + "SELECT entries.key, lists.name, function, severity, action, since, time, members FROM asked "  # noqa: S608
        "JOIN entries ON entries.key = asked.key JOIN facts ON facts.id = entries.fact "
        "JOIN lists ON lists.id = facts.list JOIN moments ON moments.serial = facts.since "
        "JOIN source_sets ON source_sets.id = facts.sources "
        "WHERE asked.is_itself OR facts.covers ORDER BY lists.id, entries.key LIMIT ?",
        [*values, MAX_ANSWERS],
    ).fetchall()
    return tuple(
        Match(
            list=row["name"],
            entry=entry_of(row["key"]).replace(" ", ""),
            function=row["function"],
            severity=int(row["severity"]),
            action=row["action"],
            since_serial=int(row["since"]),
            since=row["time"],
            sources=_sources(connection, row["members"]),
        )
        for row in rows
    )


def _sources(connection: sqlite3.Connection, members: str) -> tuple[BookSource, ...]:
    numbers = [int(number) for number in members.split(",")[:MAX_ANSWERS] if number]
    found = []
    for number in numbers:
        row = connection.execute("SELECT * FROM sources WHERE id = ?", (number,)).fetchone()
        if row is not None:
            found.append(
                BookSource(
                    source=row["name"],
                    licence=row["licence"],
                    attribution=row["attribution"],
                    origin=row["origin"],
                    fetched=row["fetched"],
                    sha256=row["sha256"],
                )
            )
    return tuple(found)


def _left_out(connection: sqlite3.Connection, question: Question) -> tuple[LeftOut, ...]:
    asked, values = _asked(question)
    rows = connection.execute(
        asked + "SELECT left_out.*, time FROM asked JOIN left_out ON left_out.key = asked.key "  # noqa: S608
        "JOIN moments ON moments.serial = left_out.since WHERE asked.is_itself OR left_out.covers "
        "ORDER BY left_out.key, list LIMIT ?",
        [*values, MAX_ANSWERS],
    ).fetchall()
    return tuple(
        LeftOut(
            entry=entry_of(row["key"]).replace(" ", ""),
            list=row["list"],
            sources=row["sources"],
            allowed=row["allowed"],
            allow_list=row["allow_list"],
            report=int(row["report"]),
            since_serial=int(row["since"]),
            since=row["time"],
        )
        for row in rows
    )


def _rule(connection: sqlite3.Connection, sid: int) -> RuleFacts | None:
    row = connection.execute(
        "SELECT rules.*, time FROM rules LEFT JOIN moments ON moments.serial = rules.since WHERE sid = ?", (sid,)
    ).fetchone()
    if row is None:
        return None
    return RuleFacts(
        sid=sid,
        source=row["source"],
        action=row["action"],
        message=row["message"],
        function=row["function"],
        severity=int(row["severity"]),
        since_serial=int(row["since"]),
        since=row["time"] or "",
    )
