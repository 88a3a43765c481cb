"""Writes the whole store into one file, and makes a store from such a file, on either engine.

The file is gzip of JSON lines, so that it can be read without this program: a header with the schema's revision; for
each table its columns and rows, each row a list; at the end a SHA-256 of all lines before. Bytes are base64 text.

* A backup is one moment: everything is read in one transaction, which holds up nobody.
* It is at its place whole or not at all, readable by its owner only, and never replaces a file.
* It is restored whole or not at all, into a store without any row. The tables are made as they were when it was
  written, filled, and then brought to this program's schema: a backup of any older version will do.
* Numbers are not used again: what a table would have counted next is restored too.

See docs/adr/0046-own-backup-format.md. A backup holds what customers may ask to have deleted: it needs the same care
and an end.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, LargeBinary, MetaData, Table, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from omamori_cloud.errors import BackupError, SchemaError, StoreUnavailableError
from omamori_protocol.durable import sync_directory, temporary_beside

from .database import POSTGRESQL, alembic_config, lock_migrations, migrations_directory

FORMAT = 1
MAX_LINE_BYTES = 4 * 1024 * 1024
_ROWS = 1_000  # read, and stored, at a time
_COMPRESSION = 3  # twice as fast as the usual 9, a tenth larger
_VERSIONS = "alembic_version"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupReport:
    """What a file holds: the schema it was written with, and how many rows of each table."""

    schema: str
    rows: dict[str, int]


class _Lines:
    """JSON lines of a file, with the hash of what has passed."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def put(self, value: Any) -> None:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        self._file.write(line)

    def take(self) -> Any:
        """Return the next value; the hash knows it only when the next one is taken."""
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line.endswith(b"\n"):
            raise BackupError("the backup ends too early, or has a line that is too long")
        before = self._hash.copy()
        self._hash.update(line)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise BackupError("the backup is damaged: a line that is no JSON") from err
        if isinstance(value, dict) and "sha256" in value and value["sha256"] != before.hexdigest():
            raise BackupError("the backup is damaged: its hash is another one")
        return value


def write_backup(engine: Engine, path: Path) -> BackupReport:
    """Write all rows of the store, as of one moment, into a new file.

    Raises:
        BackupError: There is such a file already, or it cannot be written; no file was made.
        SchemaError: There is no store.
        StoreUnavailableError: The database does not answer; no file was made.
    """
    temporary = temporary_beside(path)
    if path.exists():
        raise BackupError(f"{path} exists", hint="a backup never replaces a file")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                with gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as file, _one_moment(engine) as connection:
                    report = _write_all(connection, _Lines(file))
                raw.flush()
                os.fsync(raw.fileno())
            os.link(temporary, path)  # fails if somebody made one meanwhile
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as err:
        raise BackupError(f"{path}: {err.strerror or err}") from err
    except SQLAlchemyError as err:
        raise StoreUnavailableError(f"database: {str(getattr(err, 'orig', err))[:200]}") from err
    return report


@contextlib.contextmanager
def _one_moment(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        if connection.dialect.name == POSTGRESQL:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


def _write_all(connection: Connection, lines: _Lines) -> BackupReport:
    schema = MigrationContext.configure(connection).get_current_revision()
    if schema is None:
        raise SchemaError("database: there is no store to back up", hint="run: omamori-cloud migrate")
    tables = _tables(connection)
    lines.put({"omamori-backup": FORMAT, "schema": schema, "tables": len(tables)})
    rows = {table.name: _write_table(connection, table, lines) for table in tables}
    lines.put({"sha256": lines.sha256})
    return BackupReport(schema=schema, rows=rows)


def _tables(connection: Connection) -> list[Table]:
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != _VERSIONS]


def _write_table(connection: Connection, table: Table, lines: _Lines) -> int:
    columns = list(table.columns)
    binary = [index for index, column in enumerate(columns) if isinstance(column.type, LargeBinary)]
    lines.put({"table": table.name, "columns": [column.name for column in columns]})
    count = 0
    rows = connection.execution_options(yield_per=_ROWS).execute(select(table).order_by(*table.primary_key))
    for row in rows:
        values = list(row)
        for index in binary:
            if values[index] is not None:
                values[index] = base64.b64encode(values[index]).decode()
        lines.put(values)
        count += 1
    lines.put({"rows": count, "last": _last_number(connection, table)})
    return count


def _counted(table: Table) -> Any:
    """Return the column in which the engine numbers rows by itself, or None."""
    keys = list(table.primary_key)
    return keys[0] if len(keys) == 1 and keys[0].name == "id" and keys[0].type.python_type is int else None


def _sequence(connection: Connection, table: Table) -> str:
    asked = text("SELECT pg_get_serial_sequence(:name, 'id')")
    return str(connection.execute(asked, {"name": table.name}).scalar_one())


def _last_number(connection: Connection, table: Table) -> int | None:
    """Return the largest number that a table ever gave to a row, as far as the engine knows; None if it gives none."""
    column = _counted(table)
    if column is None:
        return None
    if connection.dialect.name == POSTGRESQL:
        name = _sequence(connection, table)  # quoted by the server if need be
        given = connection.execute(text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {name}"))  # noqa: S608
        return int(given.scalar_one())
    largest = int(connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one())
    known = connection.execute(text("SELECT name FROM sqlite_master WHERE name = 'sqlite_sequence'")).first()
    if known is not None:
        asked = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        largest = max(largest, int(connection.execute(asked, {"name": table.name}).scalar() or 0))
    return largest


def read_backup(engine: Engine, path: Path) -> BackupReport:
    """Make the store that a backup holds, all or nothing.

    Raises:
        BackupError: The file cannot be read or is damaged, or the store is not empty; nothing was changed.
        SchemaError: The backup was written by a newer program; nothing was changed.
        StoreUnavailableError: The database does not answer; nothing was changed.
    """
    try:
        with (
            gzip.open(path, "rb") as file,
            engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            lock_migrations(connection)
            return _read_all(connection, _Lines(file))
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise BackupError(f"{path}: the backup is damaged: {err}") from err
    except OSError as err:
        raise BackupError(f"{path}: {err.strerror or err}") from err
    except SQLAlchemyError as err:
        raise StoreUnavailableError(f"database: {str(getattr(err, 'orig', err))[:200]}") from err


def _read_all(connection: Connection, lines: _Lines) -> BackupReport:
    header = lines.take()
    if not isinstance(header, dict) or header.get("omamori-backup") != FORMAT:
        raise BackupError("not a backup of a store, or of another format")
    schema, number = header.get("schema"), header.get("tables")
    if schema not in {script.revision for script in ScriptDirectory(str(migrations_directory())).walk_revisions()}:
        raise SchemaError(f"backup: schema {str(schema)[:40]}", hint="it was written by a newer omamori-cloud")
    _make_empty(connection)
    command.upgrade(alembic_config(connection), str(schema))
    tables = {table.name: table for table in _tables(connection)}
    rows: dict[str, int] = {}
    for _ in range(len(tables)):
        name, count = _read_table(connection, tables, lines)
        rows[name] = count
    if number != len(tables) or set(rows) != set(tables):
        raise BackupError("the backup is damaged: not the tables of its schema")
    end = lines.take()
    if not isinstance(end, dict) or "sha256" not in end:
        raise BackupError("the backup is damaged: its end is missing")
    command.upgrade(alembic_config(connection), "head")
    return BackupReport(schema=str(schema), rows=rows)


def _make_empty(connection: Connection) -> None:
    """Take away empty tables of ours; anything else is not ours to overwrite."""
    tables = _tables(connection)
    if MigrationContext.configure(connection).get_current_revision() is None:
        if tables:
            raise BackupError("the database holds tables of something else", hint="restore into a new database")
        return
    for table in tables:
        if connection.execute(select(table).limit(1)).first() is not None:
            raise BackupError(f"the store is not empty: {table.name}", hint="restore into a new database")
    command.downgrade(alembic_config(connection), "base")


def _read_table(connection: Connection, tables: dict[str, Table], lines: _Lines) -> tuple[str, int]:
    head = lines.take()
    table = tables.get(str(head.get("table"))) if isinstance(head, dict) else None
    if table is None or set(head.get("columns", ())) != {column.name for column in table.columns}:
        raise BackupError("the backup is damaged: not the tables of its schema")
    names = [str(name) for name in head["columns"]]
    binary = [name for name in names if isinstance(table.columns[name].type, LargeBinary)]
    count, waiting = 0, []
    while isinstance(values := lines.take(), list):
        if len(values) != len(names):
            raise BackupError("the backup is damaged: a row of another width")
        row = dict(zip(names, values, strict=True))
        for name in binary:
            if row[name] is not None:
                row[name] = base64.b64decode(row[name], validate=True)
        waiting.append(row)
        count += 1
        if len(waiting) >= _ROWS:
            connection.execute(table.insert(), waiting)
            waiting = []
    if waiting:
        connection.execute(table.insert(), waiting)
    if not isinstance(values, dict) or values.get("rows") != count:
        raise BackupError("the backup is damaged: rows are missing")
    _count_on(connection, table, values.get("last"))
    return table.name, count


def _count_on(connection: Connection, table: Table, last: Any) -> None:
    """Let a table number its next row as the table of the backup would have done."""
    if _counted(table) is None or not isinstance(last, int) or last <= 0:
        return
    if connection.dialect.name == POSTGRESQL:
        name = _sequence(connection, table)
        connection.execute(text("SELECT setval(CAST(:name AS regclass), :last)"), {"name": name, "last": last})
        return
    if not _has_sequence(connection, table):
        return  # it counts on from its largest number
    values = {"name": table.name, "last": last}
    connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), values)
    connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), values)


def _has_sequence(connection: Connection, table: Table) -> bool:
    made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table.name}).scalar()
    return "AUTOINCREMENT" in str(made).upper()
