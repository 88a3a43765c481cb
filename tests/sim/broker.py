"""A broker in memory that implements the link's interface, counts what it was asked and can misbehave."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque

from omamori_agent.identity import Identity
from omamori_agent.link.broker import Acknowledged, BrokerUnreachableError, Hello, Incoming, Waker


@dataclasses.dataclass(frozen=True)
class Published:
    """One message as the broker got it."""

    topic: str
    payload: bytes
    confirmed: bool
    retain: bool
    expires_s: int | None = None


class SimulatedConnection:
    """`omamori_agent.link.BrokerConnection`."""

    def __init__(self, broker: SimulatedBroker, hello: Hello) -> None:
        self._broker = broker
        self._next_id = 0
        self.hello = hello
        self.receive_maximum = broker.receive_maximum
        self.local_address = broker.local_address
        self.session_present = broker.remembers and broker.keeps_sessions
        self.keeps_sessions = broker.keeps_sessions
        broker.remembers = True
        self.incoming: deque[Incoming] = deque()
        self.unanswered: deque[tuple[int, Published]] = deque()
        self.subscriptions: list[str] = []
        self.is_open = True
        self.goodbye_s: float | None = None

    def publish(
        self, topic: str, payload: bytes, *, confirmed: bool, retain: bool = False, expires_s: int | None = None
    ) -> int:
        self._check()
        self._next_id += 1
        message = Published(topic, payload, confirmed, retain, expires_s)
        self._broker.published.append(message)
        if retain:
            self._broker.retained[topic] = payload
        if confirmed:
            self.unanswered.append((self._next_id, message))
            self._broker.most_unanswered = max(self._broker.most_unanswered, len(self.unanswered))
            if self._broker.answers:
                self.answer()
        return self._next_id

    def answer(self, reason: int | None = None) -> None:
        """Acknowledge the oldest unanswered message."""
        message_id, message = self.unanswered.popleft()
        if reason is None:
            reason = self._broker.reasons.get(message.topic.rpartition("/")[2], 0)
        self.incoming.append(Acknowledged(message_id, reason))

    def subscribe(self, topic: str) -> None:
        self._check()
        self.subscriptions.append(topic)

    def poll(self, timeout_s: float, waker: Waker) -> list[Incoming]:
        self._check()
        deadline = time.monotonic() + min(timeout_s, 0.02)
        while not self.incoming and time.monotonic() < deadline:
            time.sleep(0.001)
        found = list(self.incoming)
        self.incoming.clear()
        return found

    def close(self, *, goodbye_s: float = 0.0) -> None:
        if self.is_open and goodbye_s == 0.0:
            self._broker.retained[self.hello.will_topic] = self.hello.will_payload
        self.is_open = False
        self.goodbye_s = goodbye_s

    def _check(self) -> None:
        if not self.is_open or not self._broker.is_up:
            raise BrokerUnreachableError("connection lost")


class SimulatedBroker:
    """`omamori_agent.link.Broker`.

    Attributes:
        is_up: Whether it can be reached.
        answers: Whether it acknowledges at once.
        remembers: Whether it knows the session of the box.
        keeps_sessions: Whether it ever remembers.
        reasons: Reason code of acknowledgements by the last level of the topic.
    """

    def __init__(self) -> None:
        self.is_up = True
        self.answers = True
        self.remembers = False
        self.keeps_sessions = True
        self.reasons: dict[str, int] = {}
        self.receive_maximum = 65535
        self.local_address = "192.0.2.7"
        self.connections: list[SimulatedConnection] = []
        self.attempts = 0
        self.published: list[Published] = []
        self.retained: dict[str, bytes] = {}
        self.most_unanswered = 0

    def connect(self, hello: Hello, identity: Identity, stop: threading.Event) -> SimulatedConnection:
        self.attempts += 1
        if not self.is_up:
            raise BrokerUnreachableError("no route to host")
        connection = SimulatedConnection(self, hello)
        self.connections.append(connection)
        return connection

    def payloads(self, leaf: str) -> list[bytes]:
        """Return what was published on topics ending in `leaf`, oldest first."""
        return [message.payload for message in self.published if message.topic.endswith("/" + leaf)]
