"""Tells what became of feeds: the status for heartbeat and console, and an event for each thing that is new.

A refusal is told once for each distinct reason, not at every poll; after something better happened it may be told
again. Nothing is decided here.
"""

from __future__ import annotations

import logging

from omamori_agent.errors import TransientError
from omamori_agent.ports import Clock, Outbox
from omamori_agent.status import StatusBoard
from omamori_agent.text import clean_text
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, FeedState, Severity

logger = logging.getLogger(__name__)

MAX_REASON_LENGTH = 250
_MAX_PENDING = 32
_MAX_TOLD = 64


class FeedReporter:
    """Reports for the feed worker, which is the only one to call it."""

    def __init__(self, outbox: Outbox, status: StatusBoard, clock: Clock) -> None:
        self._outbox = outbox
        self._status = status
        self._clock = clock
        self._told: set[tuple[FeedState, str]] = set()
        self._pending: list[Event] = []

    def restore(self, serial: int, reason: str | None) -> None:
        """Show the feed that was active before the agent started; no event.

        Args:
            serial: Serial of the current feed, 0 for none.
            reason: Why a newer one was refused for good, if so.
        """
        state = FeedState.ACTIVE if serial else FeedState.NONE
        if reason is not None:
            state = FeedState.REFUSED
        self._show(serial, state, reason or "")

    def active(self, serial: int) -> None:
        """Tell that a feed has become active."""
        self._told.clear()
        self._show(serial, FeedState.ACTIVE, "")
        self._tell(serial, FeedState.ACTIVE, "", Severity.ONE)

    def fine(self, serial: int) -> None:
        """Show that the repository was asked and nothing is wrong; told if something was."""
        if self._told:
            self._tell(serial, FeedState.ACTIVE if serial else FeedState.NONE, "in order again", Severity.ONE)
        self._told.clear()
        self._show(serial, FeedState.ACTIVE if serial else FeedState.NONE, "")

    def trouble(self, serial: int, state: FeedState, reason: str, *, about: int | None = None) -> None:
        """Tell that a newer feed was not taken.

        Args:
            serial: Serial of the feed that stays active.
            state: What happened.
            reason: Why.
            about: Serial of the feed that was not taken, if it is known.
        """
        reason = clean_text(reason if about is None else f"serial {about}: {reason}", MAX_REASON_LENGTH)
        self._show(serial, state, reason)
        if (state, reason) in self._told:
            return
        if len(self._told) >= _MAX_TOLD:
            self._told.clear()
        self._told.add((state, reason))
        logger.warning("feed %s: %s", state.word, reason)
        self._tell(serial if about is None else about, state, reason, Severity.TWO)

    def flush(self) -> None:
        """Try again to store events that the outbox could not take."""
        if not self._pending:
            return
        try:
            self._outbox.put(self._pending)
        except TransientError as err:
            logger.debug("feed events wait: %s", err)
        else:
            self._pending = []

    def _show(self, serial: int, state: FeedState, reason: str) -> None:
        self._status.update(feed_serial=serial, feed_state=state, feed_reason=reason)

    def _tell(self, serial: int, state: FeedState, reason: str, severity: Severity) -> None:
        event = Event(
            boot=0,
            seq=0,
            at_ms=int(self._clock.now() * 1000),
            kind=EventKind.FEED,
            severity=severity,
            feed_serial=serial,
            feed_state=state,
            text=reason or None,
        )
        self._pending = [*self._pending, event][-_MAX_PENDING:]
        self.flush()
