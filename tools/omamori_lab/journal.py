"""What a lab has started, written down before or at the start of each thing, so that nothing is ever orphaned.

A lab ends what it started by itself. Only when it was killed hard does this record matter: `omamori-lab clean` reads
it and ends what is left. A process counts as ours only if its id still has the start time that was noted; a namespace
only by the name with the run's random id. Nothing is ever found by guessing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omamori_protocol.durable import write_atomic

from .errors import SetupError

NETNS = Path("/run/netns")
_RUN_ID = re.compile(r"[0-9a-f]{6}")
_MAX_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class ProcessMark:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    start_ticks: int
    name: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_ticks(self.pid) == self.start_ticks


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is none or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Journal:
    """The record of one state directory; safe to use from several threads."""

    def __init__(self, state: Path) -> None:
        self._path = state / "journal.json"
        self._lock = threading.Lock()
        self._processes: dict[int, ProcessMark] = {}
        self._namespaces: list[str] = []
        self.run_id = secrets.token_hex(3)

    def add_process(self, pid: int, name: str) -> None:
        """Note a process that was just started."""
        ticks = start_ticks(pid)
        if ticks is not None:
            with self._lock:
                self._processes[pid] = ProcessMark(pid, ticks, name)
                self._write()

    def remove_process(self, pid: int) -> None:
        """Forget a process that has ended."""
        with self._lock:
            self._processes.pop(pid, None)
            self._write()

    def add_namespace(self, name: str) -> None:
        """Note a namespace that is about to be made."""
        with self._lock:
            self._namespaces.append(name)
            self._write()

    def remove_namespace(self, name: str) -> None:
        """Forget a namespace that was deleted."""
        with self._lock:
            self._namespaces.remove(name)
            self._write()

    def close(self) -> None:
        """Remove the record once nothing is left in it."""
        with self._lock:
            if not self._processes and not self._namespaces:
                self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        body = {
            "format": 1,
            "run": self.run_id,
            "processes": [dataclasses.asdict(mark) for mark in self._processes.values()],
            "namespaces": self._namespaces,
        }
        write_atomic(self._path, (json.dumps(body, indent=1) + "\n").encode())


@contextlib.contextmanager
def owned(state: Path) -> Iterator[None]:
    """Hold a state directory for one lab.

    Raises:
        SetupError: Another lab holds it.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise SetupError(
                f"another lab is running in {state}", hint="end it with Ctrl-C, or use another --state directory"
            ) from err
        yield


@dataclasses.dataclass(frozen=True)
class Leftovers:
    """What a dead lab left behind."""

    processes: tuple[ProcessMark, ...] = ()
    namespaces: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.processes or self.namespaces)


def read_leftovers(state: Path) -> Leftovers:
    """Read the record of a state directory and keep what still exists and is provably of that lab.

    Raises:
        SetupError: The record is not one of ours.
    """
    path = state / "journal.json"
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return Leftovers()
    hint = f"look at it, then delete {path}"
    if len(data) > _MAX_BYTES:
        raise SetupError(f"{path}: more than {_MAX_BYTES} bytes", hint=hint)
    try:
        return _existing(json.loads(data))
    except (ValueError, KeyError, TypeError) as err:
        raise SetupError(f"{path}: not a lab's journal: {err}", hint=hint) from err


def _existing(body: dict[str, Any]) -> Leftovers:
    run_id = str(body["run"])
    if body["format"] != 1 or not _RUN_ID.fullmatch(run_id):
        raise ValueError("unknown format")
    marks = [ProcessMark(int(p["pid"]), int(p["start_ticks"]), str(p["name"])) for p in body["processes"]]
    names = [str(name) for name in body["namespaces"]]
    foreign = [name for name in names if not name.startswith(f"om{run_id}-") or "/" in name]
    if foreign:
        raise ValueError(f"namespace {foreign[0][:40]!r} is not of run {run_id}")
    return Leftovers(
        tuple(mark for mark in marks if mark.alive),
        tuple(name for name in names if (NETNS / name).exists()),
    )


def processes_inside(namespace: str) -> list[ProcessMark]:
    """Return the processes that run in a named network namespace."""
    try:
        identity = (NETNS / namespace).stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            there = (entry / "ns/net").stat()
            ticks = start_ticks(int(entry.name))
            if (there.st_dev, there.st_ino) == (identity.st_dev, identity.st_ino) and ticks is not None:
                found.append(ProcessMark(int(entry.name), ticks, (entry / "comm").read_text().strip()))
    return found


def end_process(mark: ProcessMark, *, grace_s: float = 5.0) -> None:
    """End a process that is not our child: ask, wait, kill; does nothing if the id means another process by now."""
    try:
        handle = os.pidfd_open(mark.pid)
    except ProcessLookupError:
        return
    try:
        if not mark.alive:
            return
        for sig, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, sig)
            deadline = time.monotonic() + patience_s
            while mark.alive and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        os.close(handle)
