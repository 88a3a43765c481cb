"""Moves the engine's alerts into the outbox: tail, meaning, folding, storing.

Every alert that is a first occurrence is in the outbox exactly once, also when the agent is killed at any moment:
the position in the EVE file is stored in the same transaction as the events, and only together with events. What
the folding has counted but not yet told may be lost by a kill (see `fold`).
"""

from __future__ import annotations

import logging
import threading

from omamori_agent.errors import AgentError, TransientError
from omamori_agent.ports import Clock, Cursor, Outbox
from omamori_protocol.errors import ProtocolError
from omamori_protocol.messages import Event

from .alert import AlertRejectedError, MacLookup, parse_line, read_alert
from .control import EngineControl
from .eve import Batch, EveTail
from .fold import Folder

logger = logging.getLogger(__name__)

CURSOR = "eve"
_IDLE_S = 0.5
_RETRY_S = 1.0
_REOPEN_S = 5.0


def store(outbox: Outbox, events: list[Event], cursor: Cursor | None, stop: threading.Event) -> bool:
    """Put events into the outbox, trying until it works or the agent stops.

    An event that the protocol does not allow is dropped with a warning: it must not hold up the others for ever.

    Returns:
        Whether they are stored.
    """
    while True:
        try:
            outbox.put(events, cursor)
        except ProtocolError as err:
            kept = [event for event in events if _is_sendable(event)]
            if len(kept) == len(events):
                raise
            logger.warning("%d event(s) dropped: %s", len(events) - len(kept), err)
            events = kept
        except TransientError as err:
            logger.debug("events wait: %s", err)
            if stop.wait(_RETRY_S):
                return False
        else:
            return True


def _is_sendable(event: Event) -> bool:
    try:
        event.encode()
    except ProtocolError:
        return False
    return True


class AlertWorker:
    """Worker that empties the EVE file.

    Args:
        tail: The file.
        control: Asked to reopen the file after it was rotated.
        mac_of: MAC addresses of terminals.
        outbox: Where events go.
        clock: Time of events and windows.
        folder: Folding with its limits.
        rotate_bytes: Size beyond which the file is rotated.
    """

    name = "engine-alerts"

    def __init__(
        self,
        tail: EveTail,
        control: EngineControl,
        mac_of: MacLookup,
        outbox: Outbox,
        clock: Clock,
        *,
        folder: Folder,
        rotate_bytes: int,
    ) -> None:
        self._tail = tail
        self._control = control
        self._mac_of = mac_of
        self._outbox = outbox
        self._clock = clock
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        self._reopen_at = 0.0
        self.rejected_lines = 0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; then tell the open counts."""
        try:
            while not stop.is_set():
                if not self.step(stop):
                    stop.wait(_IDLE_S)
            events = self._folder.flush()
            if events:
                store(self._outbox, events, Cursor(CURSOR, self._tail.position), stop)
        finally:
            self._tail.close()

    def step(self, stop: threading.Event) -> bool:
        """Handle what is there now; returns whether there was anything."""
        batch = self._tail.read()
        events = self._events(batch)
        if events and not store(self._outbox, events, Cursor(CURSOR, batch.position), stop):
            return False
        self._rotate()
        return bool(batch.lines)

    def _events(self, batch: Batch) -> list[Event]:
        now_s = self._clock.monotonic()
        out: list[Event] = []
        for line in batch.lines:
            try:
                record = parse_line(line)
                if record is None:
                    continue
                alert = read_alert(record, self._mac_of, now_ms=int(self._clock.now() * 1000))
            except AlertRejectedError as err:
                self.rejected_lines += 1
                logger.debug("EVE line ignored: %s", err)
                continue
            out += self._folder.add(alert.event, now_s=now_s, origin=alert.origin)
        return out + self._folder.due(now_s=now_s)

    def _rotate(self) -> None:
        rotated = self._tail.rotate(self._rotate_bytes)
        now_s = self._clock.monotonic()
        if not rotated and not (self._tail.wants_reopen and now_s >= self._reopen_at):
            return
        self._reopen_at = now_s + _REOPEN_S
        try:
            self._control.reopen_logs()
        except AgentError as err:
            logger.debug("logs not reopened yet: %s", err)
