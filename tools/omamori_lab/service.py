"""One server of the lab: started inside a namespace, ready when a probe says so, ended by its id."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import LabError, NotReadyError
from .journal import Journal
from .run import Process, end, spawn
from .waiting import wait_for

_LOG_TAIL_BYTES = 2000


class Service:
    """A server process with a log.

    Args:
        name: For messages, the journal and the log's file name.
        argv: Complete argument list, namespace included.
        logs: Directory of the log.
        journal: Where its id is noted.
        ready: Says whether it serves.
        pass_fds: Descriptors it inherits.
        env: Variables added to its environment.
        start_timeout_s: How long it may take until it is ready.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        logs: Path,
        journal: Journal,
        ready: Callable[[], bool],
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._argv = argv
        self._journal = journal
        self._ready = ready
        self._pass_fds = pass_fds
        self._env = env
        self._start_timeout_s = start_timeout_s
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            LabError: It ended at once.
            NotReadyError: It did not become ready.
        """
        with self.log.open("ab") as log:
            self._process = spawn(self._argv, log=log, pass_fds=self._pass_fds, env=self._env)
        self._journal.add_process(self._process.pid, self.name)
        try:
            wait_for(self._probe, f"{self.name} serving", timeout_s=self._start_timeout_s, detail=self.log_tail)
        except NotReadyError:
            self.stop()
            raise

    def stop(self, *, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it; does nothing if it does not run."""
        if self._process is not None:
            process, self._process = self._process, None
            end(process, sig=sig)
            self._journal.remove_process(process.pid)

    def log_tail(self) -> str:
        """Return the last lines of its log."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return ""

    def _probe(self) -> bool:
        process = self._process
        if process is None or process.poll() is not None:
            code = None if process is None else process.returncode
            raise LabError(f"{self.name} ended with status {code}:\n{self.log_tail().strip()}")
        return self._ready()
