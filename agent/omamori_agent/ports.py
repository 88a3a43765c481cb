"""Narrow interfaces between the agent's parts; `app` wires the real ones, tests wire simulators."""

from __future__ import annotations

import dataclasses
import threading
from typing import Protocol

from omamori_protocol.messages import Event


class Worker(Protocol):
    """Something that runs as long as the daemon; a worker that returns early or raises ends the daemon."""

    @property
    def name(self) -> str:
        """Name of the thread, for logs."""

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; react to it within a second."""


@dataclasses.dataclass(frozen=True)
class Cursor:
    """How far a source of events has been read: `name` of the source, an opaque `position`."""

    name: str
    position: str


class Outbox(Protocol):
    """Durable store of events until the broker has them."""

    def put(self, events: list[Event], cursor: Cursor | None = None) -> None:
        """Store events and, in the same transaction, how far their source has been read.

        Boot and sequence numbers in the events are ignored; the outbox assigns them.
        When this returns, a power cut loses neither.

        Raises:
            TransientError: Nothing was stored (disk full); the source keeps its events and tries again.
            ProtocolError: An event breaks the bounds of its message; nothing was stored.
        """

    def cursor(self, name: str) -> str | None:
        """Return the stored position of a source, or None."""


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> float:
        """Unix time in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
