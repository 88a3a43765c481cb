"""The only module of the agent that starts processes.

A command is a list of arguments (no shell), has a time limit, a bounded output and dies with its whole group when
the limit is over or the agent stops. Nothing secret may be given as an argument.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import subprocess  # noqa: TID251 - this is the module that may
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import AgentError

_POLL_S = 0.2


class CommandError(AgentError):
    """A command could not be started, or did not end in time.

    Attributes:
        command: The program's name.
    """

    def __init__(self, command: str, what: str) -> None:
        super().__init__(f"{command}: {what}")
        self.command = command


class CommandInterruptedError(CommandError):
    """The agent is stopping; the command was killed."""


@dataclasses.dataclass(frozen=True)
class CommandResult:
    """How a command ended; `output` is the tail of its standard output and error."""

    exit_code: int
    output: str


def run(
    args: Sequence[str],
    *,
    timeout_s: float,
    stop: threading.Event | None = None,
    max_output_bytes: int = 65536,
    is_first_to_go: bool = False,
) -> CommandResult:
    """Run a command to its end.

    Args:
        args: Program and arguments.
        timeout_s: Seconds after which the command and its children are killed.
        stop: When set meanwhile, the command is killed within a fraction of a second.
        max_output_bytes: How much of the end of its output is kept.
        is_first_to_go: When memory ends, the kernel shall kill this command before anything else.

    Returns:
        Exit code (negative: killed by that signal) and the tail of the output.

    Raises:
        CommandError: It could not be started or exceeded its time.
        CommandInterruptedError: `stop` was set.
    """
    try:
        process = subprocess.Popen(
            list(args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as err:
        raise CommandError(args[0], err.strerror or str(err)) from err
    if is_first_to_go:
        with contextlib.suppress(OSError):  # it has ended already
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000")
    with process:
        try:
            tail = _collect(process, args[0], time.monotonic() + timeout_s, stop, max_output_bytes)
        except BaseException:
            _kill_group(process)
            raise
    return CommandResult(process.returncode, tail.decode(errors="replace"))


def _collect(
    process: subprocess.Popen[bytes], name: str, deadline: float, stop: threading.Event | None, max_bytes: int
) -> bytes:
    assert process.stdout is not None
    tail = bytearray()
    reading = True
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while reading or process.poll() is None:
            if stop is not None and stop.is_set():
                raise CommandInterruptedError(name, "killed, the agent is stopping")
            if time.monotonic() >= deadline:
                raise CommandError(name, "did not end in time")
            if not reading:
                time.sleep(_POLL_S / 10)
            elif selector.select(_POLL_S):
                chunk = os.read(process.stdout.fileno(), 65536)
                tail += chunk
                del tail[:-max_bytes]
                reading = bool(chunk)
    return bytes(tail)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
