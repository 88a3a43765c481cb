"""Events on disk until the broker has them, in lanes by severity.

* `put` returns after the events and their source's cursor are durable together, or raises and stored nothing.
* Bounded in events and bytes. When full, the oldest event of the lowest lane goes first; the loss is counted in the
  same transaction and told as a system event once there is room again. Three stars are kept beyond the bounds while
  disk is left.
* A new boot number at every start, also kept outside the database, and begun at the time of day, so that (boot, seq)
  never repeats even when the database or the whole data partition had to be thrown away.
* A corrupt database is set aside (the last one is kept), a new one takes over with what could be read of it, and a
  system event says so. An event that changed on the disk is never sent.
* A full disk: lower lanes make room for graver events. With nothing lower left it costs the caller a
  `TransientError`, never the process; the next success tells how often it happened.

The spool does not talk to anybody; `link` reads its lanes and confirms what was acknowledged.
"""

from __future__ import annotations

import dataclasses
import itertools
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
from .spool_lanes import LANES, Lane, Lanes, Row
from .spool_rescue import readable_events

__all__ = ["LANES", "Lane", "Spool", "SpoolStatus", "SpoolUnavailableError", "SpooledEvent"]

logger = logging.getLogger(__name__)

DATABASE_NAME = "spool.db"
BOOT_NAME = "boot"
_MAX_BOOT = 2**32 - 1
_MAX_CURSOR_LENGTH = 4096
_ROOM_SHARE = 0.9  # below this part of its bounds the spool has room to tell what it lost
_ATTEMPTS = 2  # the second one is for the new database after a corrupt one
_ROOM_FACTOR = 4  # how much more than a grave event needs is dropped for it: rows lie scattered over pages
_ROOM_BYTES = 64 * 1024  # at least this much
_RESCUE_BATCH = 200


class SpoolUnavailableError(TransientError):
    """The spool cannot work right now (disk full, input/output error); nothing changed."""


@dataclasses.dataclass(frozen=True)
class SpooledEvent:
    """One event as it will be sent; `position` is its place in its lane."""

    position: int
    body: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpoolStatus:
    """How full the spool is, and what went wrong since the agent started.

    `events` were never acknowledged; those of `again` were, and are sent once more.
    """

    boot: int
    events: int
    again: int
    size_bytes: int
    lost: int
    failed_writes: int


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
        self._lanes = Lanes(limits, lambda: self._database.free_bytes() > limits.min_free_bytes)
        self._corrupt = 0  # databases set aside and not told yet
        self._rescued = 0  # events read from them
        self._must_rescue = False
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
                # Without them every source would be told from its beginning once more.
                self._cursors = self._database.peek_cursors()
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

    def read_after(self, lane: Lane, position: int, maximum: int) -> list[SpooledEvent]:
        """Return up to `maximum` events of a lane behind `position`, oldest first (0: from the start).

        Raises:
            SpoolUnavailableError: The disk does not answer; try again later.
        """
        found: list[SpooledEvent] = []

        def read(connection: sqlite3.Connection) -> None:
            found[:] = [SpooledEvent(*row) for row in self._lanes.read(connection, lane, position, maximum)]

        with self._lock:
            self._transact(read)
        return found

    def newest(self) -> int:
        """Return the position of the newest event that was ever put; 0 for none.

        Raises:
            SpoolUnavailableError: The disk does not answer; try again later.
        """
        found = [0]

        def read(connection: sqlite3.Connection) -> None:
            found[0] = connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]

        with self._lock:
            self._transact(read)
        return found[0]

    def confirm(self, positions: Iterable[int]) -> None:
        """Take events that the broker has out of their lanes; unknown positions are ignored.

        Raises:
            SpoolUnavailableError: Nothing changed; they will be sent again, which the cloud recognises.
        """
        wanted = list(positions)
        with self._lock:
            self._transact(lambda connection: self._lanes.confirm(connection, wanted))
            if not (self._lanes.counts.lost or self._lanes.counts.damaged) or not self._lanes.has_room(_ROOM_SHARE):
                return
        try:
            self.put([])  # tells the loss
        except SpoolUnavailableError as err:
            logger.warning("%s; lost events are told later", err)

    def recall(self, positions: Iterable[int] | None = None) -> int:
        """Put confirmed events on the lane `AGAIN`, as far as they are still there: the broker may have lost them.

        Args:
            positions: Which ones; all that are still there if None.

        Returns:
            How many there were.

        Raises:
            SpoolUnavailableError: Nothing changed; try again.
        """
        wanted = None if positions is None else list(positions)
        found = [0]

        def recall(connection: sqlite3.Connection) -> None:
            found[0] = self._lanes.recall(connection, wanted)

        with self._lock:
            self._transact(recall)
        return found[0]

    def status(self) -> SpoolStatus:
        """Return how full the spool is."""
        with self._lock:
            return SpoolStatus(
                boot=self._boot,
                events=self._lanes.counts.events,
                again=self._lanes.counts.again,
                size_bytes=self._lanes.counts.size_bytes,
                lost=self._lanes.counts.lost_in_all,
                failed_writes=self._failed_in_all,
            )

    # Inside one transaction.

    def _put(self, events: list[Event], cursor: Cursor | None) -> None:
        rows: list[Row] = []

        def store(connection: sqlite3.Connection) -> None:
            rows[:] = self._encode([*events, *self._notices()])
            if self._lanes.has_room(_ROOM_SHARE):
                self._lanes.loss_told(connection)
            self._lanes.add(connection, rows)
            if cursor is not None:
                self._write_cursors(connection, {cursor.name: cursor.position})
            self._before_commit(connection)

        try:
            self._transact(store)
        except SpoolUnavailableError as err:
            if not isinstance(err.__cause__, sqlite3.Error) or not self._database.needs_room(err.__cause__):
                raise
            self._database.reuse_log()
            try:
                self._transact(store)
            except SpoolUnavailableError:
                if not self._make_room(events):
                    raise
                self._transact(store)
        self._seq += len(rows)
        self._failed = self._corrupt = self._rescued = self._lanes.counts.damaged = 0
        if cursor is not None:
            self._cursors[cursor.name] = cursor.position
        self._database.keep_reserve()

    def _before_commit(self, connection: sqlite3.Connection) -> None:
        """Nothing; a test cuts the power here."""

    def _make_room(self, events: list[Event]) -> bool:
        """Drop lower lanes for graver `events` on a full disk; returns whether another try is worth while."""
        if not events:
            return False
        gravest = max(event.severity for event in events)
        wanted_bytes = max(_ROOM_BYTES, _ROOM_FACTOR * sum(len(body) for _lane, body in self._encode(events)))
        dropped = [0]

        def drop(connection: sqlite3.Connection) -> None:
            dropped[0] = self._lanes.make_room(connection, gravest, wanted_bytes)

        try:
            self._transact(drop)
        except SpoolUnavailableError:
            self._database.give_up_reserve()
            try:
                self._transact(drop)
            except SpoolUnavailableError as again:
                logger.warning("no room can be made: %s", again)
                return False
        return dropped[0] > 0

    @staticmethod
    def _write_cursors(connection: sqlite3.Connection, cursors: dict[str, str]) -> None:
        connection.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?)", list(cursors.items()))

    def _transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` in one transaction; on failure the counts are as before, and a corrupt file is set aside."""
        if self._is_closed:
            raise SpoolUnavailableError("spool: closed")
        for attempt in range(1, _ATTEMPTS + 1):
            before = self._lanes.counts.copy()
            try:
                if not self._database.is_open:
                    self._open_database()
                    before = self._lanes.counts.copy()
                self._database.transact(work)
            except (sqlite3.Error, OSError) as err:
                self._lanes.counts = before
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
        self._must_rescue = True
        return True

    # Own events.

    def _encode(self, events: list[Event]) -> list[Row]:
        rows = []
        for offset, event in enumerate(events, start=1):
            numbered = dataclasses.replace(event, boot=self._boot, seq=self._seq + offset)
            rows.append((int(event.severity), numbered.encode()))
        return rows

    def _notices(self) -> list[Event]:
        has_room = self._lanes.has_room(_ROOM_SHARE)
        corrupt = "spool was corrupt and starts empty; events not yet sent are lost"
        if self._rescued:
            corrupt = f"spool was damaged; {self._rescued} waiting events could be read, others are lost"
        notices = {
            **{
                f"spool was full; {'★' * lane} events lost": n
                for lane, n in self._lanes.counts.lost.items()
                if has_room
            },
            corrupt: self._corrupt,
            "spool events changed on the disk and were dropped": self._lanes.counts.damaged,
            "spool could not be written for a while": self._failed,
        }
        at_ms = int(self._clock.now() * 1000)
        return [
            Event(boot=0, seq=0, at_ms=at_ms, kind=EventKind.SYSTEM, severity=Severity.TWO, count=count, text=text)
            for text, count in notices.items()
            if count
        ]

    # Opening.

    def _open_database(self) -> None:
        """Open the file and bring it and what we remember together; on failure it is closed again."""
        self._database.open()
        try:
            self._database.transact(self._take_over)
        except BaseException:
            self._database.close()
            raise
        if self._must_rescue:
            self._must_rescue = False
            self._rescue()
        self._database.keep_reserve()

    def _rescue(self) -> None:
        """Bring what can still be read of the file that was set aside; numbers included, so nothing arrives twice."""
        rows = readable_events(self._database.aside_path, self._limits.max_events)
        while batch := list(itertools.islice(rows, _RESCUE_BATCH)):
            before = self._lanes.counts.copy()

            def add(connection: sqlite3.Connection, batch: list[Row] = batch) -> None:
                self._lanes.add(connection, batch)

            try:
                self._database.transact(add)
            except sqlite3.Error as err:
                self._lanes.counts = before
                logger.warning("the rescue ends early: %s", err)
                break
            self._rescued += len(batch)

    def _take_over(self, connection: sqlite3.Connection) -> None:
        numbers = dict(connection.execute("SELECT name, value FROM number"))
        if self._boot == 0:
            self._boot = self._next_boot(numbers.get("boot"))
        # The file first: it is never behind the database, so it alone is enough when the database is lost.
        write_atomic(self._boot_path, b"%d\n" % self._boot)
        connection.execute("INSERT OR REPLACE INTO number VALUES ('boot', ?)", (self._boot,))
        # What we know is newer than what a new or a reopened file holds.
        self._cursors = dict(connection.execute("SELECT name, position FROM cursor")) | self._cursors
        self._write_cursors(connection, self._cursors)
        self._lanes.load(connection)

    def _next_boot(self, in_database: int | None) -> int:
        known = [value for value in (in_database, self._read_boot_file()) if value is not None]
        # A spool that knows no number may not be the box's first (an erased data partition, both records damaged): the
        # time is a number that nobody used yet, unless the box restarted every second all its life.
        return min(max(known, default=int(self._clock.now())) + 1, _MAX_BOOT)

    def _read_boot_file(self) -> int | None:
        try:
            text = read_bounded(self._boot_path, 32).decode("ascii").strip()
        except (FileNotFoundError, SetupError, UnicodeDecodeError):
            return None
        return int(text) if text.isdecimal() else None
