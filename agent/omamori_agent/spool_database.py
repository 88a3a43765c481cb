"""The spool's SQLite file: opening, checking, transactions, setting a corrupt one aside, a reserve for a full disk.

It knows SQLite and the file system but not what an event is; `spool` decides. Write-ahead log with every transaction
synced: what a transaction committed survives a power cut. Not thread-safe; its one owner holds a lock.

Deleting needs room too (the write-ahead log grows before the file shrinks). So some disk is kept in a file of its own
that is given up when nothing else can be written.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from .config import SpoolLimits
from .files import sync_directory

logger = logging.getLogger(__name__)

RESERVE_NAME = "reserve"
_CORRUPT_SUFFIX = ".corrupt"
_LOG_SUFFIXES = ("-wal", "-shm")
# What SQLite answers when there is no room for the file, its log, or the log's index.
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}

# The columns that came later have defaults, so that the firmware before can use the file after a way back.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    severity INTEGER NOT NULL,
    body BLOB NOT NULL,
    confirmed INTEGER NOT NULL DEFAULT 0,
    check_sum INTEGER NOT NULL DEFAULT -1
);
CREATE TABLE IF NOT EXISTS cursor (name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS number (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_INDEX = """
CREATE INDEX IF NOT EXISTS event_by_lane ON event (confirmed, severity, id);
DROP INDEX IF EXISTS event_by_severity;
"""
_LATER_COLUMNS = {
    "confirmed": "ALTER TABLE event ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0",
    "check_sum": "ALTER TABLE event ADD COLUMN check_sum INTEGER NOT NULL DEFAULT -1",
}


class CorruptDatabaseError(sqlite3.DatabaseError):
    """The check at opening found the file damaged."""


def is_corruption(err: Exception) -> bool:
    """Tell a damaged file from a disk that is full, busy or failing."""
    if isinstance(err, CorruptDatabaseError):
        return True
    code = getattr(err, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SpoolDatabase:
    """One database file; closed until `open`.

    Args:
        path: The file; its directory must exist.
        limits: Waiting time, and size of the reserve.
    """

    def __init__(self, path: Path, limits: SpoolLimits) -> None:
        self._path = path
        self._aside_path = path.with_name(path.name + _CORRUPT_SUFFIX)
        self._reserve_path = path.with_name(RESERVE_NAME)
        self._limits = limits
        self._connection: sqlite3.Connection | None = None
        self._has_reserve = False

    @property
    def is_open(self) -> bool:
        """Whether transactions are possible."""
        return self._connection is not None

    @property
    def aside_path(self) -> Path:
        """Where `set_aside` puts a corrupt file."""
        return self._aside_path

    def open(self) -> None:
        """Open the file, or make it, and check it.

        Raises:
            sqlite3.Error: It cannot be opened, or is damaged (`is_corruption`); it stays closed.
        """
        connection = sqlite3.connect(
            self._path, timeout=self._limits.busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 1048576")
            connection.execute("PRAGMA cache_size = -512")  # KiB; the kernel caches the file anyway
            connection.execute("PRAGMA wal_autocheckpoint = 200")  # pages: the log stays below a MiB
            _check(connection)
            connection.executescript(_SCHEMA)
            present = {row[1] for row in connection.execute("PRAGMA table_info(event)")}
            for column, statement in _LATER_COLUMNS.items():
                if column not in present:
                    connection.execute(statement)
            connection.executescript(_INDEX)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def peek_cursors(self) -> dict[str, str]:
        """Return the cursors of a file that cannot be opened because there is no room to do so; never raises.

        A lone user of the file needs no index of the log on the disk, and writes nothing by reading. If that fails too,
        the file is read without its log: a source may then be read again from a little earlier.
        """
        for mode, locking in (("rw", "EXCLUSIVE"), ("ro&immutable=1", "NORMAL")):
            try:
                connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode={mode}", uri=True)
                try:
                    connection.execute(f"PRAGMA locking_mode = {locking}")
                    return dict(connection.execute("SELECT name, position FROM cursor"))
                finally:
                    connection.close()
            except sqlite3.Error as err:
                logger.debug("no cursors: %s", err)
        return {}

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` in one transaction that is durable when this returns.

        Raises:
            sqlite3.Error: Nothing of `work` happened.
        """
        if self._connection is None:
            raise sqlite3.OperationalError("the database is not open")
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            work(self._connection)

    def set_aside(self) -> None:
        """Close the file and rename it, so that the next `open` makes a new one; only the last such file is kept.

        Raises:
            OSError: It could not be renamed.
        """
        self.close()
        logger.error("%s is corrupt; it is kept as %s", self._path, self._aside_path.name)
        # The log goes with its file: what was written last may be in there alone.
        for suffix in _LOG_SUFFIXES:
            self._beside(self._aside_path, suffix).unlink(missing_ok=True)
        log = self._beside(self._path, "-wal")
        if log.exists():
            log.replace(self._beside(self._aside_path, "-wal"))
        self._path.replace(self._aside_path)
        self._beside(self._path, "-shm").unlink(missing_ok=True)
        sync_directory(self._path.parent)

    # Room on the disk.

    def free_bytes(self) -> int:
        """Return how many bytes the disk has left for us; 0 when it does not say."""
        try:
            status = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return status.f_bavail * status.f_frsize

    def needs_room(self, err: Exception) -> bool:
        """Tell whether `err` is what a full disk looks like."""
        code = getattr(err, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in _NO_ROOM:
            return False
        return code & 0xFF == sqlite3.SQLITE_FULL or self.free_bytes() < self._limits.reserve_bytes

    def keep_reserve(self) -> None:
        """Set some disk aside for `give_up_reserve`, if there is plenty; never raises."""
        if self._has_reserve or not self._limits.reserve_bytes or self.free_bytes() < 4 * self._limits.reserve_bytes:
            return
        try:
            descriptor = os.open(self._reserve_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._limits.reserve_bytes)
            finally:
                os.close(descriptor)
        except OSError as err:
            logger.debug("no reserve on the disk: %s", err)
        else:
            self._has_reserve = True

    def give_up_reserve(self) -> None:
        """Spend the reserve on the file, so that a transaction that makes room has some itself."""
        self._has_reserve = False
        try:
            self._reserve_path.unlink(missing_ok=True)
        except OSError as err:
            logger.debug("the reserve cannot be given up: %s", err)
        self.reuse_log()

    def reuse_log(self) -> None:
        """Move the log into the file, so that the log's own place can be written again; never raises."""
        if self._connection is None:
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except sqlite3.Error as err:
            logger.debug("the log stays: %s", err)

    @staticmethod
    def _beside(path: Path, suffix: str) -> Path:
        return path.with_name(path.name + suffix)


def _check(connection: sqlite3.Connection) -> None:
    # Not quick_check: an index that lacks an event would hide it from its lane.
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise CorruptDatabaseError(verdict)
