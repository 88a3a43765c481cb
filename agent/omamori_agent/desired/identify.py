"""Showing which of several boxes this is, because somebody on the phone asked: by the lamp and on the console.

The file in memory says until when, counted from power-on: nothing that dies prolongs it, and a restart of the box ends
it. `omamori-lamp` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from omamori_agent.errors import TransientError
from omamori_agent.files import write_atomic
from omamori_agent.text import clean_text
from omamori_protocol.vocabulary import Severity

_MAX_NAME_LENGTH = 64


class Identify:
    """The command to show which box this is.

    Args:
        path: Where it is written down.
        call: Has the lamp look there.
        lamps: Returns the names of the lamps that would blink.
        device: The box's id, for the console.
        boottime_s: Returns seconds since power-on, standby included.
        console: Writes one line on the console.
        tell: Told each beginning, with how urgent it is.
    """

    def __init__(
        self,
        path: Path,
        *,
        call: Callable[[], None],
        lamps: Callable[[], Sequence[str]],
        device: str,
        boottime_s: Callable[[], float],
        console: Callable[[str], None],
        tell: Callable[[str, Severity], None],
    ) -> None:
        self._path = path
        self._call = call
        self._lamps = lamps
        self._device = device
        self._boottime_s = boottime_s
        self._console = console
        self._tell = tell

    def begin(self, minutes: int, asked_by: str) -> None:
        """Blink for so many minutes from now; 0 ends what runs.

        Raises:
            TransientError: There is nothing that could blink, or it could not be written down.
        """
        if minutes == 0:
            self._write(0)
            return
        asked_by = clean_text(asked_by, _MAX_NAME_LENGTH) or "the operator"
        self._console(f"this is {self._device}, asks {asked_by}")
        if not self._lamps():
            raise TransientError("no lamp; plug in a USB keyboard, whose Caps Lock will blink, and ask again")
        self._write(math.ceil(self._boottime_s() + minutes * 60))
        self._tell(f"the lamp shows for {minutes} min which box this is, asked for by {asked_by}", Severity.ONE)

    def _write(self, until_s: int) -> None:
        try:
            write_atomic(self._path, f"{until_s}\n".encode(), mode=0o644)
            self._call()
        except OSError as err:
            raise TransientError(f"the lamp cannot be told: {err.strerror or err}") from err
