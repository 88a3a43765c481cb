"""Looks every second and keeps the ledger.

Where it is kept: with the outbox, in the same transaction as the events that tell it, so that nothing is told twice
and a power cut loses half a minute at most; and, more often, in a small file in memory, so that a restart of the
agent loses nothing. A full or broken data partition delays the telling; the counts wait in the kernel and here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from omamori_agent.errors import AgentError, SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.gate import Control, Count, Uninspected
from omamori_agent.ports import Clock, Cursor, Outbox
from omamori_agent.status import StatusBoard
from omamori_protocol.messages import Event

from .book import Book, Look
from .state import MAX_BYTES, BadStateError, SavedBook, decode, encode

logger = logging.getLogger(__name__)

CURSOR = "ledger"
_INTERVAL_S = 1.0
_COPY_S = 5.0
_KEEP_S = 30.0
_RETRY_S = 10.0


class LedgerGate(Protocol):
    """The part of the gate that the ledger reads."""

    def uninspected(self) -> Mapping[Uninspected, Count]:
        """Return what passed uninspected since the gate was loaded; raises `AgentError` when it cannot."""

    def control(self) -> Control:
        """Return which leases run; raises `AgentError` when it cannot."""

    def close(self) -> None:
        """Let go of it."""


class LedgerWorker:
    """`ports.Worker` of the ledger.

    Args:
        open_gate: Opens the gate; raises `AgentError` while it is not there.
        is_wired: Whether bridged packets are led to the queue.
        past_s: For how long the supervisor has led the wire past the box; None: there is none, or it did not tell.
        boot_id_path: The kernel's name of this boot.
        copy_path: The file in memory.
        outbox: Gets events, keeps the ledger.
        status: Says how the engine is; is told how long leases let everything pass.
        clock: Monotonic time must count from power-on.
    """

    name = "ledger"

    def __init__(
        self,
        *,
        open_gate: Callable[[], LedgerGate],
        is_wired: Callable[[], bool],
        past_s: Callable[[], int | None] = lambda: None,
        boot_id_path: Path,
        copy_path: Path,
        outbox: Outbox,
        status: StatusBoard,
        clock: Clock,
    ) -> None:
        self._open_gate = open_gate
        self._is_wired = is_wired
        self._past_s = past_s
        self._boot_id_path = boot_id_path
        self._copy_path = copy_path
        self._outbox = outbox
        self._status = status
        self._clock = clock
        self._gate: LedgerGate | None = None
        self._book: Book | None = None
        self._boot_id = ""
        self._copied_s = 0.0
        self._kept_s = 0.0
        self._retry_s = 0.0
        self._kept: Book | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`."""
        while not stop.is_set():
            self.step()
            stop.wait(_INTERVAL_S)
        if self._book is not None:
            self._copy(self._book)
        self._forget_gate()

    def step(self) -> None:
        """Look once, and tell what is due."""
        if self._book is None:
            self._book = self._load()
        self._book = book = self._tell(self._book.advance(self._look()))
        self._status.update(passed_by_s=book.passed_by_s)
        if book.at_s - self._copied_s >= _COPY_S:
            self._copy(book)

    def _look(self) -> Look:
        counts, control = self._read_gate()
        status = self._status.get()
        return Look(
            at_s=self._clock.monotonic(),
            now_ms=int(self._clock.now() * 1000),
            engine=status.engine,
            engine_s=status.uninspected_s,
            counts=counts,
            is_wired=self._is_wired(),
            is_hung=control is not None and control.hung_until is not None,
            is_commanded=control is not None and (control.bypass_until or control.button_until) is not None,
            past_s=self._past_s(),
        )

    def _read_gate(self) -> tuple[Mapping[Uninspected, Count] | None, Control | None]:
        try:
            if self._gate is None:
                self._gate = self._open_gate()
            return self._gate.uninspected(), self._gate.control()
        except AgentError as err:
            logger.debug("no gate: %s", err)
            self._forget_gate()
            return None, None

    def _forget_gate(self) -> None:
        if self._gate is not None:
            self._gate.close()
            self._gate = None

    def _tell(self, book: Book) -> Book:
        """Return the ledger after what is due has been told; as it was if that is not possible now."""
        events = book.due()
        is_new = self._kept is None or (book.entries != self._kept.entries or book.counts != self._kept.counts)
        if book.at_s < self._retry_s or not (events or (is_new and book.at_s - self._kept_s >= _KEEP_S)):
            return book
        after = book.settle(int(self._clock.now() * 1000))
        if not self._put(events, after):
            self._retry_s = book.at_s + _RETRY_S
            return book
        self._kept, self._kept_s = after, book.at_s
        if events:
            self._copy(after)
        return after

    def _put(self, events: list[Event], after: Book) -> bool:
        try:
            self._outbox.put(events, Cursor(CURSOR, encode(SavedBook(self._boot_id, after))))
        except TransientError as err:
            logger.debug("the ledger waits: %s", err)
            return False
        return True

    def _copy(self, book: Book) -> None:
        self._copied_s = book.at_s
        try:
            write_atomic(self._copy_path, encode(SavedBook(self._boot_id, book)).encode())
        except OSError as err:
            logger.debug("no copy of the ledger: %s", err)

    def _load(self) -> Book:
        self._boot_id = self._read_boot_id()
        found = [saved for saved in (self._load_kept(), self._load_copy()) if saved is not None]
        ours = [saved.book for saved in found if saved.boot_id == self._boot_id]
        now_s = self._clock.monotonic()
        ours = [book for book in ours if book.at_s <= now_s]
        if ours:
            return max(ours, key=lambda book: book.at_s)
        if found:
            return self._tell(found[0].book.after_power_on())
        return Book()

    def _load_kept(self) -> SavedBook | None:
        text = self._outbox.cursor(CURSOR)
        return None if text is None else self._decode(text, "kept")

    def _load_copy(self) -> SavedBook | None:
        try:
            data = read_bounded(self._copy_path, MAX_BYTES)
        except FileNotFoundError:
            return None
        except SetupError as err:
            logger.warning("copy of the ledger: %s", err)
            return None
        return self._decode(data.decode("utf-8", "replace"), "copied")

    @staticmethod
    def _decode(text: str, which: str) -> SavedBook | None:
        try:
            return decode(text)
        except BadStateError as err:
            logger.warning("the %s ledger cannot be read: %s", which, err)
            return None

    def _read_boot_id(self) -> str:
        try:
            return read_bounded(self._boot_id_path, 128).decode("ascii", "replace").strip()[:64] or "unknown"
        except (FileNotFoundError, SetupError):
            return "unknown"
