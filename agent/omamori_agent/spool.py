"""Events on disk until the broker has them.

* `put` returns after the events and their source's cursor are durable together, or raises and stored nothing.
* Bounded in events and bytes. When full, the oldest event of the lowest severity goes first; the loss is counted in
  the same transaction and told as a system event once there is room again.
* A new boot number at every start, also kept outside the database, so that (boot, seq) never repeats even when
  the database had to be thrown away.
* A corrupt database is set aside (the last one is kept), a new one takes over, and a system event says so.
* A full disk costs the caller a `TransientError`, never the process; the next success tells how often it happened.

The spool does not talk to anybody; `link` reads it in order and removes what was acknowledged.
"""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, Severity

from .config import SpoolLimits
from .errors import SetupError, TransientError
from .files import read_bounded, sync_directory, write_atomic
from .ports import Clock, Cursor
from .spool_database import SpoolDatabase, is_corruption

logger = logging.getLogger(__name__)

DATABASE_NAME = "spool.db"
BOOT_NAME = "boot"
_MAX_BOOT = 2**32 - 1
_MAX_CURSOR_LENGTH = 4096
_ROOM_SHARE = 0.9  # below this part of its bounds the spool has room to tell what it lost
_TRIM_STEP = 64
_ATTEMPTS = 2  # the second one is for the new database after a corrupt one

_Row = tuple[int, bytes]


class SpoolUnavailableError(TransientError):
    """The spool cannot work right now (disk full, input/output error); nothing changed."""


@dataclasses.dataclass(frozen=True)
class SpooledEvent:
    """One event as it will be sent; `position` is its place in the spool's order."""

    position: int
    body: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpoolStatus:
    """How full the spool is, and what went wrong since the agent started."""

    boot: int
    events: int
    size_bytes: int
    lost: int
    failed_writes: int


@dataclasses.dataclass
class _Counts:
    """What the spool knows without asking the database; changes only with a committed transaction."""

    events: int = 0
    size_bytes: int = 0
    lost: int = 0  # dropped and not told yet; also in the database
    lost_in_all: int = 0


class Spool:
    """The agent's `ports.Outbox`, and what `link` reads from.

    Args:
        directory: Where database and boot number live; must exist.
        limits: Bounds.
        clock: Gives the time of the spool's own events.
    """

    def __init__(self, directory: Path, limits: SpoolLimits, clock: Clock) -> None:
        self._directory = directory
        self._boot_path = directory / BOOT_NAME
        self._database = SpoolDatabase(directory / DATABASE_NAME, limits)
        self._limits = limits
        self._clock = clock
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._boot = 0
        self._seq = 0
        self._counts = _Counts()
        self._corrupt = 0  # databases set aside and not told yet
        self._failed = 0  # refused writes not told yet
        self._failed_in_all = 0
        self._cursors: dict[str, str] = {}
        self._is_closed = False

    def open(self) -> None:
        """Take the next boot number and open the database.

        A full disk is no reason to stay down: the spool then opens itself at the first call that succeeds.

        Raises:
            SetupError: The directory does not exist.
        """
        with self._lock:
            try:
                sync_directory(self._directory)
            except OSError as err:
                hint = "is the data partition mounted?"
                raise SetupError(f"{self._directory}: {err.strerror or err}", hint=hint) from err
            try:
                self._transact(lambda _connection: None)
            except SpoolUnavailableError as err:
                logger.warning("%s; going on without, events wait at their sources", err)
                self._boot = self._boot or self._next_boot(None)

    def close(self) -> None:
        """Close the database for good; every later call is refused."""
        with self._lock:
            self._is_closed = True
            self._database.close()

    @property
    def boot(self) -> int:
        """This start's number."""
        return self._boot

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each successful `put`, from the thread that put (it must not block)."""
        self._listeners.append(listener)

    def put(self, events: list[Event], cursor: Cursor | None = None) -> None:
        """Store events and, in the same transaction, how far their source has been read.

        Raises:
            SpoolUnavailableError: Nothing was stored; try again later.
            ProtocolError: An event breaks the bounds of its message; nothing was stored.
        """
        if cursor is not None and len(cursor.position) > _MAX_CURSOR_LENGTH:
            raise ValueError(f"cursor {cursor.name} is longer than {_MAX_CURSOR_LENGTH} characters")
        with self._lock:
            try:
                self._put(events, cursor)
            except SpoolUnavailableError:
                self._failed += 1
                self._failed_in_all += 1
                raise
        for listener in self._listeners:
            listener()

    def cursor(self, name: str) -> str | None:
        """Return the stored position of a source, or None."""
        with self._lock:
            return self._cursors.get(name)

    def read_after(self, position: int, maximum: int) -> list[SpooledEvent]:
        """Return up to `maximum` events behind `position`, oldest first (0: from the start).

        Raises:
            SpoolUnavailableError: The disk does not answer; try again later.
        """
        found: list[SpooledEvent] = []

        def read(connection: sqlite3.Connection) -> None:
            query = "SELECT id, body FROM event WHERE id > ? ORDER BY id LIMIT ?"
            found[:] = [SpooledEvent(*row) for row in connection.execute(query, (position, maximum))]

        with self._lock:
            self._transact(read)
        return found

    def remove(self, positions: Iterable[int]) -> None:
        """Forget events that the broker has; unknown positions are ignored.

        Raises:
            SpoolUnavailableError: Nothing was removed; they will be sent again, which the cloud recognises.
        """
        wanted = list(positions)

        def remove(connection: sqlite3.Connection) -> None:
            for position in wanted:
                self._delete(connection, position)

        with self._lock:
            self._transact(remove)
            if not self._counts.lost or not self._has_room():
                return
        try:
            self.put([])  # tells the loss
        except SpoolUnavailableError as err:
            logger.warning("%s; lost events are told later", err)

    def status(self) -> SpoolStatus:
        """Return how full the spool is."""
        with self._lock:
            return SpoolStatus(
                boot=self._boot,
                events=self._counts.events,
                size_bytes=self._counts.size_bytes,
                lost=self._counts.lost_in_all,
                failed_writes=self._failed_in_all,
            )

    # Inside one transaction.

    def _put(self, events: list[Event], cursor: Cursor | None) -> None:
        rows: list[_Row] = []

        def store(connection: sqlite3.Connection) -> None:
            rows[:] = self._encode([*events, *self._notices()])
            if self._counts.lost and self._has_room():
                self._counts.lost = 0
                self._write_number(connection, "lost", 0)
            connection.executemany("INSERT INTO event (severity, body) VALUES (?, ?)", rows)
            self._counts.events += len(rows)
            self._counts.size_bytes += sum(len(body) for _severity, body in rows)
            if cursor is not None:
                self._write_cursors(connection, {cursor.name: cursor.position})
            self._trim(connection)

        self._transact(store)
        self._seq += len(rows)
        self._failed = self._corrupt = 0
        if cursor is not None:
            self._cursors[cursor.name] = cursor.position

    def _trim(self, connection: sqlite3.Connection) -> None:
        dropped = 0
        while self._is_over_bounds():
            query = "SELECT id FROM event ORDER BY severity, id LIMIT ?"
            oldest = connection.execute(query, (_TRIM_STEP,)).fetchall()
            if not oldest:
                break
            for (position,) in oldest:
                if not self._is_over_bounds():
                    break
                self._delete(connection, position)
                dropped += 1
        if dropped:
            self._counts.lost += dropped
            self._counts.lost_in_all += dropped
            self._write_number(connection, "lost", self._counts.lost)

    def _delete(self, connection: sqlite3.Connection, position: int) -> None:
        rows = connection.execute("DELETE FROM event WHERE id = ? RETURNING length(body)", (position,)).fetchall()
        for (size,) in rows:
            self._counts.events -= 1
            self._counts.size_bytes -= size

    @staticmethod
    def _write_number(connection: sqlite3.Connection, name: str, value: int) -> None:
        connection.execute("INSERT OR REPLACE INTO number VALUES (?, ?)", (name, value))

    @staticmethod
    def _write_cursors(connection: sqlite3.Connection, cursors: dict[str, str]) -> None:
        connection.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?)", list(cursors.items()))

    def _transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` in one transaction; on failure the counts are as before, and a corrupt file is set aside."""
        if self._is_closed:
            raise SpoolUnavailableError("spool: closed")
        for attempt in range(1, _ATTEMPTS + 1):
            before = dataclasses.replace(self._counts)
            try:
                if not self._database.is_open:
                    self._open_database()
                    before = dataclasses.replace(self._counts)
                self._database.transact(work)
            except (sqlite3.Error, OSError) as err:
                self._counts = before
                if attempt == _ATTEMPTS or not self._recover(err):
                    raise SpoolUnavailableError(f"spool: {err}") from err
            else:
                return

    def _recover(self, err: Exception) -> bool:
        """Make the next attempt worth while after `err`; returns whether it is."""
        if not is_corruption(err):
            return False
        self._corrupt += 1
        try:
            self._database.set_aside()
        except OSError as again:
            logger.warning("cannot set the corrupt spool aside: %s", again)
            return False
        return True

    # Own events.

    def _encode(self, events: list[Event]) -> list[_Row]:
        rows = []
        for offset, event in enumerate(events, start=1):
            numbered = dataclasses.replace(event, boot=self._boot, seq=self._seq + offset)
            rows.append((int(event.severity), numbered.encode()))
        return rows

    def _notices(self) -> list[Event]:
        lost = self._counts.lost if self._has_room() else 0
        notices = {
            "spool was full; events lost": lost,
            "spool was corrupt and starts empty; events not yet sent are lost": self._corrupt,
            "spool could not be written for a while": self._failed,
        }
        at_ms = int(self._clock.now() * 1000)
        return [
            Event(boot=0, seq=0, at_ms=at_ms, kind=EventKind.SYSTEM, severity=Severity.TWO, count=count, text=text)
            for text, count in notices.items()
            if count
        ]

    def _is_over_bounds(self) -> bool:
        return self._counts.events > self._limits.max_events or self._counts.size_bytes > self._limits.max_bytes

    def _has_room(self) -> bool:
        return (
            self._counts.events < self._limits.max_events * _ROOM_SHARE
            and self._counts.size_bytes < self._limits.max_bytes * _ROOM_SHARE
        )

    # Opening.

    def _open_database(self) -> None:
        """Open the file and bring it and what we remember together; on failure it is closed again."""
        self._database.open()
        try:
            self._database.transact(self._take_over)
        except BaseException:
            self._database.close()
            raise

    def _take_over(self, connection: sqlite3.Connection) -> None:
        numbers = dict(connection.execute("SELECT name, value FROM number"))
        events, size = connection.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM event").fetchone()
        if self._boot == 0:
            self._boot = self._next_boot(numbers.get("boot"))
        # The file first: it is never behind the database, so it alone is enough when the database is lost.
        write_atomic(self._boot_path, b"%d\n" % self._boot)
        self._write_number(connection, "boot", self._boot)
        # What we know is newer than what a new or a reopened file holds.
        self._cursors = dict(connection.execute("SELECT name, position FROM cursor")) | self._cursors
        self._write_cursors(connection, self._cursors)
        lost = numbers.get("lost", 0)
        self._counts = dataclasses.replace(self._counts, events=events, size_bytes=size, lost=lost)

    def _next_boot(self, in_database: int | None) -> int:
        known = [value for value in (in_database, self._read_boot_file()) if value is not None]
        if not known and self._corrupt:
            # Both records are gone but events may have been sent under them: a number that nobody used yet.
            known = [int(self._clock.now())]
        return min(max(known, default=0) + 1, _MAX_BOOT)

    def _read_boot_file(self) -> int | None:
        try:
            text = read_bounded(self._boot_path, 32).decode("ascii").strip()
        except (FileNotFoundError, SetupError, UnicodeDecodeError):
            return None
        return int(text) if text.isdecimal() else None
