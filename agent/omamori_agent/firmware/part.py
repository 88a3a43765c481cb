"""The firmware section of the desired state: handed to the worker here, and what became of it handed back.

An update takes minutes or days, so this part is pending for long; it is applied when the box runs what it shall run.
"""

from __future__ import annotations

import threading

from omamori_agent.desired.errors import PendingError
from omamori_agent.errors import RejectedError
from omamori_protocol.desired import FirmwareSettings
from omamori_protocol.reported import PartName
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState

from .record import Record


class FirmwareDesk:
    """What desired state and worker leave for each other; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: FirmwareSettings | None = None
        self._is_known = False
        self._record: Record | None = None
        self._running = ""
        self._is_final = False
        self.changed = threading.Event()

    def want(self, settings: FirmwareSettings | None) -> None:
        """Take what the box shall run; None for whatever it runs."""
        with self._lock:
            is_change = self._is_known and settings != self._wanted
            self._wanted, self._is_known = settings, True
        if is_change:  # not what the agent's start takes up again
            self.changed.set()

    def wanted(self) -> tuple[bool, FirmwareSettings | None]:
        """Return whether anybody has said anything yet, and what."""
        with self._lock:
            return self._is_known, self._wanted

    def show(self, record: Record, running: str, *, is_final: bool) -> None:
        """Leave how far the worker is; `is_final` if it will not try its firmware again."""
        with self._lock:
            self._record, self._running, self._is_final = record, running, is_final

    def busy(self) -> str:
        """Return what a restart of the box would disturb now; nothing if it would not."""
        with self._lock:
            record = self._record
        if record is None or record.state not in {FirmwareState.INSTALLING, FirmwareState.TRYING}:
            return ""
        return f"firmware {record.version} is {record.state.word}"

    def judge(self, settings: FirmwareSettings | None) -> None:
        """Return if the box runs what it shall run.

        Raises:
            RejectedError: It will not.
            PendingError: Not yet.
        """
        with self._lock:
            record, running, is_final = self._record, self._running, self._is_final
        if settings is None:
            return
        if record is None:
            raise PendingError("not looked at yet")
        if record.state is FirmwareState.TRYING:
            raise PendingError(f"{record.version} is on trial")
        if settings.version == running:
            return
        refused = record.refusal(settings.version)
        if refused is not None:
            raise RejectedError(_text(refused.reason, refused.detail))
        if record.version != settings.version:
            raise PendingError("not looked at yet")
        text = f"{record.state.word}{_text(record.reason, record.detail, before=': ')}"
        raise RejectedError(text) if is_final else PendingError(text)


def _text(reason: FirmwareReason, detail: str, *, before: str = "") -> str:
    word = reason.word if reason is not FirmwareReason.NONE else ""
    text = f"{word}: {detail}" if word and detail else word or detail
    return f"{before}{text}" if text else ""


class FirmwarePart:
    """`desired.part.Part` of the firmware.

    Args:
        desk: The worker's.
    """

    name = PartName.FIRMWARE

    def __init__(self, desk: FirmwareDesk) -> None:
        self._desk = desk

    def apply(self, settings: FirmwareSettings | None) -> None:
        """Let the worker have it.

        Raises:
            RejectedError: It was tried, or judged, and will not run here.
            PendingError: It does not run yet.
        """
        self._desk.want(settings)
        self._desk.judge(settings)
