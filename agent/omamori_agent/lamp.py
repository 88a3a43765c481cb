"""Blinks the diagnosis' code on a lamp of the board: a small root service, there only while there is a code.

The path unit starts it when the agent writes a code; it ends when the code is 0. Boards with a supervisor show the same
code on the supervisor's lamp (docs/supervisor.md). A board without a lamp of its own has one as soon as somebody plugs
in a keyboard: Caps Lock.

The pattern is the supervisor's: three seconds dark, then each digit as so many blinks with a pause between.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
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
_MAX_CODE_BYTES = 8
# Lamps that are there to be looked at; those of network ports and disks have a work of their own.
_OURS = (":status", ":indicator", ":alarm", ":fault")
_KEYBOARD = "::capslock"


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


def blink(path: Path, leds: Leds, stop: threading.Event) -> None:
    """Show the code in a file until it is 0 or `stop` is set; the lamps are dark afterwards."""
    chosen = lamps(leds.names())
    try:
        while chosen and not stop.is_set() and (code := read_code(path)):
            for lit, seconds in pattern(code):
                _show(leds, chosen, lit=lit)
                if stop.wait(seconds):
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
    blink(Paths().trouble_code, SysfsLeds(), stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
