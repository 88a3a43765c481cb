"""A real PostgreSQL that tests throw away, with as many databases as they like.

It asks for a password, as the product's does, and its disk is not waited for: no test cuts its power.
"""

from __future__ import annotations

import itertools

import psycopg
import pytest
from psycopg import sql

from omamori_lab.errors import SetupError
from omamori_lab.throwaway_postgres import USER, ThrowawayPostgres

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",  # the product must not accept this default
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "512MB",
    "log_min_messages": "warning",
    "lc_messages": "C",
}


class Postgres:
    """One server; `database` makes databases in it."""

    def __init__(self) -> None:
        try:
            self._server = ThrowawayPostgres(_SETTINGS)
        except SetupError as err:
            pytest.skip(str(err))
        self.password_file = self._server.password_file
        self._numbers = itertools.count(1)
        self._server.__enter__()

    def url(self, name: str) -> str:
        """Return the URL of a database, without the password."""
        return self._server.database_url(name)

    def database(self, template: str = "template0") -> str:
        """Make a database, and return its URL."""
        name = f"test{next(self._numbers)}"
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with psycopg.connect(
            host=str(self._server.folder),
            user=USER,
            password=self.password_file.read_text().strip(),
            dbname="postgres",
            autocommit=True,
        ) as connection:
            connection.execute(command.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def log(self) -> str:
        return (self._server.folder / "log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        self._server.__exit__(None, None, None)
