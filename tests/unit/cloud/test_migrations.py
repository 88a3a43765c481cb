"""The migrations lead to exactly the tables of the code, on both engines, from every version and with rows in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, Table, inspect, select

from omamori_cloud.config import Limits
from omamori_cloud.errors import SchemaError, SetupError, StoreUnavailableError
from omamori_cloud.intake import Message
from omamori_cloud.store.database import (
    _MIGRATIONS,
    alembic_config,
    check_schema,
    migrate,
    newest_revision,
    open_database,
)
from omamori_cloud.store.queries import AlertQuery
from omamori_cloud.store.reader import Reader
from omamori_cloud.store.schema import Base
from omamori_cloud.store.writer import Writer

from .makers import BOTH, BOX, NOW_MS, OTHER_BOX, alert, feed_event, heartbeat, ledger_event, state

ENGINES = BOTH
REVISIONS = [script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()][::-1]

Open = Callable[[], Engine]


@pytest.fixture
def open_empty(engine_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open the one database of this test, again and again; at first it is empty."""
    engines: list[Engine] = []
    url, password_file = f"sqlite:///{tmp_path / 'deep' / 'cloud.db'}", None
    if engine_kind != "sqlite":
        server = request.getfixturevalue("postgres")
        url, password_file = server.database(), server.password_file

    def make() -> Engine:
        engines.append(open_database(url, password_file=password_file))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def empty(open_empty: Open) -> Engine:
    return open_empty()


def go_to(engine: Engine, revision: str) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        config = alembic_config(connection)
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def content(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of all tables, as the tables are now."""
    found = MetaData()
    with engine.connect() as connection:
        found.reflect(connection)
        return {
            table.name: sorted(({**row} for row in connection.execute(select(table)).mappings()), key=repr)
            for table in found.sorted_tables
            if table.name != "alembic_version"
        }


def fill(engine: Engine) -> None:
    """Put two rows into every table, whatever columns this version has."""
    found = MetaData()
    with engine.begin() as connection:
        found.reflect(connection)
        for table in found.sorted_tables:
            if table.name == "alembic_version":
                continue
            for number in (1, 2):
                connection.execute(table.insert().values(_row(table, number)))


def _row(table: Table, number: int) -> dict[str, Any]:
    special: dict[str, Any] = {
        "kind": "domain" if table.name == "reports" else 1,
        "parts": [[1, 2, "日本語 ☂"]],
        "supervisor": {"answers": True, "chip": "1.4.0", "power_kind": 3},
        "device": BOX if number == 1 else OTHER_BOX,
        "device_id": BOX if number == 1 else OTHER_BOX,
        "latest_heartbeat_id": number,
        "occurred_ms": NOW_MS + number,
        "customer_id": f"id{number}",
    }
    if table.name == "devices":
        special["id"] = special["device"]
    values: dict[str, Any] = {}
    for column in table.columns:
        if column.name in special:
            values[column.name] = special[column.name]
        elif column.primary_key and column.name == "id" and column.type.python_type is int:
            continue  # the engine counts
        elif column.type.python_type is str:
            values[column.name] = f"{column.name[:6]}{number}"
        elif column.type.python_type is bytes:
            values[column.name] = bytes([0, number, 255, 128, 1, 2, 3, 4])[: 6 if "mac" in column.name else 8]
        else:
            values[column.name] = 2**62 if column.type.python_type is int and "packets" in column.name else number
    return values


def test_from_nothing_to_the_newest_schema(empty: Engine, tmp_path: Path) -> None:
    assert migrate(empty) == (None, newest_revision())
    assert migrate(empty) == (newest_revision(), newest_revision())
    check_schema(empty)
    if empty.dialect.name == "sqlite":
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "deep").iterdir()} == {0o600}


@pytest.mark.parametrize("revision", REVISIONS)
def test_from_every_version_with_rows_in_it(empty: Engine, revision: str) -> None:
    go_to(empty, revision)
    fill(empty)
    before = content(empty)
    assert migrate(empty) == (revision, newest_revision())
    after = content(empty)
    for name, rows in before.items():
        kept = [{key: value for key, value in row.items() if key in rows[0]} for row in after[name]]
        assert sorted(kept, key=repr) == rows, name
    with empty.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    # It is not only there, it works: rows are numbered on, the old ones are found.
    bodies = [heartbeat(boot=9), state(boot=9), alert(boot=9), feed_event(boot=9), ledger_event(boot=9)]
    report = Writer(empty, Limits()).store([Message(device=BOX, body=b, received_ms=NOW_MS + 9) for b in bodies])
    assert (report.events, report.heartbeats, report.states, report.ledger, report.refusals) == (2, 1, 1, 1, 0)
    assert {box.device for box in Reader(empty).boxes()} == {BOX, OTHER_BOX}
    assert {found.seq for found in Reader(empty).alerts(AlertQuery()).alerts} >= {1, 2}


def test_the_code_and_the_migrations_agree(empty: Engine) -> None:
    migrate(empty)
    with empty.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_every_step_leads_back(empty: Engine) -> None:
    migrate(empty)
    fill(empty)
    go_to(empty, "base")
    assert inspect(empty).get_table_names() == ["alembic_version"]
    assert migrate(empty) == (None, newest_revision())


def test_programs_that_start_together_migrate_once(open_empty: Open) -> None:
    before: list[str | None] = []
    engines = [open_empty() for _ in range(4)]
    threads = [threading.Thread(target=lambda one=one: before.append(migrate(one)[0])) for one in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(before, key=str) == [newest_revision()] * 3 + [None]


def test_a_database_of_a_newer_program_is_left_alone(empty: Engine) -> None:
    migrate(empty)
    with empty.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError) as caught:
        migrate(empty)
    assert "newer" in caught.value.hint
    with pytest.raises(SchemaError):
        check_schema(empty)


def test_an_empty_database_is_not_ready_to_read(empty: Engine) -> None:
    with pytest.raises(SchemaError) as caught:
        check_schema(empty)
    assert "omamori-cloud migrate" in caught.value.hint


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "cloud.db").write_bytes(b"this is not a database, whatever its name says" * 100)
    engine = open_database(f"sqlite:///{tmp_path / 'cloud.db'}")
    with pytest.raises(StoreUnavailableError):
        migrate(engine)
    engine.dispose()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    engine = open_database(f"postgresql+psycopg://omamori@/omamori?host={tmp_path}")
    with pytest.raises(StoreUnavailableError):
        migrate(engine)


class TestPassword:
    """It comes from a file, and is shown nowhere."""

    SECRET = "correct horse battery staple"

    @pytest.mark.parametrize("url", ["postgresql+psycopg://u:{}@h/d", "postgresql+psycopg://u@h/d?password={}"])
    def test_not_in_the_url(self, url: str) -> None:
        with pytest.raises(SetupError) as caught:
            open_database(url.format("hunter2"))
        assert "hunter2" not in f"{caught.value} {caught.value.hint}"

    def test_a_wrong_one_is_not_told(self, postgres: Any, tmp_path: Path) -> None:
        path = tmp_path / "password"
        path.write_text(self.SECRET)
        engine = open_database(postgres.database(), password_file=path)
        with pytest.raises(StoreUnavailableError) as caught:
            migrate(engine)
        assert self.SECRET not in f"{caught.value} {caught.value.__cause__} {engine.url} {engine}"

    def test_a_new_one_is_taken_while_we_run(self, postgres: Any, tmp_path: Path) -> None:
        path = tmp_path / "password"
        path.write_text("of yesterday\n")
        engine = open_database(postgres.database(), password_file=path)
        with pytest.raises(StoreUnavailableError):
            migrate(engine)
        path.write_text(postgres.password_file.read_text())
        assert migrate(engine) == (None, newest_revision())
        engine.dispose()

    @pytest.mark.parametrize("data", [b"", b"\n", b"\xff", b"x" * 1025])
    def test_a_file_without_one(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "password").write_bytes(data)
        with pytest.raises(SetupError):
            open_database("postgresql+psycopg://u@h/d", password_file=tmp_path / "password")

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(SetupError):
            open_database("postgresql+psycopg://u@h/d", password_file=tmp_path / "nothing")
