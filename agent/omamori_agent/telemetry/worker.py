"""Looks every two seconds at what the supervisor told, and passes it on.

Figures go to the heartbeat, facts to the state, and each power event becomes an event. Which one was told last is kept
with the outbox, in the same transaction as the event. A full or broken data partition delays the telling.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable

from omamori_agent.errors import TransientError
from omamori_agent.ports import Clock, Cursor, Outbox
from omamori_agent.status import StatusBoard
from omamori_protocol.messages import Event, SupervisorState
from omamori_protocol.vocabulary import EventKind, PowerKind, Severity

from .power import Seen, decode, look, must_keep
from .state_file import PowerEvent, RefusedStateError, StateReader, SupervisorFile

logger = logging.getLogger(__name__)

CURSOR = "power"
_INTERVAL_S = 2.0
_RETRY_S = 10.0
_COUNTS_S = 60.0  # what only counts on is told so often at most: a state is a message of its own
_MAX_CHIP_LENGTH = 32


class TelemetryWorker:
    """`ports.Worker` of what the supervisor tells.

    Args:
        reader: Reads the herald's file.
        boot_id: The kernel's name of this run.
        uptime_s: Returns seconds since power-on.
        outbox: Gets power events, keeps which one was told.
        status: Is told figures and facts.
        clock: Time.
    """

    name = "telemetry"

    def __init__(
        self,
        *,
        reader: StateReader,
        boot_id: str,
        uptime_s: Callable[[], float],
        outbox: Outbox,
        status: StatusBoard,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._boot_id = boot_id
        self._uptime_s = uptime_s
        self._outbox = outbox
        self._status = status
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: Seen | None = None  # what is kept
        self._is_loaded = False
        self._beginning: PowerEvent | None = None
        self._knows_beginning = False
        self._retry_s = 0.0
        self._past_s: int | None = None
        self._told: SupervisorState | None = None
        self._told_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Look until `stop`."""
        while not stop.is_set():
            self.step()
            stop.wait(_INTERVAL_S)

    def step(self) -> None:
        """Look once."""
        with self._lock:
            found = self._read()
            self._past_s = None if found is None else found.past_s
            if found is not None:
                self._take_power(found)
            now_s = self._clock.monotonic()
            facts = self._facts(found)
            if facts is not None and self._is_worth_telling(facts, now_s):
                self._told, self._told_s = facts, now_s
            answers = found is not None and found.is_up
            self._status.update(
                supervisor=self._told,
                celsius=found.celsius if found is not None and answers else None,
                millivolts=found.millivolts if found is not None and answers else None,
            )

    def past_s(self) -> int | None:
        """Return for how many seconds the supervisor has led the wire past the box since its own start.

        None without a supervisor, before it has told, and while what it told is not believed.
        """
        return self._past_s

    def power_before(self) -> tuple[PowerKind, int] | None:
        """Return what began this run of the box, and for how many ms the power had been away; from any thread.

        `PowerKind.NONE` if the power stayed; None without a supervisor, and before it has told.
        """
        if not self._knows_beginning:
            self.step()
        if not self._knows_beginning:
            return None
        event = self._beginning
        return (PowerKind.NONE, 0) if event is None else (event.kind, event.outage_ms)

    def _read(self) -> SupervisorFile | None:
        try:
            return self._reader.read()
        except RefusedStateError:
            return None  # counted and logged there

    def _facts(self, found: SupervisorFile | None) -> SupervisorState | None:
        if found is None:
            # One that has spoken and does no more; its last word may be wrong by now.
            return None if self._told is None else dataclasses.replace(self._told, answers=False, through=None)
        power = found.power
        return SupervisorState(
            answers=found.is_up,
            chip=None if found.chip is None else found.chip[:_MAX_CHIP_LENGTH],
            through=found.through,
            moves=found.moves,
            past_s=found.past_s,
            resets=found.resets,
            restarts=found.restarts,
            power_serial=None if power is None else power.serial,
            power_kind=None if power is None else power.kind,
            power_ms=None if power is None else power.outage_ms,
            lease_ms=found.lease_ms,
        )

    def _is_worth_telling(self, facts: SupervisorState, now_s: float) -> bool:
        told = self._told
        if told is None or now_s - self._told_s >= _COUNTS_S:
            return True
        names = ("answers", "chip", "through", "moves", "resets", "restarts", "power_serial", "power_kind", "power_ms")
        return any(getattr(facts, name) != getattr(told, name) for name in names)

    def _take_power(self, found: SupervisorFile) -> None:
        if found.power is None or found.uptime_s is None or found.restarts is None:
            return  # it has not told everything yet; in a moment it will have
        if not self._is_loaded:
            self._seen, self._is_loaded = self._load(), True
        now, is_new = look(
            self._seen, boot_id=self._boot_id, event=found.power, uptime_s=found.uptime_s, restarts=found.restarts
        )
        self._beginning, self._knows_beginning = now.beginning, True
        if not is_new and self._seen is not None and not must_keep(self._seen, now):
            return
        if self._clock.monotonic() < self._retry_s:
            return
        events = [self._event(now)] if is_new else []
        try:
            self._outbox.put(events, Cursor(CURSOR, now.encode()))
        except TransientError as err:
            logger.debug("what happened to the power is told later: %s", err)
            self._retry_s = self._clock.monotonic() + _RETRY_S
            return
        self._seen = now
        if is_new:
            event = now.event
            logger.info("power event %d: %s, %d ms", event.serial, event.kind.word, event.outage_ms)

    def _event(self, now: Seen) -> Event:
        event = now.event
        # What began this run ended when the power came back, as far as anybody knows.
        ago_s = self._uptime_s() if now.beginning == event else 0.0
        return Event(
            boot=0,
            seq=0,
            at_ms=max(0, int((self._clock.now() - ago_s) * 1000)),
            kind=EventKind.POWER,
            severity=Severity.TWO if event.kind is PowerKind.BROWN_OUT else Severity.ONE,
            power_kind=event.kind,
            power_serial=event.serial,
            power_ms=event.outage_ms,
        )

    def _load(self) -> Seen | None:
        text = self._outbox.cursor(CURSOR)
        if text is None:
            return None
        try:
            return decode(text)
        except ValueError as err:
            logger.warning("which power event was told last is not known: %s", str(err)[:120])
            return None
