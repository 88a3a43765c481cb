"""An answer that goes to the cloud once: sent until the broker has it and somebody listens.

Used by one connection's thread; what waits is asked from the one who keeps it, so the next connection begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from omamori_agent.ports import Clock
from omamori_protocol.topics import job_topic

from .broker import Acknowledged, BrokerConnection

logger = logging.getLogger(__name__)

_REFUSAL = 0x80
_NOBODY_LISTENS = 0x10  # success on the surface: the broker has thrown it away


class JobPort(Protocol):
    """Who keeps answers until they are sent."""

    def waiting(self) -> tuple[bytes, bytes] | None:
        """Return the command's id and the message to send, or None."""

    def sent(self, command_id: bytes) -> None:
        """Take note that the answer to a command has arrived."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` when there is something to send."""


class NoJobs:
    """A box that is never asked for anything."""

    def waiting(self) -> None:
        """Nothing waits."""

    def sent(self, command_id: bytes) -> None:
        """Nothing was sent."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """There will be nothing."""


class JobMessage:
    """The sending of one answer at a time.

    Args:
        device: The box.
        jobs: Who keeps answers.
        clock: Time.
        retry_s: Pause after a refusal.
    """

    def __init__(self, device: str, jobs: JobPort, clock: Clock, *, retry_s: float) -> None:
        self._device = device
        self._jobs = jobs
        self._clock = clock
        self._retry_s = retry_s
        self._sent: tuple[int, bytes] | None = None
        self._sent_at_s = 0.0
        self._retry_at_s = 0.0

    @property
    def waits_since(self) -> float | None:
        """When what the broker has not answered yet was sent, or None if it has answered everything."""
        return None if self._sent is None else self._sent_at_s

    def send(self, connection: BrokerConnection) -> None:
        """Send what waits, if nothing is on its way and no refusal holds us back.

        Raises:
            BrokerUnreachableError: The connection is lost.
        """
        now_s = self._clock.monotonic()
        if self._sent is not None or now_s < self._retry_at_s:
            return
        waiting = self._jobs.waiting()
        if waiting is None:
            return
        command_id, payload = waiting
        message_id = connection.publish(job_topic(self._device, command_id), payload, confirmed=True)
        self._sent, self._sent_at_s = (message_id, command_id), now_s

    def answered(self, item: Acknowledged) -> bool:
        """Take an answer; returns whether it was ours."""
        if self._sent is None or item.message_id != self._sent[0]:
            return False
        command_id, self._sent = self._sent[1], None
        if item.reason >= _REFUSAL or item.reason == _NOBODY_LISTENS:
            logger.warning("the broker does not take the answer to a command (0x%02x); kept", item.reason)
            self._retry_at_s = self._clock.monotonic() + self._retry_s
        else:
            self._jobs.sent(command_id)
        return True
