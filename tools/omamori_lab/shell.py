"""The root console of the development image on the second serial port: one command at a time, status and output back.

Tests use it to break things on purpose (kill the engine) and to measure; the release image has no such console.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import select
import shlex
import threading
import time
import tty

from .errors import BoxError, NotReadyError

_MAX_OUTPUT = 1 << 20
_SETTLE = (
    "stty -echo -icanon 2>/dev/null; PS1=; PS2=; PROMPT_COMMAND=; bind 'set enable-bracketed-paste off' 2>/dev/null"
)
# What is typed before the shell listens may arrive without its beginning: an echo would stand amid later output.
_IS_QUIET = "stty -a | grep -q -e ' -echo '"
# Or without its end: the rest of a quoted word would be waited for for ever.
_ABANDON = "\x03"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclasses.dataclass(frozen=True)
class ShellResult:
    """How a command in the guest ended."""

    exit_code: int
    output: str


class Shell:
    """A root shell on a pty.

    Args:
        pty: Path of QEMU's pty for the second serial port.
    """

    def __init__(self, pty: str) -> None:
        self._handle = os.open(pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        tty.setraw(self._handle)
        self._lock = threading.Lock()
        self._settled = False

    def close(self) -> None:
        """Leave the shell."""
        os.close(self._handle)

    def run(self, command: str, *, timeout_s: float = 30.0) -> ShellResult:
        """Run a command and return its status and output.

        Raises:
            NotReadyError: No shell answered, or the command took too long.
            BoxError: The machine is gone.
        """
        with self._lock:
            if not self._settled:
                self._settle(timeout_s)
            return self._exchange(command, timeout_s)

    def _settle(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._settled:
            self._write(f"\n{_SETTLE}\n")
            with contextlib.suppress(NotReadyError):
                self._settled = self._exchange(_IS_QUIET, 3.0).exit_code == 0
            if not self._settled:
                if time.monotonic() > deadline:
                    raise NotReadyError("a shell on the second serial port", timeout_s)
                self._write(_ABANDON)  # not before: it would end a shell that is just starting

    def _exchange(self, command: str, timeout_s: float) -> ShellResult:
        token = secrets.token_hex(6)
        # The marks are put together by the shell, so that an echo of the command line never looks like the answer; and
        # nothing runs before the last of it was read, so that an echo, on again after a reset, never stands amid one.
        self._write(
            f"printf '%s%s\\n' begin- {token}; eval {shlex.quote(command)}; printf '%s%s %s\\n' end- {token} $?\n"
        )
        ending = re.compile(rf"begin-{token}\n(.*?)(?:^|\n?)end-{token} (\d+)\n", re.DOTALL)
        text = ""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not select.select([self._handle], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._handle, 65536)
            except BlockingIOError:
                continue
            except OSError as err:
                raise BoxError("the box's second serial port is gone") from err
            text = (text + _ANSI.sub("", data.decode(errors="replace")))[-_MAX_OUTPUT:]
            if found := ending.search(text):
                return ShellResult(int(found[2]), found[1].strip("\n"))
        raise NotReadyError(f"answer to {command[:60]!r}", timeout_s, detail=text[-300:])

    def _write(self, text: str) -> None:
        data = text.encode()
        deadline = time.monotonic() + 5
        while data:
            try:
                data = data[os.write(self._handle, data) :]
            except BlockingIOError as err:
                if time.monotonic() > deadline:
                    raise BoxError("the box's second serial port takes no input") from err
                select.select([], [self._handle], [], 0.5)
            except OSError as err:
                raise BoxError("the box's second serial port is gone") from err
