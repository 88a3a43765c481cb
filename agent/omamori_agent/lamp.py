"""Blinks the diagnosis' code on a lamp of the board: a small root service, there only while there is something to show.

It shows the agent's code, or for a while which box this is (that goes first: it blinks fast and without a pause). A
third file is there as long as one of them is to be shown: the path unit starts the service while that file exists, so
no change can be missed, and the service ends when it is gone. Boards with a supervisor show the same code on the
supervisor's lamp (docs/supervisor.md). A board without a lamp of its own has one as soon as somebody plugs in a
keyboard: Caps Lock.

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
IDLE_S = 1.0
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


def call_for_lamp(paths: Paths, boottime_s: Callable[[], float] = boottime_s) -> None:
    """Have the lamp shown what there is to show, or nothing; to be called whenever that may have changed.

    Raises:
        OSError: The file that says so cannot be made or removed.
    """
    if read_code(paths.trouble_code) or read_moment(paths.identify) > boottime_s():
        paths.lamp_wanted.touch(mode=0o644)
    else:
        paths.lamp_wanted.unlink(missing_ok=True)


def blink(paths: Paths, leds: Leds, stop: threading.Event, *, boottime_s: Callable[[], float] = boottime_s) -> None:
    """Show what the files say until nothing is called for or `stop` is set; the lamps are dark afterwards.

    Args:
        paths: Where the files are.
        leds: The board's lamps; one that is plugged in later is found.
        stop: Ends it early.
        boottime_s: Returns seconds since power-on; a parameter for tests.
    """
    chosen = lamps(leds.names())

    def is_identifying() -> bool:
        return read_moment(paths.identify) > boottime_s()

    def steps() -> Iterator[tuple[bool, float]]:
        while is_identifying():
            yield True, IDENTIFY_S
            yield False, IDENTIFY_S
        code = read_code(paths.trouble_code)
        # Nothing to show although we are called for: whoever calls has not looked again yet.
        yield from pattern(code) if code and chosen else ((False, IDLE_S),)

    try:
        while paths.lamp_wanted.exists() and not stop.is_set():
            for lit, seconds in steps():
                _show(leds, chosen, lit=lit)
                if stop.wait(seconds) or (seconds != IDENTIFY_S and is_identifying()):
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
    blink(Paths(), SysfsLeds(), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
