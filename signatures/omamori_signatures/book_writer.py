"""Writes the feed book of a serial from its history; `omamori_protocol.feed_book` describes the file and reads it.

The entries of all lists come merged in the order of their keys, so the tree is filled from left to right and packed
tightly, and memory does not grow with the lists. The file appears in its place complete or not at all.
"""

from __future__ import annotations

import heapq
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omamori_protocol.durable import sync_directory, temporary_beside
from omamori_protocol.feed_book import APPLICATION_ID, FORMAT, key_of

from .errors import SourceError
from .explain import book_source
from .history import ALLOWED_NAME, RULES_NAME, AllowedRow, History, Record, RuleRow
from .indicators import DomainRules

_SCHEMA = """
CREATE TABLE book (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE moments (serial INTEGER PRIMARY KEY, time TEXT NOT NULL);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL, licence TEXT NOT NULL, attribution TEXT NOT NULL,
    origin TEXT NOT NULL, fetched TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE source_sets (id INTEGER PRIMARY KEY, members TEXT NOT NULL);
CREATE TABLE lists (id INTEGER PRIMARY KEY, name TEXT NOT NULL, function TEXT NOT NULL, severity INTEGER NOT NULL,
    action TEXT NOT NULL);
CREATE TABLE facts (id INTEGER PRIMARY KEY, list INTEGER NOT NULL, covers INTEGER NOT NULL, since INTEGER NOT NULL,
    sources INTEGER NOT NULL);
CREATE TABLE entries (key, fact INTEGER, PRIMARY KEY (key, fact)) WITHOUT ROWID;
CREATE TABLE left_out (key, list TEXT, covers INTEGER NOT NULL, sources TEXT NOT NULL, allowed TEXT NOT NULL,
    allow_list TEXT NOT NULL, report INTEGER NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (key, list)) WITHOUT ROWID;
CREATE TABLE rules (sid INTEGER PRIMARY KEY, source TEXT NOT NULL, action TEXT NOT NULL, message TEXT NOT NULL,
    function TEXT NOT NULL, severity INTEGER NOT NULL, since INTEGER NOT NULL);
"""
_CACHED_PARENTS = 200_000
_PAGE_BYTES = 4096


def write_book(history: History, serial: int, path: Path) -> int:
    """Write the book of a serial.

    Args:
        history: Of the packs.
        serial: To tell about.
        path: File to write; its directory must exist.

    Returns:
        The size of the book in bytes.

    Raises:
        SourceError: There is no such serial, it is not intact, or the file cannot be written.
    """
    temporary = temporary_beside(path)
    temporary.unlink(missing_ok=True)
    try:
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            _Book(connection, history, serial).write()
        finally:
            connection.close()
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_directory(path.parent)
    except (sqlite3.Error, OSError) as err:
        raise SourceError(f"cannot write {path}: {str(err)[:200]}") from err
    finally:
        temporary.unlink(missing_ok=True)
    return size


class _Numbers:
    """Gives each new value a number, and writes it down."""

    def __init__(self, write: Callable[[int, Any], None]) -> None:
        self._write = write
        self._numbers: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self._numbers) + 1
            self._write(number, value)
        return number


class _Book:
    def __init__(self, connection: sqlite3.Connection, history: History, serial: int) -> None:
        self._db, self._history, self._serial = connection, history, serial
        self._report = history.report(serial)
        self._reports = {item["source"]: item for item in self._report["sources"]}
        self._domains = DomainRules()
        self._is_suffix: dict[str, bool] = {}
        self._moments: set[int] = set()
        self._sources = _Numbers(self._write_source)
        self._sets = _Numbers(self._write_set)
        self._facts = _Numbers(lambda number, fact: self._insert("facts", number, *fact))

    def write(self) -> None:
        manifest = self._history.manifest(self._serial)
        # Nobody looks before the file is in its place, and it is made durable as a whole.
        for pragma in (f"page_size={_PAGE_BYTES}", f"application_id={APPLICATION_ID}", "journal_mode=OFF"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self._moment(self._serial, manifest.created)
        names = self._history.list_names(self._serial)
        for number, name in enumerate(names):
            facts = self._report["lists"][name]
            self._insert("lists", number, name, facts["function"], facts["severity"], facts["action"])
        entries = self._write_entries(names)
        for row in self._history.rows(self._serial, ALLOWED_NAME, AllowedRow):
            self._write_allowed(row)
        rules = 0
        for rule in self._history.rows(self._serial, RULES_NAME, RuleRow):
            self._write_rule(rule)
            rules += 1
        values = {
            "format": FORMAT,
            "serial": self._serial,
            "created": manifest.created,
            "channel": manifest.channel,
            "entries": entries,
            "rules": rules,
        }
        self._db.executemany("INSERT INTO book VALUES (?, ?)", values.items())
        self._db.execute("COMMIT")

    def _insert(self, table: str, *values: Any) -> None:
        places = ", ".join("?" for _ in values)
        self._db.execute(f"INSERT INTO {table} VALUES ({places})", values)  # noqa: S608 - names of ours only

    def _write_entries(self, names: list[str]) -> int:
        streams = [self._records(number, name) for number, name in enumerate(names)]
        count = 0

        def rows() -> Iterator[tuple[Any, int]]:
            nonlocal count
            for entry, number, record in heapq.merge(*streams):
                count += 1
                yield key_of(entry), self._fact(number, record)

        self._db.executemany("INSERT INTO entries VALUES (?, ?)", rows())
        return count

    def _records(self, number: int, name: str) -> Iterator[tuple[str, int, Record]]:
        return ((record.entry, number, record) for record in self._history.records(self._serial, name))

    def _fact(self, number: int, record: Record) -> int:
        self._moment(record.serial, record.time)
        return self._facts.of((number, int(self._covers(record.entry)), record.serial, self._sets.of(record.sources)))

    def _moment(self, serial: int, time: str) -> None:
        if serial not in self._moments:
            self._moments.add(serial)
            self._insert("moments", serial, time)

    def _covers(self, entry: str) -> bool:
        """Say whether an entry stands for the names below it, too: a registrable domain does."""
        parent = entry.partition(".")[2]
        if not parent or "/" in entry or ":" in entry or entry.rpartition(".")[2].isdigit() or " " in entry:
            return False
        is_suffix = self._is_suffix.get(parent)
        if is_suffix is None:
            if len(self._is_suffix) >= _CACHED_PARENTS:
                self._is_suffix.clear()
            is_suffix = self._is_suffix[parent] = self._domains.is_suffix(parent)
        return is_suffix

    def _write_source(self, number: int, name: str) -> None:
        source = book_source(name, self._reports.get(name, {}))
        self._insert(
            "sources", number, name, source.licence, source.attribution, source.origin, source.fetched, source.sha256
        )

    def _write_set(self, number: int, sources: tuple[str, ...]) -> None:
        self._insert("source_sets", number, ",".join(str(self._sources.of(name)) for name in sources))

    def _write_allowed(self, row: AllowedRow) -> None:
        serial, time = self._since(row)
        self._moment(serial, time)
        covers = int(self._covers(row.entry))
        key = key_of(row.entry)
        self._insert(
            "left_out", key, row.list, covers, row.sources, row.allowed, row.allow_list, int(row.report), serial
        )

    def _write_rule(self, row: RuleRow) -> None:
        serial, time = self._since(row)
        self._moment(serial, time)
        severity = int(row.severity)
        self._insert("rules", int(row.sid), row.source, row.action, row.message, row.function, severity, serial)

    def _since(self, row: AllowedRow | RuleRow) -> tuple[int, str]:
        if row.since:
            return int(row.since_serial), row.since
        return self._serial, self._history.manifest(self._serial).created  # written before times were kept
