"""A PostgreSQL of our own for a bench: unprivileged user, unix socket, its disk waited for as in earnest."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import types
from pathlib import Path
from typing import Self

from .errors import SetupError
from .run import end, run, spawn
from .waiting import wait_for

_INSTALLED = Path("/usr/lib/postgresql")
_START_S = 60.0


class ThrowawayPostgres:
    """A server with one database, from `with` to its end.

    Attributes:
        url: Of the database, without the password.
        password_file: Holds the password.
    """

    def __init__(self) -> None:
        """Find the programs.

        Raises:
            SetupError: PostgreSQL is not installed.
        """
        found = sorted(_INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        if not found:
            raise SetupError("PostgreSQL is not installed", hint="make setup")
        self._programs = found[-1].parent
        self._folder = Path(tempfile.mkdtemp(prefix="omamori-pg-"))
        self.password_file = self._folder / "password"
        self.url = f"postgresql+psycopg://omamori@/postgres?host={self._folder}"

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
            for path in (self._folder, self.password_file):
                shutil.chown(path, "nobody", "nogroup")
            drop += ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        data = self._folder / "data"
        options = ["--username=omamori", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        line: list[str | Path] = [
            *drop,
            self._programs / "initdb",
            "-D",
            data,
            f"--pwfile={self.password_file}",
            *options,
        ]
        run(line, timeout_s=_START_S)
        self._log = (self._folder / "log").open("ab")
        server: list[str | Path] = [
            *drop,
            self._programs / "postgres",
            "-D",
            data,
            "-k",
            self._folder,
            "-c",
            "listen_addresses=",
        ]
        self._process = spawn(server, log=self._log)
        ready: list[str | Path] = [self._programs / "pg_isready", "-q", "-h", self._folder]
        wait_for(lambda: run(ready, timeout_s=10, check=False).ok, "PostgreSQL", timeout_s=_START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """End it, and take everything away."""
        end(self._process, sig=signal.SIGINT, grace_s=20)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)
