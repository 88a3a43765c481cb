"""Fixtures of the cloud's unit tests.

A module that says `ENGINES = BOTH` has all its tests of the store run on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from omamori_cloud.store.database import migrate, open_database
from omamori_cloud.store.schema import Base
from sim.postgres import Postgres

from .makers import BOTH, Bench, OpenElsewhere

SQLITE = "sqlite"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine_kind" in metafunc.fixturenames:
        metafunc.parametrize("engine_kind", getattr(metafunc.module, "ENGINES", (SQLITE,)))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at the newest schema, to be copied."""
    path = tmp_path_factory.mktemp("template") / "cloud.db"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    """The URL of a database at the newest schema; whoever takes it empties it first."""
    url = postgres.database()
    engine = open_database(url, password_file=postgres.password_file)
    migrate(engine)
    engine.dispose()
    return url


@pytest.fixture
def make_bench(
    engine_kind: str, tmp_path: Path, sqlite_template: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Bench]]:
    """Open the one store of this test, at first empty, with these limits; may be called again."""
    made: list[Bench] = []
    url, password_file = f"sqlite:///{tmp_path / 'cloud.db'}", None
    if engine_kind == SQLITE:
        shutil.copy(sqlite_template, tmp_path / "cloud.db")
    else:
        url = request.getfixturevalue("postgres_template")
        password_file = request.getfixturevalue("postgres").password_file
        engine = open_database(url, password_file=password_file)
        with engine.begin() as connection:
            tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        engine.dispose()

    def make(**limits: int) -> Bench:
        made.append(Bench(tmp_path, url=url, password_file=password_file, **limits))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """An empty store."""
    return make_bench()


@pytest.fixture(params=BOTH)
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenElsewhere]:
    """Open a database that does not exist yet; each time another one."""
    engines: list[Engine] = []

    def make() -> Engine:
        if request.param == "sqlite":
            engines.append(open_database(f"sqlite:///{tmp_path / f'elsewhere{len(engines)}.db'}"))
        else:
            server = request.getfixturevalue("postgres")
            engines.append(open_database(server.database(), password_file=server.password_file))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
