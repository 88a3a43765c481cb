"""What the link needs of a broker, and nothing of MQTT's machinery.

A connection is made once, used by one thread, and thrown away when it is lost; nothing is queued in it that the
spool does not hold as well.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from typing import Protocol

from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.identity import Identity


class BrokerUnreachableError(TransientError):
    """There is no connection, or it was lost; connect again later."""


class BrokerRefusedError(RejectedError):
    """The broker, or its certificate, or ours, was refused; somebody has to act, but later tries cost little."""


@dataclasses.dataclass(frozen=True)
class Acknowledged:
    """The broker answered a publication; `reason` is MQTT's code, 0x80 and above are refusals."""

    message_id: int
    reason: int


@dataclasses.dataclass(frozen=True)
class Received:
    """A message for us."""

    topic: str
    payload: bytes


Incoming = Acknowledged | Received


@dataclasses.dataclass(frozen=True)
class Hello:
    """How a connection introduces itself, and what the broker says for us when it breaks."""

    client_id: str
    will_topic: str
    will_payload: bytes


class Waker:
    """Lets other threads interrupt the link's waiting."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._descriptor

    def set(self) -> None:
        """Wake whoever waits; callable from every thread."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> bool:
        """Take back the signal; returns whether there was one."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return False
        return True


class BrokerConnection(Protocol):
    """A live connection, used by one thread."""

    @property
    def receive_maximum(self) -> int:
        """How many unacknowledged publications the broker takes at once."""

    @property
    def local_address(self) -> str:
        """IP address of our side."""

    @property
    def session_present(self) -> bool:
        """Whether the broker remembers us from before."""

    @property
    def keeps_sessions(self) -> bool:
        """Whether it would; a cluster does not, and its not remembering us tells nothing."""

    def publish(
        self, topic: str, payload: bytes, *, confirmed: bool, retain: bool = False, expires_s: int | None = None
    ) -> int:
        """Send a message; a confirmed one (QoS 1) is answered by `Acknowledged` with the returned id.

        Args:
            topic: Where to.
            payload: What.
            confirmed: Whether we want to know that the broker has it.
            retain: Whether the broker keeps it for those who come later.
            expires_s: Seconds after which it is worth nothing and need not be delivered any more; None for never.

        Raises:
            BrokerUnreachableError: The connection is lost.
        """

    def subscribe(self, topic: str) -> None:
        """Ask for messages on `topic`.

        Raises:
            BrokerUnreachableError: The connection is lost.
        """

    def poll(self, timeout_s: float, waker: Waker) -> list[Incoming]:
        """Do what the connection needs, and return what came within `timeout_s` seconds (or until woken).

        Raises:
            BrokerUnreachableError: The connection is lost.
        """

    def close(self, *, goodbye_s: float = 0.0) -> None:
        """End the connection; with `goodbye_s` in an orderly way first, so that the will is not published."""


class Broker(Protocol):
    """Makes connections."""

    def connect(self, hello: Hello, identity: Identity, stop: threading.Event) -> BrokerConnection:
        """Connect, authenticate both sides and wait for the broker's consent.

        Raises:
            BrokerUnreachableError: It did not answer, or `stop` was set.
            BrokerRefusedError: It, or we, were refused.
        """
