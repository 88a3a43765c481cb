"""The only door to other programs: list arguments, time-out, captured output, typed failure.

It knows nothing of namespaces; `namespace` builds the argument lists that enter one. Children get a session of their
own, so that a Ctrl-C in the terminal reaches the lab alone and the lab ends them in its own order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess  # noqa: TID251 - this module is the package's one place that starts processes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from .errors import CommandError, SetupError

Process = subprocess.Popen[bytes]
_GRACE_S = 5.0


@dataclasses.dataclass(frozen=True)
class Finished:
    """How a program ended; `exit_code` is None when it ran out of time."""

    exit_code: int | None
    output: str
    errors: str

    @property
    def ok(self) -> bool:
        """Whether it ended with status 0."""
        return self.exit_code == 0


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    check: bool = True,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> Finished:
    """Run a program to its end.

    Args:
        argv: The program and its arguments.
        timeout_s: Seconds after which it is killed.
        check: Raise when it fails; otherwise the caller looks at the result.
        stdin: Its standard input.
        env: Variables added to our environment.
        hint: What to tell a person if it fails.

    Raises:
        SetupError: The program is not installed.
        CommandError: It failed or took too long, and `check` is set.
    """
    process = _start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    code: int | None
    try:
        output, errors = process.communicate((stdin or "").encode(), timeout=timeout_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _kill_session(process)
        output, errors = process.communicate()
        code = None
    except BaseException:
        _kill_session(process)
        process.communicate()
        raise
    finished = Finished(code, output.decode(errors="replace"), errors.decode(errors="replace"))
    if check and not finished.ok:
        raise CommandError(_name(argv), code, finished.errors or finished.output, hint=hint)
    return finished


def run_showing(argv: Sequence[str | Path], *, timeout_s: float, hint: str | None = None) -> None:
    """Run a program that reports its own progress on our standard error.

    Raises:
        SetupError: The program is not installed.
        CommandError: It failed or took too long.
    """
    process = _start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=None)
    code: int | None
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _kill_session(process)
        code = None
    except BaseException:
        end(process)
        raise
    if code != 0:
        raise CommandError(_name(argv), code, "", hint=hint)


def spawn(
    argv: Sequence[str | Path],
    *,
    log: IO[bytes],
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a long-lived program; its output goes to `log`.

    Raises:
        SetupError: The program is not installed.
    """
    return _start(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, pass_fds=pass_fds)


def end(process: Process, *, sig: signal.Signals = signal.SIGTERM, grace_s: float = _GRACE_S) -> int:
    """Ask a program of ours to end, kill it when it does not, and return its status."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(sig)
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        _kill_session(process)
        return process.wait()


def require(*programs: str) -> None:
    """Check that programs are installed.

    Raises:
        SetupError: One is not.
    """
    missing = [name for name in programs if shutil.which(name, path=_search_path()) is None]
    if missing:
        raise SetupError(f"not installed: {', '.join(missing)}", hint="run: make setup")


def _name(argv: Sequence[str | Path]) -> str:
    """Return the program that matters: the one after the words that enter a namespace."""
    words = [str(word) for word in argv]
    return Path(words[words.index("--") + 1] if "--" in words[:-1] else words[0]).name


def _search_path() -> str:
    path = os.environ.get("PATH", "")
    return path if "/usr/sbin" in path.split(":") else f"{path}:/usr/sbin:/sbin"


def _kill_session(process: Process) -> None:
    """Kill a child and what it started; the child leads its own session, so the group is ours."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _start(
    argv: Sequence[str | Path],
    *,
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int | None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    words = [str(word) for word in argv]
    try:
        return subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "PATH": _search_path(), **(env or {})},
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as err:
        raise SetupError(f"not installed: {words[0]}", hint="run: make setup") from err
