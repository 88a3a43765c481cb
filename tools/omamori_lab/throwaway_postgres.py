"""A PostgreSQL of our own, to be thrown away: unprivileged user, unix socket, its disk waited for as in earnest."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from .errors import SetupError
from .run import end, run, spawn
from .waiting import wait_for

USER = "omamori"
_INSTALLED = Path("/usr/lib/postgresql")
_START_S = 60.0


class ThrowawayPostgres:
    """A server with one database, from `with` to its end.

    Attributes:
        folder: Where it is, its socket and its log.
        url: Of the database, without the password.
        password_file: Holds the password.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """Find the programs.

        Args:
            settings: Of the server, by their names.

        Raises:
            SetupError: PostgreSQL is not installed.
        """
        found = sorted(_INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        if not found:
            raise SetupError("PostgreSQL is not installed", hint="make setup")
        self._programs = found[-1].parent
        self._settings = {"listen_addresses": "", **(settings or {})}
        self.folder = Path(tempfile.mkdtemp(prefix="omamori-pg-"))
        self.password_file = self.folder / "password"
        self.url = self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """Return the URL of one of its databases, without the password."""
        return f"postgresql+psycopg://{USER}@/{name}?host={self.folder}"

    @property
    def pid(self) -> int:
        """Number of the server's process."""
        return self._process.pid

    def __enter__(self) -> Self:
        """Make the cluster and start it."""
        self.password_file.write_text(secrets.token_hex(16) + "\n")
        self.password_file.chmod(0o600)
        drop: list[str | Path] = ["setpriv", "--pdeathsig=INT"]
        if os.geteuid() == 0:
            for path in (self.folder, self.password_file):
                shutil.chown(path, "nobody", "nogroup")
            drop += ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        data = self.folder / "data"
        options = [f"--username={USER}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        line: list[str | Path] = [
            *drop,
            self._programs / "initdb",
            "-D",
            data,
            f"--pwfile={self.password_file}",
            *options,
        ]
        run(line, timeout_s=_START_S)
        self._log = (self.folder / "log").open("ab")
        server: list[str | Path] = [*drop, self._programs / "postgres", "-D", data, "-k", self.folder]
        server += [f"--{name}={value}" for name, value in self._settings.items()]
        self._process = spawn(server, log=self._log)
        ready: list[str | Path] = [self._programs / "pg_isready", "-q", "-h", self.folder]
        wait_for(lambda: run(ready, timeout_s=10, check=False).ok, "PostgreSQL", timeout_s=_START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """End it, and take everything away."""
        end(self._process, sig=signal.SIGINT, grace_s=20)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
