"""When a ready firmware may restart the box, and the request to do so.

The window counts when the clock can be believed; how long the firmware has waited is counted by a clock that nobody
sets, across restarts of the agent. Whoever pulls the plug before starts the trial, too: it is prepared already.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from pathlib import Path

from omamori_agent.files import write_atomic
from omamori_agent.ports import Clock
from omamori_protocol.desired import FirmwareSettings
from omamori_protocol.vocabulary import FirmwareReason

from .limits import FirmwareLimits
from .window import UnknownZoneError, is_open, load_zone, next_start_s

logger = logging.getLogger(__name__)

_REQUEST_AGAIN_S = 120.0


class RestartTimer:
    """Knows when; one thread uses it.

    Args:
        clock: Time.
        is_clock_known: Whether the time of day can be believed.
        request_path: A file that the service manager waits for.
        limits: Intervals.
    """

    def __init__(
        self, clock: Clock, is_clock_known: Callable[[], bool], request_path: Path, limits: FirmwareLimits
    ) -> None:
        self._clock = clock
        self._is_clock_known = is_clock_known
        self._request_path = request_path
        self._limits = limits
        self._began_s = clock.monotonic()
        self._noted_s = self._began_s
        self._requested_s = float("-inf")

    def is_clock_known(self) -> bool:
        """Tell whether the time of day can be believed."""
        return self._is_clock_known()

    def begin(self, waited_s: int) -> None:
        """Begin to count, with what was waited before."""
        now_s = self._clock.monotonic()
        self._began_s = now_s - waited_s
        self._noted_s = now_s

    def waited_s(self) -> float:
        """Return for how many seconds the firmware has been ready."""
        return self._clock.monotonic() - self._began_s

    def is_note_due(self) -> bool:
        """Tell whether the wait should be written down again; at most every few minutes."""
        if self._clock.monotonic() - self._noted_s < self._limits.wait_note_s:
            return False
        self._noted_s = self._clock.monotonic()
        return True

    def look(self, wanted: FirmwareSettings) -> tuple[FirmwareReason | None, str]:
        """Return why the box must not restart now, or None and nothing."""
        if self.waited_s() >= wanted.max_wait_s:
            return None, ""
        if not self._is_clock_known():
            return FirmwareReason.CLOCK_UNKNOWN, "the time of day is not known; the longest wait counts"
        now_s = self._clock.now()
        try:
            if is_open(wanted.window, now_s):
                return None, ""
            opens_s = next_start_s(wanted.window, now_s)
            zone = load_zone(wanted.window.zone)
        except UnknownZoneError as err:
            return FirmwareReason.CLOCK_UNKNOWN, f"{err}; the longest wait counts"
        when = "" if opens_s is None else f"{dt.datetime.fromtimestamp(opens_s, zone):%Y-%m-%d %H:%M}"
        return FirmwareReason.WAITS_FOR_WINDOW, f"the window opens {when} {wanted.window.zone}"

    def is_request_due(self) -> bool:
        """Tell whether the restart has not been asked for, or did not come."""
        return self._clock.monotonic() - self._requested_s >= _REQUEST_AGAIN_S

    def request(self) -> None:
        """Ask the service manager for an orderly restart."""
        self._requested_s = self._clock.monotonic()
        try:
            self._request_path.unlink(missing_ok=True)
            write_atomic(self._request_path, b"firmware\n")
        except OSError as err:
            logger.warning("restart not requested: %s", err)
