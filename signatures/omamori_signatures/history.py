"""Keeps, beside the packs, what each entry came from and since when it is in.

    HISTORY/<serial>/manifest.json        of the pack
    HISTORY/<serial>/report.json          sources with their provenance, counts, what was left out and why
    HISTORY/<serial>/lists/<list>.tsv     entry, serial and time since which it is in without a break, its sources
    HISTORY/<serial>/allowed.tsv          what an allow-list took out, see `AllowedRow`, and since when
    HISTORY/<serial>/rules.tsv            the rules, see `RuleRow`, and since when

Files of entries are sorted, so that one entry is found by bisection and two serials are compared side by side, without
holding a list in memory. The newest `KEPT` serials are kept. Boxes never see any of this.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from omamori_protocol.durable import sync_directory, write_atomic
from omamori_protocol.feed_manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, FeedManifest, parse_manifest

from .errors import SourceError
from .files import read_bounded

KEPT = 10
REPORT_NAME = "report.json"
ALLOWED_NAME = "allowed.tsv"
RULES_NAME = "rules.tsv"
RULES_LIST = "rules"  # stands for a list where a rule was left out
_MAX_REPORT_BYTES = 4 * 1024 * 1024
_MAX_LINE = 8192


class Record(NamedTuple):
    """One entry of a list.

    Attributes:
        entry: As in the pack; of a URL the host, a space and the path.
        serial: Since which serial it is in without a break.
        time: When that serial was made, RFC 3339.
        sources: Who lists it.
    """

    entry: str
    serial: int
    time: str
    sources: tuple[str, ...]

    def line(self) -> str:
        """Return the record as it is written."""
        return f"{self.entry}\t{self.serial}\t{self.time}\t{','.join(self.sources)}\n"


class AllowedRow(NamedTuple):
    """What an allow-list took out; of a rule the entry is its id. Numbers are as text, as in the file."""

    entry: str
    list: str
    sources: str
    allowed: str
    allow_list: str
    report: str = "0"
    since_serial: str = "0"
    since: str = ""


class RuleRow(NamedTuple):
    """A rule of the pack. Numbers are as text, as in the file; the id has ten digits."""

    sid: str
    source: str
    action: str
    message: str
    function: str = ""
    severity: str = "0"
    since_serial: str = "0"
    since: str = ""


Row = TypeVar("Row", AllowedRow, RuleRow)


class HistoryWriter:
    """Writes the history of one serial; nothing of it is to be seen before `finish`.

    Args:
        history: Where serials are kept.
        serial: Of the pack that is made.
        created: Its time.
    """

    def __init__(self, history: History, serial: int, created: str) -> None:
        self._history, self._serial, self._created = history, serial, created
        self._directory = history.directory / f".{serial}.tmp"
        self._previous = history.latest_before(serial)
        shutil.rmtree(self._directory, ignore_errors=True)
        (self._directory / "lists").mkdir(parents=True)

    def write_list(self, name: str, entries: Iterable[tuple[str, tuple[str, ...]]]) -> int:
        """Write the entries of a list, which come in order; return how many there were."""
        before = self._history.records(self._previous, name) if self._previous is not None else iter(())
        old = next(before, None)
        count = 0
        with (self._directory / "lists" / f"{name}.tsv").open("w", encoding="utf-8", newline="\n") as file:
            for entry, sources in entries:
                while old is not None and old.entry < entry:
                    old = next(before, None)
                same = old is not None and old.entry == entry
                since, time = (old.serial, old.time) if same and old is not None else (self._serial, self._created)
                file.write(Record(entry, since, time, sources).line())
                count += 1
        return count

    def write_dated(self, name: str, rows: Iterable[Row], *, keys: int) -> None:
        """Write a table whose rows come in the order of their first `keys` columns, with since when each is in."""
        with (self._directory / name).open("w", encoding="utf-8", newline="\n") as file:
            old: Iterator[Row] = iter(())
            last: Row | None = None
            for row in rows:
                if last is None and self._previous is not None:
                    old = self._history.rows(self._previous, name, type(row))
                    last = next(old, None)
                while last is not None and last[:keys] < row[:keys]:
                    last = next(old, None)
                serial, time = str(self._serial), self._created
                if last is not None and last[:keys] == row[:keys]:
                    serial, time = self._since(last)
                dated = row._replace(since_serial=serial, since=time)
                file.write("\t".join(cell.replace("\t", " ") for cell in dated) + "\n")

    def _since(self, row: AllowedRow | RuleRow) -> tuple[str, str]:
        if row.since:
            return row.since_serial, row.since
        # Written before times were kept: it is in at least since that serial.
        assert self._previous is not None
        return str(self._previous), self._history.manifest(self._previous).created

    def finish(self, manifest: FeedManifest, report: dict[str, Any]) -> None:
        """Put the serial in its place, and remove the oldest ones."""
        write_atomic(self._directory / MANIFEST_NAME, manifest.to_json())
        write_atomic(self._directory / REPORT_NAME, (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
        for path in self._directory.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        target = self._history.directory / str(self._serial)
        shutil.rmtree(target, ignore_errors=True)
        self._directory.rename(target)
        sync_directory(self._history.directory)
        self._history.prune()


class History:
    """The serials below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def serials(self) -> list[int]:
        """Return the serials that are kept, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdecimal() and path.is_dir())

    def latest(self) -> int:
        """Return the newest serial.

        Raises:
            SourceError: There is none.
        """
        serials = self.serials()
        if not serials:
            raise SourceError(f"{self.directory} holds no serial", hint="omamori-feed compile makes one")
        return serials[-1]

    def latest_before(self, serial: int) -> int | None:
        """Return the newest serial that is older than `serial`, or None."""
        return max((found for found in self.serials() if found < serial), default=None)

    def write(self, serial: int, created: str) -> HistoryWriter:
        """Begin to write a serial."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return HistoryWriter(self, serial, created)

    def prune(self) -> None:
        """Remove all but the newest serials."""
        for serial in self.serials()[:-KEPT]:
            shutil.rmtree(self.directory / str(serial))

    def manifest(self, serial: int) -> FeedManifest:
        """Return the manifest of a serial.

        Raises:
            SourceError: There is no such serial.
        """
        return parse_manifest(read_bounded(self.directory / str(serial) / MANIFEST_NAME, MAX_MANIFEST_BYTES))

    def report(self, serial: int) -> dict[str, Any]:
        """Return the report of a serial.

        Raises:
            SourceError: There is no such serial, or it is not intact.
        """
        path = self.directory / str(serial) / REPORT_NAME
        try:
            body = json.loads(read_bounded(path, _MAX_REPORT_BYTES))
        except (ValueError, RecursionError) as err:
            raise SourceError(f"{path} is not intact") from err
        if not isinstance(body, dict):
            raise SourceError(f"{path} is not intact")
        return body

    def list_names(self, serial: int) -> list[str]:
        """Return the lists of a serial."""
        return sorted(path.stem for path in (self.directory / str(serial) / "lists").glob("*.tsv"))

    def records(self, serial: int, name: str) -> Iterator[Record]:
        """Yield the entries of a list in order; nothing if the serial does not have it."""
        path = self.directory / str(serial) / "lists" / f"{name}.tsv"
        if not path.is_file():
            return
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE):
                yield _record(line)

    def find(self, serial: int, name: str, entry: str) -> Record | None:
        """Return an entry of a list, or None."""
        row = self._find_row(self.directory / str(serial) / "lists" / f"{name}.tsv", entry)
        return _record(row) if row is not None else None

    def rows(self, serial: int, name: str, kind: type[Row]) -> Iterator[Row]:
        """Yield the rows of a table in order; nothing if the serial does not have it."""
        path = self.directory / str(serial) / name
        if not path.is_file():
            return
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE):
                yield _row(line, kind)

    def find_allowed(self, serial: int, entry: str) -> AllowedRow | None:
        """Return what an allow-list took out, or None."""
        row = self._find_row(self.directory / str(serial) / ALLOWED_NAME, entry)
        return _row(row, AllowedRow) if row is not None else None

    def find_rule(self, serial: int, sid: int) -> RuleRow | None:
        """Return a rule, or None."""
        row = self._find_row(self.directory / str(serial) / RULES_NAME, f"{sid:010d}")
        return _row(row, RuleRow) if row is not None else None

    def _find_row(self, path: Path, key: str) -> bytes | None:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return _bisect(file, key.encode())


def _row(line: bytes, kind: type[Row]) -> Row:
    try:
        return kind(*line.decode().rstrip("\n").split("\t"))
    except (TypeError, ValueError) as err:
        raise SourceError("a file of the history is not intact") from err


def _record(line: bytes) -> Record:
    try:
        entry, serial, time, sources = line.decode().rstrip("\n").split("\t")
        return Record(entry, int(serial), time, tuple(sources.split(",")))
    except ValueError as err:
        raise SourceError("a file of the history is not intact") from err


def _bisect(file: BinaryIO, key: bytes) -> bytes | None:
    """Return the first line of a sorted file whose first column is `key`."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while low < high:  # `low` is always the beginning of a line, and no line before it is the one
        middle = (low + high) // 2
        file.seek(middle)
        if middle:
            file.readline(_MAX_LINE)  # to the beginning of a line
        start = file.tell()
        line = file.readline(_MAX_LINE)
        if start >= high or not line:
            high = middle
        elif line.partition(b"\t")[0] < key:
            low = file.tell()
        else:
            high = middle
    file.seek(low)
    while line := file.readline(_MAX_LINE):
        found = line.partition(b"\t")[0].rstrip(b"\n")
        if found == key:
            return line
        if found > key:
            return None
    return None
