"""A real PostgreSQL that tests throw away: its own cluster, an unprivileged user, a unix socket and nothing else.

It asks for a password, as the product's does, and its disk is not waited for: no test cuts its power.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess  # noqa: TID251 - runs the server
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

PASSWORD = "not a secret: of a test's own server"
_USER = "omamori"
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",  # the product must not accept this default
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "512MB",
    "log_min_messages": "warning",
    "lc_messages": "C",
}


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("postgresql is not installed")
    return found[-1].parent


class Postgres:
    """One server; `database` makes databases in it."""

    def __init__(self) -> None:
        programs = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="omamori-pg-"))
        self.password_file = self.folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        self._numbers = itertools.count(1)
        self._as_nobody: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody", "nogroup")
            shutil.chown(self.password_file, "nobody", "nogroup")
            self._as_nobody = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        data = self.folder / "data"
        line = [
            programs / "initdb", "--pgdata", data, "--username", _USER, "--auth-local=scram-sha-256", "--no-sync",
            "--pwfile", self.password_file, "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions",
        ]  # fmt: skip
        made = subprocess.run(
            ["setpriv", *self._as_nobody, *line], capture_output=True, text=True, timeout=100, cwd="/", check=False
        )
        assert made.returncode == 0, made.stdout + made.stderr
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        self._log = (self.folder / "log").open("ab")
        # It ends with whoever started it, however that ends.
        self._server = subprocess.Popen(
            [
                "setpriv", *self._as_nobody, "--pdeathsig=INT", programs / "postgres",
                "-D", data, "-k", self.folder, *settings,
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd="/",
        )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError:
                assert self._server.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.05)

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user=_USER, password=PASSWORD, dbname="postgres", autocommit=True)

    def url(self, name: str) -> str:
        """Return the URL of a database, without the password."""
        return f"postgresql+psycopg://{_USER}@/{name}?host={self.folder}"

    def database(self, template: str = "template0") -> str:
        """Make a database, and return its URL."""
        name = f"test{next(self._numbers)}"
        with self._connect() as connection:
            command = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(command.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        self._server.send_signal(signal.SIGINT)  # without waiting for whoever is still connected
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(20)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
