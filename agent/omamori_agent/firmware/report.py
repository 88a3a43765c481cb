"""Tells what becomes of a firmware: a line on the console and an event for the cloud, each state once.

An event is in the spool before the record says that it was told, so a cut between the two tells it twice, never not at
all. Nothing is decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from omamori_agent.errors import TransientError
from omamori_agent.ports import Clock, Outbox
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, FirmwareReason, FirmwareState, Severity, Slot

from .record import Record

logger = logging.getLogger(__name__)

_TROUBLE = frozenset({FirmwareState.FAILED, FirmwareState.ROLLED_BACK})


class FirmwareReporter:
    """Reports for the firmware worker, which is the only one to call it.

    Args:
        outbox: Where events go.
        console: Writes a line for the installer.
        clock: Time of events.
        slot: Slot that runs.
        running: Version that runs.
    """

    def __init__(
        self, outbox: Outbox, console: Callable[[str], None], clock: Clock, *, slot: Slot, running: str
    ) -> None:
        self._outbox = outbox
        self._console = console
        self._clock = clock
        self._slot = slot
        self._running = running
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
        return True
