"""The box's serial console: followed line by line, logged with time stamps, waited on, and mirrored.

QEMU's pty changes with every power-on and has room for one reader. So one thread reads it and repeats everything on a
pty of the lab that stays the same, the *mirror*: a terminal program or a test's serial service can sit there through
power cuts. What is typed into the mirror goes to the box. Without a reader the mirror costs nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import select
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path

from .errors import BoxError, NotReadyError

_ANSI = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # commands to the terminal
    r"|\x1b[()][A-Z0-9]|\x1b[=>78cM]|[\x00-\x08\x0b-\x1f]"
)
_MAX_LINES = 50_000
_MAX_PART = 4096
_POLL_MS = 50
_TAIL_LINES = 12


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the console; `at_s` is monotonic time of its arrival."""

    at_s: float
    text: str


class LineBuffer:
    """Cuts a stream of bytes into clean lines; overlong ones are cut into pieces."""

    def __init__(self) -> None:
        self._part = b""

    def feed(self, data: bytes) -> list[str]:
        """Take bytes, return the lines that are complete by now."""
        *complete, self._part = (self._part + data).split(b"\n")
        if len(self._part) > _MAX_PART:
            complete.append(self._part)
            self._part = b""
        return [_ANSI.sub("", line.decode(errors="replace")).rstrip() for line in complete]


class Console:
    """The console over all power cycles of one box.

    Args:
        log: File that receives every line.
        on_line: Told every line.
    """

    def __init__(self, log: Path, on_line: Callable[[str], None] = lambda _: None) -> None:
        self._on_line = on_line
        self._log = log.open("a", encoding="utf-8")
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._dropped = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.mirror = os.ttyname(slave)
        os.close(slave)

    def attach(self, pty: str) -> None:
        """Follow a pty from now on."""
        handle = os.open(pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        tty.setraw(handle)
        self._ended.clear()
        self._thread = threading.Thread(target=self._follow, args=(handle,), name="console", daemon=True)
        self._thread.start()

    def detach(self) -> None:
        """Stop following."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop following and remove the mirror."""
        self.detach()
        os.close(self._master)
        self._log.close()

    def mark(self) -> int:
        """Return the present end, for `wait` and `since`."""
        with self._changed:
            return self._dropped + len(self._lines)

    def since(self, mark: int) -> list[Line]:
        """Return the lines after a mark."""
        with self._changed:
            return self._lines[max(0, mark - self._dropped) :]

    def wait(
        self, pattern: str, *, timeout_s: float, since: int = 0, alive: Callable[[], bool] = lambda: True
    ) -> tuple[Line, re.Match[str]]:
        """Wait for a line that matches.

        Args:
            pattern: Regular expression, searched in each line.
            timeout_s: Seconds to wait at most.
            since: Mark after which lines count.
            alive: Says whether more lines can come at all.

        Raises:
            NotReadyError: No such line came in time.
            BoxError: The box died first.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        seen = since
        while True:
            with self._changed:
                fresh = self._lines[max(0, seen - self._dropped) :]
                seen = self._dropped + len(self._lines)
                if not fresh:
                    self._changed.wait(0.2)
            for line in fresh:
                if match := wanted.search(line.text):
                    return line, match
            if not fresh and not alive():
                raise BoxError(f"the box ended before the console said {pattern!r}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise NotReadyError(f"console line {pattern!r}", timeout_s, detail=self.tail())

    def tail(self) -> str:
        """Return the last lines."""
        with self._changed:
            return "\n".join(line.text for line in self._lines[-_TAIL_LINES:])

    def _follow(self, handle: int) -> None:
        buffer = LineBuffer()
        begin = time.monotonic()
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        with contextlib.closing(os.fdopen(handle, "r+b", 0)):
            while not self._ended.is_set():
                self._pass_input(handle)
                if not poller.poll(_POLL_MS):
                    continue
                try:
                    data = os.read(handle, 65536)
                except BlockingIOError:
                    continue
                except OSError:  # EIO: the machine is gone
                    return
                if not data:
                    return
                self._repeat(data)
                self._keep(buffer.feed(data), begin)

    def _keep(self, texts: list[str], begin: float) -> None:
        now = time.monotonic()
        for text in texts:
            self._log.write(f"{now - begin:9.2f} {text}\n")
            self._on_line(text)
        self._log.flush()
        with self._changed:
            self._lines += [Line(now, text) for text in texts]
            surplus = len(self._lines) - _MAX_LINES
            if surplus > 0:
                del self._lines[:surplus]
                self._dropped += surplus
            self._changed.notify_all()

    def _has_reader(self) -> bool:
        poller = select.poll()
        poller.register(self._master, 0)
        return not any(event & select.POLLHUP for _, event in poller.poll(0))

    def _repeat(self, data: bytes) -> None:
        if self._has_reader():
            with contextlib.suppress(BlockingIOError):  # a reader that sleeps loses lines, the lab does not wait for it
                os.write(self._master, data)

    def _pass_input(self, handle: int) -> None:
        if self._has_reader():
            with contextlib.suppress(OSError):
                os.write(handle, os.read(self._master, 4096))
