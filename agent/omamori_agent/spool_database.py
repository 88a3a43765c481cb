"""The spool's SQLite file: opening, checking, transactions, setting a corrupt one aside.

It knows SQLite and the file system but not what an event is; `spool` decides. Write-ahead log with every transaction
synced: what a transaction committed survives a power cut. Not thread-safe; its one owner holds a lock.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from .config import SpoolLimits
from .files import sync_directory

logger = logging.getLogger(__name__)

_CORRUPT_SUFFIX = ".corrupt"
_PAGE_BYTES = 4096
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    severity INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS event_by_severity ON event (severity, id);
CREATE TABLE IF NOT EXISTS cursor (name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS number (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


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
        limits: The file is kept below about twice `max_bytes`.
    """

    def __init__(self, path: Path, limits: SpoolLimits) -> None:
        self._path = path
        self._limits = limits
        self._connection: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether transactions are possible."""
        return self._connection is not None

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
            # Twice the bound plus a little: encoded events, the index, and pages half full after deletions.
            connection.execute(f"PRAGMA max_page_count = {2 * self._limits.max_bytes // _PAGE_BYTES + 1024}")
            _check(connection)
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

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
        aside = self._path.with_name(self._path.name + _CORRUPT_SUFFIX)
        logger.error("%s is corrupt; it is kept as %s", self._path, aside.name)
        self._path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        sync_directory(self._path.parent)


def _check(connection: sqlite3.Connection) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise CorruptDatabaseError(verdict)
