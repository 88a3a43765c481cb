"""The migrations lead to exactly the tables of the code."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from omamori_cloud.errors import SchemaError, StoreUnavailableError
from omamori_cloud.store.database import _alembic_config, check_schema, migrate, newest_revision, open_database
from omamori_cloud.store.schema import Base


def test_from_nothing_to_the_newest_schema(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'deep' / 'cloud.db'}")
    assert migrate(engine) == (None, newest_revision())
    assert migrate(engine) == (newest_revision(), newest_revision())
    check_schema(engine)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "deep").iterdir()} == {0o600}
    engine.dispose()


def test_the_code_and_the_migrations_agree(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'cloud.db'}")
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_every_step_leads_back(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'cloud.db'}")
    migrate(engine)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        command.downgrade(_alembic_config(connection), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert migrate(engine) == (None, newest_revision())
    engine.dispose()


def test_a_database_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'cloud.db'}")
    migrate(engine)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError) as caught:
        migrate(engine)
    assert "newer" in caught.value.hint
    with pytest.raises(SchemaError):
        check_schema(engine)
    engine.dispose()


def test_an_empty_database_is_not_ready_to_read(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'cloud.db'}")
    with pytest.raises(SchemaError) as caught:
        check_schema(engine)
    assert "omamori-cloud migrate" in caught.value.hint
    engine.dispose()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "cloud.db").write_bytes(b"this is not a database, whatever its name says" * 100)
    engine = open_database(f"sqlite:///{tmp_path / 'cloud.db'}")
    with pytest.raises(StoreUnavailableError):
        migrate(engine)
    engine.dispose()


def test_postgresql_can_hold_the_same_tables() -> None:
    dialect = postgresql.dialect()
    for table in Base.metadata.sorted_tables:
        ddl = str(CreateTable(table).compile(dialect=dialect))
        assert "BIGINT" in ddl
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))
    events = str(CreateTable(Base.metadata.tables["events"]).compile(dialect=dialect))
    assert "id BIGSERIAL NOT NULL" in events
    assert "terminal_mac BYTEA" in events
