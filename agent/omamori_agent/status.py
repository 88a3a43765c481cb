"""What the agent knows about the box right now, shared between its workers.

Workers write their own part, heartbeat and state read all of it. It is a snapshot in memory only: truth about
slots and rules is asked from bootloader and engine by the worker that owns the part.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from omamori_protocol.messages import SupervisorState
from omamori_protocol.vocabulary import EngineState, FeedState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """One consistent snapshot.

    `uninspected_s` counts the seconds since power-on without an inspecting engine, `passed_by_s` those in which a
    lease (engine hung, command, button) let everything pass an engine that inspected. `trouble` is the code of what is
    wrong around the box (0: nothing), `trouble_before` what was wrong while there was no connection. `supervisor`,
    `celsius` and `millivolts` are what the supervisor told; None on boards without one, and the figures also while it
    does not answer.
    """

    engine: EngineState = EngineState.DOWN
    feed_serial: int = 0
    feed_state: FeedState = FeedState.NONE
    feed_reason: str = ""
    uninspected_s: float = 0.0
    passed_by_s: float = 0.0
    connected: bool = False
    trouble: int = 0
    trouble_before: int = 0
    supervisor: SupervisorState | None = None
    celsius: int | None = None
    millivolts: int | None = None


class StatusBoard:
    """Thread-safe holder of the current `Status`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = Status()
        self._listeners: list[Callable[[Status], None]] = []

    def get(self) -> Status:
        """Return the current snapshot."""
        with self._lock:
            return self._status

    def update(self, **changes: object) -> Status:
        """Replace fields and tell the listeners if anything changed (listeners must not block)."""
        with self._lock:
            before = self._status
            self._status = after = dataclasses.replace(before, **changes)  # type: ignore[arg-type]
        if after != before:
            for listener in self._listeners:
                listener(after)
        return after

    def subscribe(self, listener: Callable[[Status], None]) -> None:
        """Call `listener` with every changed snapshot, from the thread that changed it."""
        self._listeners.append(listener)
