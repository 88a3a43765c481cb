"""The time service: sets the kernel's clock and the board's, as root and with nothing else to its name.

Started by systemd at boot, where it moves a clock that forgot the time to the last one known, and whenever the agent
wants it. It believes the agent within bounds: never before its own image was built, never after 2099.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from omamori_agent.config import load_release
from omamori_agent.errors import SetupError
from omamori_agent.files import read_foreign
from omamori_protocol.errors import MalformedError

from .files import MAX_BYTES, parse_known, parse_wanted

KNOWN = Path("var/lib/omamori/time/known")
WANTED = Path("run/omamori/time/wanted.json")
RELEASE = Path("usr/lib/omamori/release.json")
RTC = Path("dev/rtc0")
# Smaller errors are stretched away (half a second in a thousand), so that no second happens twice.
STEP_S = 10.0
_RTC_SET_TIME = 0x4024700A  # _IOW('p', 0x0a, struct rtc_time), linux/rtc.h


class Clocks(Protocol):
    """The clocks of a box."""

    def now(self) -> float:
        """Return the kernel's Unix time in seconds."""

    def boottime(self) -> float:
        """Return seconds since power-on."""

    def step(self, unix_s: float) -> None:
        """Set the kernel's clock; raises `OSError`."""

    def slew(self, offset_s: float) -> None:
        """Let the kernel's clock run a little faster or slower until it has made up for this; raises `OSError`."""

    def keep(self, unix_s: float) -> None:
        """Set the board's clock, which goes on without power, if it has one; raises `OSError`."""


class BoxClocks:
    """`Clocks` of the running kernel.

    Args:
        rtc: Device of the board's clock; boards without one have no such file.
    """

    def __init__(self, rtc: Path) -> None:
        self._rtc = rtc

    def now(self) -> float:
        """Return the kernel's Unix time in seconds."""
        return time.time()

    def boottime(self) -> float:
        """Return seconds since power-on."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def step(self, unix_s: float) -> None:
        """Set the kernel's clock."""
        time.clock_settime(time.CLOCK_REALTIME, unix_s)

    def slew(self, offset_s: float) -> None:
        """Ask the kernel to make up for an error slowly (adjtime(3))."""
        seconds, rest = divmod(offset_s, 1)
        delta = (ctypes.c_long * 2)(int(seconds), int(rest * 1_000_000))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.adjtime(delta, None) != 0:
            raise OSError(ctypes.get_errno(), "adjtime")

    def keep(self, unix_s: float) -> None:
        """Set the board's clock to UTC."""
        parts = time.gmtime(unix_s)
        fields = (parts.tm_sec, parts.tm_min, parts.tm_hour, parts.tm_mday, parts.tm_mon - 1, parts.tm_year - 1900)
        try:
            descriptor = os.open(self._rtc, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.ioctl(descriptor, _RTC_SET_TIME, struct.pack("9i", *fields, 0, 0, 0))
        finally:
            os.close(descriptor)


def settle(root: Path, clocks: Clocks, *, tell: Callable[[str], None] = lambda _line: None) -> str | None:
    """Do the service's work once.

    Args:
        root: The root directory.
        clocks: What is set.
        tell: Takes a line about each clock that was set.

    Returns:
        What went wrong, or None.
    """
    try:
        floor_s = load_release(root / RELEASE).build_time
    except SetupError as err:
        return str(err)
    try:
        _not_before_known(root, clocks, floor_s, tell)
        return _wanted(root, clocks, floor_s, tell)
    except MalformedError as err:
        return str(err)
    except OSError as err:
        return f"a clock cannot be set: {err.strerror or err}"


def _not_before_known(root: Path, clocks: Clocks, floor_s: float, tell: Callable[[str], None]) -> None:
    data = _read(root / KNOWN)
    try:
        known_s = 0 if data is None else parse_known(data)
    except MalformedError as err:
        tell(str(err))
        known_s = 0
    known_s = max(known_s, int(floor_s))
    if clocks.now() < known_s:
        clocks.step(known_s)
        tell(f"the clock had forgotten the time; it goes on from {known_s}")


def _wanted(root: Path, clocks: Clocks, floor_s: float, tell: Callable[[str], None]) -> str | None:
    data = _read(root / WANTED)
    if data is None:
        return None
    wanted = parse_wanted(data, boottime_s=clocks.boottime())
    unix_s = wanted.unix_s + clocks.boottime() - wanted.boottime_s
    if unix_s < floor_s:
        return "the wanted time is before this firmware was built"
    offset_s = unix_s - clocks.now()
    if abs(offset_s) >= STEP_S:
        clocks.step(unix_s)
    else:
        clocks.slew(offset_s)
    clocks.keep(unix_s)
    tell(f"the clock was {abs(offset_s):.1f} s {'slow' if offset_s > 0 else 'fast'}")
    return None


def _read(path: Path) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return read_foreign(path, MAX_BYTES)
    return None


def main() -> int:
    """Run the service; returns the exit code."""
    root = Path("/")
    error = settle(root, BoxClocks(root / RTC), tell=lambda line: print(f"omamori-time: {line}", file=sys.stderr))  # noqa: T201 - its journal
    if error is not None:
        sys.stderr.write(f"omamori-time: {error}\n")
    return 0 if error is None else 1
