"""Tells what becomes of a firmware: a line on the console, an event for the cloud, and the lamp; each state once.

An event is in the spool before the record says that it was told, so a cut between the two tells it twice, never not at
all. Nothing is decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from omamori_agent.errors import TransientError
from omamori_agent.files import write_atomic
from omamori_agent.ports import Clock, Outbox
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, FirmwareReason, FirmwareState, Severity, Slot

from .record import Record

logger = logging.getLogger(__name__)

_RESULTS = {FirmwareState.COMMITTED: b"done\n", FirmwareState.ROLLED_BACK: b"taken-back\n"}
_TROUBLE = frozenset({FirmwareState.FAILED, FirmwareState.ROLLED_BACK})


class FirmwareReporter:
    """Reports for the firmware worker, which is the only one to call it.

    Args:
        outbox: Where events go.
        console: Writes a line for the installer.
        clock: Time of events.
        slot: Slot that runs.
        running: Version that runs.
        result_path: How an update ended, for the lamp; None where nobody reads it.
    """

    def __init__(
        self,
        outbox: Outbox,
        console: Callable[[str], None],
        clock: Clock,
        *,
        slot: Slot,
        running: str,
        result_path: Path | None = None,
    ) -> None:
        self._outbox = outbox
        self._console = console
        self._clock = clock
        self._slot = slot
        self._running = running
        self._result_path = result_path
        self._line = ""

    def show(self, record: Record) -> None:
        """Write the console's line, if it is another one than last time."""
        if not record.version:
            return
        reason = record.reason.word if record.reason is not FirmwareReason.NONE else "-"
        line = f"firmware version={record.version} state={record.state.word} slot={self._slot.name} reason={reason}"
        if line != self._line:
            self._line = line
            self._console(line)
            if record.detail:
                logger.info("firmware %s: %s", record.version, record.detail)

    def tell(self, record: Record) -> bool:
        """Put the event about the record's state into the spool; returns whether it took it."""
        event = Event(
            boot=0,
            seq=0,
            at_ms=int(self._clock.now() * 1000),
            kind=EventKind.FIRMWARE,
            severity=Severity.TWO if record.state in _TROUBLE else Severity.ONE,
            text=record.detail or None,
            firmware=record.version,
            firmware_state=record.state,
            firmware_reason=record.reason,
            booted_slot=self._slot,
            running_firmware=self._running,
        )
        try:
            self._outbox.put([event])
        except TransientError as err:
            logger.debug("firmware event waits: %s", err)
            return False
        self._light(record.state)
        return True

    def _light(self, state: FirmwareState) -> None:
        """Leave how an update ended where omamori-herald looks for it; a lamp is no reason to stop."""
        if self._result_path is None or state not in _RESULTS:
            return
        try:
            write_atomic(self._result_path, _RESULTS[state])
        except OSError as err:
            logger.debug("no lamp: %s", err)
