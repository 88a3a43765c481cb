"""Passing everything uninspected for some minutes, because somebody asked for it.

The gate is told a moment at which it ends by itself, whatever becomes of the agent. What is written down here is for
the record: who asked, and that it ended. A box that is restarted inspects again: the gate forgets.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omamori_agent.errors import SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.text import clean_text
from omamori_protocol.vocabulary import Severity

from .gate_port import SteeringPort

logger = logging.getLogger(__name__)

FORMAT = 1
_MAX_BYTES = 1024
_MAX_NAME_LENGTH = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lease:
    """A bypass that was asked for; `until_boot_s` counts from power-on, of the boot that `boot_id` names."""

    boot_id: str
    until_boot_s: float
    minutes: int
    asked_by: str


class Bypass:
    """The bypass by command.

    Args:
        path: Where it is written down.
        gate: Does it.
        boot_id: The kernel's name of this boot.
        boottime_s: Returns seconds since power-on, standby included.
        tell: Told each beginning and end, with how urgent it is.
    """

    def __init__(
        self,
        path: Path,
        gate: SteeringPort,
        *,
        boot_id: str,
        boottime_s: Callable[[], float],
        tell: Callable[[str, Severity], None],
    ) -> None:
        self._path = path
        self._gate = gate
        self._boot_id = boot_id
        self._boottime_s = boottime_s
        self._tell = tell
        self._lease: Lease | None = None
        self._is_gate_told = True

    def left_s(self) -> float:
        """Return for how many seconds more everything passes; 0 if it does not."""
        if self._lease is None:
            return 0.0
        return max(0.0, self._lease.until_boot_s - self._boottime_s())

    def passing_s(self) -> float:
        """Return for how many seconds more everything passes, by command or by the board's button."""
        try:
            return max(self.left_s(), self._gate.button_left_s())
        except TransientError:
            return self.left_s()

    def load(self) -> None:
        """Go on with what an earlier agent began, as long as the box was not restarted meanwhile."""
        lease = _load(self._path)
        if lease is None:
            return
        if lease.boot_id != self._boot_id:
            self._forget()
            self._tell(f"bypass asked for by {lease.asked_by} ended: the box was restarted", Severity.ONE)
            return
        self._lease = lease
        self._is_gate_told = False
        self.tend()

    def begin(self, minutes: int, asked_by: str) -> None:
        """Let everything pass for so many minutes from now; 0 ends what runs.

        Raises:
            TransientError: It could not be written down, or there is no gate; nothing passes that did not before.
        """
        asked_by = clean_text(asked_by, _MAX_NAME_LENGTH) or "the operator"
        if minutes == 0:
            self._end(f"ended by {asked_by}")
            return
        now_s = self._boottime_s()
        lease = Lease(boot_id=self._boot_id, until_boot_s=now_s + minutes * 60, minutes=minutes, asked_by=asked_by)
        self._save(lease)
        try:
            self._gate.set_bypass(minutes * 60.0)
        except TransientError:
            if self._lease is not None:
                self._save(self._lease)  # the one that runs goes on
            else:
                self._forget()
            raise
        self._lease = lease
        self._is_gate_told = True
        self._tell(f"bypass: nothing is inspected for {minutes} min, asked for by {asked_by}", Severity.TWO)

    def tend(self) -> None:
        """Tell the end when it has come; tell the gate again if it was not there."""
        lease = self._lease
        if lease is None:
            return
        if self.left_s() <= 0:
            self._lease = None
            self._forget()
            self._tell(f"bypass asked for by {lease.asked_by} ended after {lease.minutes} min", Severity.ONE)
        elif not self._is_gate_told:
            try:
                self._gate.set_bypass(self.left_s())
                self._is_gate_told = True
            except TransientError as err:
                logger.debug("bypass waits: %s", err)

    def _end(self, how: str) -> None:
        lease = self._lease
        self._gate.set_bypass(0.0)
        self._lease = None
        self._forget()
        if lease is not None:
            self._tell(f"bypass asked for by {lease.asked_by} {how}", Severity.ONE)

    def _save(self, lease: Lease) -> None:
        body = {"format": FORMAT, **dataclasses.asdict(lease)}
        try:
            write_atomic(self._path, (json.dumps(body, sort_keys=True) + "\n").encode(), mode=0o600)
        except OSError as err:
            raise TransientError(f"the bypass cannot be written down: {err.strerror or err}") from err

    def _forget(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as err:
            logger.warning("%s not removed: %s", self._path, err)


def _load(path: Path) -> Lease | None:
    try:
        return _parse(json.loads(read_bounded(path, _MAX_BYTES)))
    except FileNotFoundError:
        return None
    except (SetupError, ValueError, KeyError, TypeError, RecursionError) as err:
        logger.warning("%s is not usable: %s", path, clean_text(str(err), 120))
        return None


def _parse(body: Any) -> Lease:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError("unknown format")
    return Lease(
        boot_id=str(body["boot_id"]),
        until_boot_s=float(body["until_boot_s"]),
        minutes=int(body["minutes"]),
        asked_by=clean_text(str(body["asked_by"]), _MAX_NAME_LENGTH),
    )
