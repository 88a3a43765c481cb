"""Messages that the broker keeps for us: the latest state, sent when it has changed, one at a time.

Used by one connection's thread. A message that the broker refuses is tried again after a while; one that it does not
answer counts for the session's patience.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from omamori_agent.ports import Clock

from .broker import Acknowledged, BrokerConnection

logger = logging.getLogger(__name__)

_REFUSAL = 0x80


class RetainedMessage:
    """One retained topic.

    Args:
        name: What it is, for the log.
        topic: Where it goes.
        compose: Returns what shall be retained now, or None for nothing yet.
        clock: Time.
        retry_s: Pause after a refusal.
    """

    def __init__(
        self, name: str, topic: str, compose: Callable[[], bytes | None], clock: Clock, *, retry_s: float
    ) -> None:
        self._name = name
        self._topic = topic
        self._compose = compose
        self._clock = clock
        self._retry_s = retry_s
        self._sent: bytes | None = None
        self._message: int | None = None
        self._sent_at_s = 0.0
        self._retry_at_s = 0.0

    @property
    def waits_since(self) -> float | None:
        """When what the broker has not answered yet was sent, or None if it has answered everything."""
        return None if self._message is None else self._sent_at_s

    def send(self, connection: BrokerConnection, payload: bytes | None = None) -> None:
        """Send what is new, if the one before is answered and no refusal holds us back.

        Args:
            connection: The connection; always the same.
            payload: Send this now, whatever waits (a goodbye).

        Raises:
            BrokerUnreachableError: The connection is lost.
        """
        now_s = self._clock.monotonic()
        if payload is None:
            if self._message is not None or now_s < self._retry_at_s:
                return
            payload = self._compose()
        if payload is None or payload == self._sent:
            return
        self._message = connection.publish(self._topic, payload, confirmed=True, retain=True)
        self._sent = payload
        self._sent_at_s = now_s

    def answered(self, item: Acknowledged) -> bool:
        """Take an answer; returns whether it was ours."""
        if self._message is None or item.message_id != self._message:
            return False
        self._message = None
        if item.reason >= _REFUSAL:
            logger.warning("the broker refuses our %s (0x%02x)", self._name, item.reason)
            self._sent = None
            self._retry_at_s = self._clock.monotonic() + self._retry_s
        return True
