"""Restarting the box because somebody asked: now, or when the agreed window opens.

What waits is on disk with the name of the boot in which it was asked for: in any later boot it is done, whatever
restarted the box, so it can never restart it twice. A firmware that is being written, or on trial, is not disturbed.
The service manager restarts; here only the file appears that it waits for.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omamori_agent.errors import SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.firmware.window import UnknownZoneError, is_open, load_zone, next_start_s
from omamori_agent.ports import Clock
from omamori_agent.text import clean_text
from omamori_protocol.command import COMMAND_ID_BYTES, Command, Moment
from omamori_protocol.desired import FirmwareWindow
from omamori_protocol.reported import PartState
from omamori_protocol.vocabulary import Severity

logger = logging.getLogger(__name__)

FORMAT = 1
REQUEST = b"command\n"
_MAX_BYTES = 1024
_MAX_NAME_LENGTH = 64
_GRACE_S = 5.0  # the report that it restarts has to reach the cloud
_REQUEST_AGAIN_S = 120.0
# A window opens once a week at least; what waits for longer is no longer what somebody meant.
_GIVE_UP_S = 14 * 86400

Outcome = tuple[bytes, PartState, str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """A restart that was asked for in the boot that `boot_id` names, at `asked_s` (Unix time)."""

    boot_id: str
    command_id: str
    is_in_window: bool
    asked_by: str
    asked_s: int


class Reboot:
    """The restart by command; one thread uses it.

    Args:
        path: Where it is written down.
        request_path: The file that the service manager waits for.
        boot_id: The kernel's name of this boot.
        clock: Time.
        is_clock_known: Whether the time of day can be believed.
        window: Returns the agreed window, or None.
        busy: Returns what a restart would disturb; nothing if it would not.
        tell: Told what becomes of it, with how urgent it is.
    """

    def __init__(
        self,
        path: Path,
        request_path: Path,
        *,
        boot_id: str,
        clock: Clock,
        is_clock_known: Callable[[], bool],
        window: Callable[[], FirmwareWindow | None],
        busy: Callable[[], str],
        tell: Callable[[str, Severity], None],
    ) -> None:
        self._path = path
        self._request_path = request_path
        self._boot_id = boot_id
        self._clock = clock
        self._is_clock_known = is_clock_known
        self._window = window
        self._busy = busy
        self._tell = tell
        self._wish: Wish | None = None
        self._outcome: Outcome | None = None
        self._not_before_s = 0.0
        self._has_requested = False

    def load(self) -> None:
        """Go on with what waits, or tell that it is done."""
        wish = _load(self._path)
        if wish is None:
            return
        if wish.boot_id == self._boot_id:
            self._take(wish)
            return
        self._end(wish, PartState.APPLIED, None)
        self._tell(f"the box was restarted, as {wish.asked_by} asked", Severity.ONE)

    def begin(self, command: Command) -> None:
        """Take a restart, instead of one that waits; `Moment.NEVER` takes back the one that waits.

        Raises:
            TransientError: It could not be written down, or no window is agreed; the box is not restarted for it.
        """
        asked_by = clean_text(command.asked_by, _MAX_NAME_LENGTH) or "the operator"
        before = self._wish
        if command.moment is Moment.NEVER:
            if before is not None:
                self._end(before, PartState.REFUSED, f"taken back by {asked_by}")
                self._tell(f"restart asked for by {before.asked_by} taken back by {asked_by}", Severity.ONE)
            return
        is_in_window = command.moment is Moment.WINDOW
        if is_in_window:
            self._see_window()
        wish = Wish(
            boot_id=self._boot_id,
            command_id=command.command_id.hex(),
            is_in_window=is_in_window,
            asked_by=asked_by,
            asked_s=int(self._clock.now()),
        )
        body = {"format": FORMAT, **dataclasses.asdict(wish)}
        try:
            write_atomic(self._path, (json.dumps(body, sort_keys=True) + "\n").encode(), mode=0o600)
        except OSError as err:
            raise TransientError(f"the restart cannot be written down: {err.strerror or err}") from err
        self._take(wish)
        when = "in the agreed window" if is_in_window else "now"
        self._tell(f"the box restarts {when}, asked for by {asked_by}", Severity.ONE)

    def tend(self) -> None:
        """Ask for the restart when its moment has come."""
        wish = self._wish
        if wish is None:
            return
        if self._is_clock_known() and self._clock.now() - wish.asked_s > _GIVE_UP_S:
            self._end(wish, PartState.REFUSED, "no window opened for two weeks")
            self._tell(f"restart asked for by {wish.asked_by} given up: no window opened for two weeks", Severity.TWO)
            return
        waits = self._waits_for(wish)
        self._outcome = bytes.fromhex(wish.command_id), PartState.PENDING, waits or "restarts now"
        if not waits and self._clock.monotonic() >= self._not_before_s:
            self._request()

    def outcome(self) -> Outcome | None:
        """Return the last restart's command, how far it is and why; None without one."""
        return self._outcome

    def _take(self, wish: Wish) -> None:
        self._wish = wish
        self._not_before_s = self._clock.monotonic() + _GRACE_S
        self._outcome = bytes.fromhex(wish.command_id), PartState.PENDING, self._waits_for(wish) or "restarts now"

    def _end(self, wish: Wish, state: PartState, reason: str | None) -> None:
        self._wish = None
        self._outcome = bytes.fromhex(wish.command_id), state, reason
        try:
            self._path.unlink(missing_ok=True)
        except OSError as err:
            logger.warning("%s not removed: %s", self._path, err)

    def _waits_for(self, wish: Wish) -> str:
        """Return why the box must not restart now; nothing if it may."""
        busy = self._busy()
        if busy or not wish.is_in_window:
            return busy
        try:
            window = self._see_window()
            if not self._is_clock_known():
                return "the time of day is not known"
            now_s = self._clock.now()
            if is_open(window, now_s):
                return ""
            opens_s = next_start_s(window, now_s)
        except TransientError as err:
            return str(err)
        if opens_s is None:
            return "the window does not open"
        opens = dt.datetime.fromtimestamp(opens_s, load_zone(window.zone))
        return f"the window opens {opens:%Y-%m-%d %H:%M} {window.zone}"

    def _see_window(self) -> FirmwareWindow:
        window = self._window()
        if window is None:
            raise TransientError("no window is agreed: the desired state has no section for firmware")
        try:
            load_zone(window.zone)
        except UnknownZoneError as err:
            raise TransientError(str(err)) from err
        return window

    def _request(self) -> None:
        self._not_before_s = self._clock.monotonic() + _REQUEST_AGAIN_S
        try:
            if self._has_requested:  # and nothing came of it: the file has to appear anew
                self._request_path.unlink(missing_ok=True)
            if self._request_path.exists():
                return  # a firmware's restart is on its way
            self._has_requested = True
            write_atomic(self._request_path, REQUEST)
        except OSError as err:
            logger.warning("restart not requested: %s", err)


def _load(path: Path) -> Wish | None:
    try:
        return _parse(json.loads(read_bounded(path, _MAX_BYTES)))
    except FileNotFoundError:
        return None
    except (SetupError, ValueError, KeyError, TypeError, RecursionError) as err:
        logger.warning("%s is not usable: %s", path, clean_text(str(err), 120))
        return None


def _parse(body: Any) -> Wish:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError("unknown format")
    command_id = str(body["command_id"])
    if len(bytes.fromhex(command_id)) != COMMAND_ID_BYTES:
        raise ValueError("not a command's id")
    return Wish(
        boot_id=str(body["boot_id"]),
        command_id=command_id,
        is_in_window=bool(body["is_in_window"]),
        asked_by=clean_text(str(body["asked_by"]), _MAX_NAME_LENGTH),
        asked_s=int(body["asked_s"]),
    )
