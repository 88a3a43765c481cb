"""Blinks the diagnosis' code on a lamp of the board: a small root service, there only while there is something to show.

The path unit starts it when the agent writes a code, or until when the box shall show which one it is (that goes first:
it blinks fast and without a pause); it ends when both are over. Boards with a supervisor show the same
code on the supervisor's lamp (docs/supervisor.md). A board without a lamp of its own has one as soon as somebody plugs
in a keyboard: Caps Lock.

The pattern is the supervisor's: three seconds dark, then each digit as so many blinks with a pause between.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from omamori_hw.abilities import Leds
from omamori_hw.errors import HardwareError
from omamori_hw.supervisor.abilities import SysfsLeds
from omamori_protocol.trouble import MAX_CODE

from .config import Paths
from .errors import SetupError
from .files import read_bounded

logger = logging.getLogger(__name__)

BEGIN_S = 3.0
ON_S, OFF_S = 0.3, 0.4
BETWEEN_DIGITS_S = 1.5
IDENTIFY_S = 0.125  # lit and dark: nothing else blinks like that
_MAX_CODE_BYTES = 8
_MAX_MOMENT_BYTES = 16
# Lamps that are there to be looked at; those of network ports and disks have a work of their own.
_OURS = (":status", ":indicator", ":alarm", ":fault")
_KEYBOARD = "::capslock"


def boottime_s() -> float:
    """Return seconds since power-on, standby included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lamps(names: Sequence[str]) -> tuple[str, ...]:
    """Return which of a board's lamps blink: its own ones, or a keyboard's."""
    ours = tuple(name for name in names if name.endswith(_OURS))
    return ours or tuple(name for name in names if name.endswith(_KEYBOARD))


def pattern(code: int) -> Iterator[tuple[bool, float]]:
    """Return when the lamps are lit and for how many seconds: one round of a code; 0 is ten blinks."""
    yield False, BEGIN_S
    for place, digit in enumerate(str(code)):
        if place:
            yield False, BETWEEN_DIGITS_S
        for _ in range(int(digit) or 10):
            yield True, ON_S
            yield False, OFF_S


def read_code(path: Path) -> int:
    """Return the code that shall be shown; 0 for none, and for what is no code."""
    try:
        text = read_bounded(path, _MAX_CODE_BYTES).decode("ascii").strip()
    except (FileNotFoundError, SetupError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() and int(text) <= MAX_CODE else 0


def read_moment(path: Path) -> int:
    """Return until when the box shall show which one it is, in seconds since power-on; 0 for no more, and nonsense."""
    try:
        text = read_bounded(path, _MAX_MOMENT_BYTES).decode("ascii").strip()
    except (FileNotFoundError, SetupError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() else 0


def blink(
    path: Path, leds: Leds, stop: threading.Event, *, identify: Path, boottime_s: Callable[[], float] = boottime_s
) -> None:
    """Show what the files say until both are over or `stop` is set; the lamps are dark afterwards.

    Args:
        path: Holds the code.
        leds: The board's lamps.
        stop: Ends it early.
        identify: Holds until when the lamp says which box this is.
        boottime_s: Returns seconds since power-on; a parameter for tests.
    """
    chosen = lamps(leds.names())

    def steps() -> Iterator[tuple[bool, float]]:
        while read_moment(identify) > boottime_s():
            yield True, IDENTIFY_S
            yield False, IDENTIFY_S
        if code := read_code(path):
            yield from pattern(code)

    try:
        while chosen and not stop.is_set():
            is_anything = False
            for lit, seconds in steps():
                is_anything = True
                _show(leds, chosen, lit=lit)
                if stop.wait(seconds) or (seconds != IDENTIFY_S and read_moment(identify) > boottime_s()):
                    break
            if not is_anything:
                break
            chosen = lamps(leds.names())
    finally:
        _show(leds, chosen, lit=False)


def _show(leds: Leds, names: Sequence[str], *, lit: bool) -> None:
    for name in names:
        try:
            leds.show(name, lit=lit)
        except HardwareError as err:
            logger.debug("%s", err)


def main() -> int:
    """Blink; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    paths = Paths()
    blink(paths.trouble_code, SysfsLeds(), stop, identify=paths.identify)
    return 0


if __name__ == "__main__":
    sys.exit(main())
