"""Opens the database and brings it to the newest schema. Knows no table's meaning.

SQLite is opened with a write-ahead log, so that readers never wait for the writer, and with `synchronous=FULL`: a
message is acknowledged after its transaction, and a power cut must not take back what was acknowledged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from omamori_cloud.errors import SchemaError, SetupError, StoreUnavailableError

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_S = 10


def open_database(url: str) -> Engine:
    """Return an engine for `url`; nothing is connected yet, except that SQLite's file is made.

    Raises:
        SetupError: The URL is malformed, its driver is not installed, or the file cannot be made.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, pool_pre_ping=True)
        if parsed.database in (None, "", ":memory:"):
            raise SetupError("database: an SQLite URL without a file", hint="sqlite:////path/to/cloud.db")
        _make_private_file(Path(str(parsed.database)))
        engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_S})
    except (ArgumentError, NoSuchModuleError) as err:
        raise SetupError("database: the URL is not usable", hint="sqlite:////path or postgresql+psycopg://…") from err
    except ModuleNotFoundError as err:
        raise SetupError(f"database: the driver {err.name} is not installed") from err
    except OSError as err:
        raise SetupError(f"database: {err}") from err
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private_file(path: Path) -> None:
    # What boxes say is their owner's business. SQLite gives its side files the same mode.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver would only do it before a change
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer that starts reading and then writes may fail half-way when another one wrote meanwhile: it says so.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """Return the name of the newest schema that this program brings with it."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    if head is None:
        raise SchemaError("the migrations are missing from the installation")
    return head


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring the database to the newest schema, all or nothing.

    Returns:
        The revision before (None: it was empty) and after.

    Raises:
        SchemaError: It was made by a newer program.
        StoreUnavailableError: It cannot be opened or changed now.
    """
    try:
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            before = MigrationContext.configure(connection).get_current_revision()
            command.upgrade(_alembic_config(connection), "head")
    except CommandError as err:
        raise SchemaError(f"database: {err}", hint="this database was used by a newer omamori-cloud") from err
    except DBAPIError as err:
        raise StoreUnavailableError(f"database: {err.orig}") from err
    return before, newest_revision()


def check_schema(engine: Engine) -> None:
    """Make sure that the database is at the newest schema, changing nothing.

    Raises:
        SchemaError: It is not.
        StoreUnavailableError: It cannot be opened now.
    """
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as err:
        raise StoreUnavailableError(f"database: {err.orig}") from err
    if current != newest_revision():
        raise SchemaError(
            f"database: schema {current or 'none'}, needed {newest_revision()}", hint="run: omamori-cloud migrate"
        )
