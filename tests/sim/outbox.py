"""An outbox in memory that can be made to fail, and that "survives" what it has stored."""

from __future__ import annotations

from omamori_agent.errors import TransientError
from omamori_agent.ports import Cursor
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind


class MemoryOutbox:
    """`omamori_agent.ports.Outbox`; refuses `failures` times before it takes something."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.cursors: dict[str, str] = {}
        self.failures = 0
        self.puts = 0

    def put(self, events: list[Event], cursor: Cursor | None = None) -> None:
        if self.failures:
            self.failures -= 1
            raise TransientError("spool: disk full")
        for event in events:
            event.encode()
        self.puts += 1
        self.events += events
        if cursor is not None:
            self.cursors[cursor.name] = cursor.position

    def cursor(self, name: str) -> str | None:
        return self.cursors.get(name)

    def of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]
