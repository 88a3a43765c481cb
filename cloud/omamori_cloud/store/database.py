"""Opens the database and brings it to the newest schema. Knows no table's meaning.

A message is acknowledged after its transaction, and a power cut must not take back what was acknowledged. Therefore
SQLite is opened with `synchronous=FULL` (and a write-ahead log, so that readers never wait for the writer), and a
PostgreSQL whose default is to commit before the disk has it is told otherwise.

A password never stands in the URL, which is shown and logged: it comes from a file, which is read at every connection,
so that it can be changed while the cloud runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool, Pool

from omamori_cloud.errors import SchemaError, SetupError, StoreUnavailableError
from omamori_protocol.durable import make_private_file

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 10
_MAX_PASSWORD_BYTES = 1024
_POSTGRESQL_OPTIONS = f"-c lock_timeout={_BUSY_TIMEOUT_S}s -c idle_in_transaction_session_timeout=10min"
# A line that died silently is noticed, instead of waiting for an answer for hours.
_POSTGRESQL_LINE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
_MIGRATION_LOCK = 0x6F6D616D  # "omam": any number that nobody else uses
POSTGRESQL = "postgresql"
_OLDEST_POSTGRESQL = 130_000


def open_database(url: str, *, password_file: Path | None = None, lasting: bool = True) -> Engine:
    """Return an engine for `url`; nothing is connected yet, except that SQLite's file is made.

    Args:
        url: ``sqlite:////path`` or ``postgresql+psycopg://user@host/name``; libpq's parameters (``sslmode`` …) may
            follow.
        password_file: Holds PostgreSQL's password, in its first line.
        lasting: Keep connections for the next question; a command that asks once does without.

    Raises:
        SetupError: The URL is malformed, has a password, its driver is not installed, or the file cannot be made.
    """
    pool = None if lasting else NullPool
    try:
        parsed = make_url(url)
        if parsed.password is not None or "password" in parsed.query:
            raise SetupError("database: the URL holds a password", hint="put it into a file: database.password_file")
        if parsed.get_backend_name() == POSTGRESQL:
            return _open_postgresql(parsed, password_file, pool)
        if parsed.get_backend_name() != "sqlite":
            raise SetupError(
                "database: neither SQLite nor PostgreSQL", hint="sqlite:////path or postgresql+psycopg://…"
            )
        if parsed.database in (None, "", ":memory:"):
            raise SetupError("database: an SQLite URL without a file", hint="sqlite:////path/to/cloud.db")
        _make_place(Path(str(parsed.database)))
        engine = create_engine(parsed, poolclass=pool, connect_args={"timeout": _BUSY_TIMEOUT_S})
    except (ArgumentError, NoSuchModuleError) as err:
        raise SetupError("database: the URL is not usable", hint="sqlite:////path or postgresql+psycopg://…") from err
    except ModuleNotFoundError as err:
        raise SetupError(f"database: the driver {err.name} is not installed") from err
    except OSError as err:
        raise SetupError(f"database: {err}") from err
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_postgresql(url: URL, password_file: Path | None, pool: type[Pool] | None) -> Engine:
    arguments = {"connect_timeout": _CONNECT_TIMEOUT_S, "options": _POSTGRESQL_OPTIONS, **_POSTGRESQL_LINE}
    arguments |= {"application_name": "omamori-cloud", "client_encoding": "utf8"}
    given = {name: value for name, value in arguments.items() if name not in url.query}
    if password_file is not None:
        _read_password(password_file)  # say at the start what is wrong with it
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"), poolclass=pool, pool_pre_ping=pool is None, connect_args=given
    )

    @event.listens_for(engine, "do_connect")
    def _add_password(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        if password_file is not None:
            parameters["password"] = _read_password(password_file)

    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _read_password(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PASSWORD_BYTES + 1)
        password = data.decode().split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as err:
        raise SetupError(f"database.password_file: {path} cannot be read: {type(err).__name__}") from err
    if not password or len(data) > _MAX_PASSWORD_BYTES:
        raise SetupError(f"database.password_file: {path} holds no password of at most {_MAX_PASSWORD_BYTES} bytes")
    return password


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    cursor.execute("SELECT current_setting('server_encoding'), current_setting('server_version_num')::int")
    encoding, version = cursor.fetchone()
    cursor.close()
    connection.commit()
    if encoding != "UTF8" or version < _OLDEST_POSTGRESQL:
        raise SetupError(
            f"database: PostgreSQL {version // 10000} with encoding {encoding}", hint="needed: 13 or newer, UTF8"
        )


def _make_place(path: Path) -> None:
    # What boxes say is their owner's business. SQLite gives its side files the same mode.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_private_file(path)


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


def migrations_directory() -> Path:
    """Return where the steps from schema to schema are."""
    return _MIGRATIONS


def lock_migrations(connection: Connection) -> None:
    """Wait until no other program changes the schema; SQLite has only one writer anyway."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def alembic_config(connection: Connection) -> Config:
    """Return what Alembic's commands need to work in the transaction of a connection."""
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
            lock_migrations(connection)
            before = MigrationContext.configure(connection).get_current_revision()
            command.upgrade(alembic_config(connection), "head")
    except CommandError as err:
        raise SchemaError(f"database: {err}", hint="this database was used by a newer omamori-cloud") from err
    except DBAPIError as err:
        raise StoreUnavailableError(f"database: {str(err.orig)[:200]}") from err
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
        raise StoreUnavailableError(f"database: {str(err.orig)[:200]}") from err
    if current != newest_revision():
        raise SchemaError(
            f"database: schema {current or 'none'}, needed {newest_revision()}", hint="run: omamori-cloud migrate"
        )
