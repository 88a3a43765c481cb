"""How far the parts of the document in force are, and when each is to be tried next. No I/O."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

from omamori_agent.backoff import Backoff
from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.ports import Clock
from omamori_agent.text import clean_text
from omamori_protocol.desired import DesiredState
from omamori_protocol.reported import MAX_REASON_LENGTH, PartName, PartReport, PartState

from .errors import PendingError
from .part import Part

logger = logging.getLogger(__name__)

_FIRST_RETRY_S = 1.0
_WORST = (PartState.REFUSED, PartState.PENDING, PartState.APPLIED, PartState.NONE)
_SECTIONS: dict[PartName, Callable[[DesiredState], Any]] = {
    PartName.WIFI: lambda document: document.wifi,
    PartName.ADDRESS: lambda document: document.address,
    PartName.POLICY: lambda document: document.policy,
    PartName.EXEMPTIONS: lambda document: document.exemptions,
    PartName.FIRMWARE: lambda document: document.firmware,
    PartName.FEED: lambda document: document.feed,
}


@dataclasses.dataclass
class _Track:
    part: Part
    backoff: Backoff
    state: PartState = PartState.NONE
    reason: str | None = None
    due_s: float = 0.0


class Progress:
    """Applies parts and remembers how it went.

    Args:
        parts: One of each kind at most; applied in this order.
        clock: For pauses.
        poll_s: Pause while a part is on its way.
        retry_cap_s: Longest pause after a failure.
    """

    def __init__(self, parts: Sequence[Part], clock: Clock, *, poll_s: float, retry_cap_s: float) -> None:
        self._clock = clock
        self._poll_s = poll_s
        self._retry_cap_s = retry_cap_s
        self._tracks = [_Track(part, self._backoff()) for part in parts]

    def _backoff(self) -> Backoff:
        return Backoff(_FIRST_RETRY_S, self._retry_cap_s)

    def begin(self) -> None:
        """A new document: every part has to be applied."""
        for track in self._tracks:
            track.state, track.reason, track.due_s, track.backoff = PartState.PENDING, None, 0.0, self._backoff()

    def again(self, name: PartName) -> None:
        """One part has to be applied once more, now."""
        for track in self._tracks:
            if track.part.name is name and track.state is PartState.APPLIED:
                track.state, track.due_s = PartState.PENDING, 0.0

    def step(self, document: DesiredState) -> bool:
        """Apply what is due; returns whether anything has changed in the report."""
        before = self.reports()
        for track in self._tracks:
            if track.state is PartState.PENDING and self._clock.monotonic() >= track.due_s:
                self._apply(track, document)
        return self.reports() != before

    def _apply(self, track: _Track, document: DesiredState) -> None:
        name = track.part.name.word
        try:
            track.part.apply(_SECTIONS[track.part.name](document))
        except RejectedError as err:
            track.state, track.reason = PartState.REFUSED, clean_text(str(err), MAX_REASON_LENGTH)
            logger.warning("desired state %d: %s refused: %s", document.version, name, track.reason)
        except TransientError as err:
            reason = clean_text(str(err), MAX_REASON_LENGTH)
            if reason != track.reason:
                logger.info("desired state %d: %s waits: %s", document.version, name, reason)
            track.reason = reason
            pause_s = self._poll_s if isinstance(err, PendingError) else track.backoff.next_s()
            track.due_s = self._clock.monotonic() + pause_s
        else:
            track.state, track.reason = PartState.APPLIED, None
            track.backoff.reset()

    def reports(self) -> tuple[PartReport, ...]:
        """Return what became of each part."""
        return tuple(PartReport(part=track.part.name, state=track.state, reason=track.reason) for track in self._tracks)

    @property
    def worst(self) -> PartState:
        """Return the state of the whole: that of its worst part."""
        states = {track.state for track in self._tracks}
        return next((state for state in _WORST if state in states), PartState.NONE)
