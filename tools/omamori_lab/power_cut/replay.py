"""Makes disks as a power cut leaves them: everything up to a flush, and some of what was on its way after it.

Until a flush has ended a disk may keep what it was given in any order, or not at all, and of a write that it was busy
with only some sectors. So a cut has a boundary (the last flush that ended) and a subset of the writes between that one
and the next. A subset is drawn from a seed, so that a failure can be made again.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .write_log import Entry, Flag, WriteLog

_TORN_SECTOR = 512
_TORN = 0.25  # share of the writes on their way that arrive in part


@dataclasses.dataclass(frozen=True)
class Span:
    """A part of a disk, in bytes; `name` is for people."""

    name: str
    start: int
    size: int

    def meets(self, entry: Entry) -> bool:
        """Whether a request changes a byte of it, or gives it away."""
        return entry.length > 0 and entry.offset < self.start + self.size and self.start < entry.offset + entry.length


@dataclasses.dataclass(frozen=True)
class Cut:
    """A moment.

    Attributes:
        boundary: So many flushes had ended.
        seed: Which of the writes after the last flush arrived; None: none but those that were forced (FUA).
        before: Number of the first request that had not been made yet; None: everything up to the next flush had.
    """

    boundary: int
    seed: int | None = None
    before: int | None = None

    def __str__(self) -> str:
        return f"flush {self.boundary}" + (f", subset {self.seed}" if self.seed is not None else "")


def cuts(barriers: int, *, samples: int | None = None, seed: int = 0) -> list[Cut]:
    """Return the moments to look at: each boundary, bare and with one subset; or a sample of them, spread evenly.

    Args:
        barriers: How many the log has.
        samples: At most so many; None for all.
        seed: Of the subsets.
    """
    every = [Cut(boundary, subset) for boundary in range(barriers + 1) for subset in (None, seed + boundary)]
    if samples is None or samples >= len(every):
        return every
    return [every[(2 * number + 1) * len(every) // (2 * samples)] for number in range(samples)]


class Replay:
    """A disk that is moved through a log, forwards only.

    Args:
        disk: A copy of the disk as it was when the log began; changed.
        log: What was written to it.
        in_order: It keeps what it is given at once and in order, as flash memory does: each write is a boundary.
        changed: Told each part of the disk that was written, offset and length in bytes.
    """

    def __init__(
        self,
        disk: Path,
        log: WriteLog,
        *,
        in_order: bool = False,
        changed: Callable[[int, int], None] = lambda _offset, _length: None,
    ) -> None:
        self._disk = disk
        self._log = log
        self._changed = changed
        self._entries = log.entries() if not in_order else _each_flushed(log)
        self._pending: list[Entry] = []
        self._undo: list[tuple[int, bytes]] = []
        self._boundary = 0
        self._is_over = False

    @property
    def boundary(self) -> int:
        """So many flushes have been passed."""
        return self._boundary

    def move_to(self, cut: Cut) -> bool:
        """Make the disk what it was at a moment; say whether the log reaches so far.

        Raises:
            ValueError: The moment lies before the present one.
        """
        self._take_back()
        if cut.boundary < self._boundary:
            raise ValueError("a replay only goes forwards")
        while self._boundary < cut.boundary:
            if not self._pass_barrier():
                return False
        self._look_ahead()
        made = [entry for entry in self._open() if cut.before is None or entry.number < cut.before]
        forced = [entry for entry in made if entry.flags & Flag.FUA]
        chance = random.Random(cut.seed)  # noqa: S311 - to be repeatable, not secret
        chosen = [] if cut.seed is None else _draw(made, chance)
        self._try([*forced, *chosen], chance if cut.seed is not None else None)
        return True

    def _pass_barrier(self) -> bool:
        self._look_ahead()
        if self._is_over:
            return False
        barrier = self._pending[-1]
        with self._disk.open("r+b") as stream:
            for entry in self._open():
                stream.seek(entry.offset)
                stream.write(self._log.read(entry))
        self._tell((entry.offset, entry.length) for entry in self._open())
        self._pending = [dataclasses.replace(barrier, flags=barrier.flags & ~Flag.FLUSH)] if barrier.changes else []
        self._boundary += 1
        return True

    def _open(self) -> list[Entry]:
        """Return what was on its way when the next barrier was asked for."""
        return [entry for entry in self._pending if entry.changes and not entry.is_barrier]

    def _look_ahead(self) -> None:
        """Collect the requests up to the next barrier, that one included."""
        if self._pending and self._pending[-1].is_barrier:
            return
        for entry in self._entries:
            self._pending.append(entry)
            if entry.is_barrier:
                return
        self._is_over = True

    def _tell(self, parts: Iterable[tuple[int, int]]) -> None:
        for offset, length in parts:
            self._changed(offset, length)

    def _try(self, entries: Sequence[Entry], chance: random.Random | None) -> None:
        """Let requests arrive, some torn; remember what was there."""
        with self._disk.open("r+b") as stream:
            for entry in entries:
                data = self._log.read(entry)
                if chance is not None and not entry.flags & Flag.FUA and chance.random() < _TORN:
                    data = data[: chance.randrange(0, len(data) + 1, _TORN_SECTOR)]
                stream.seek(entry.offset)
                self._undo.append((entry.offset, stream.read(len(data))))
                stream.seek(entry.offset)
                stream.write(data)
        self._tell((offset, len(data)) for offset, data in self._undo)

    def _take_back(self) -> None:
        with self._disk.open("r+b") as stream:
            for offset, data in reversed(self._undo):
                stream.seek(offset)
                stream.write(data)
        undone, self._undo = self._undo, []
        self._tell((offset, len(data)) for offset, data in undone)


def _draw(made: Sequence[Entry], chance: random.Random) -> list[Entry]:
    writes = [entry for entry in made if not entry.flags & Flag.FUA]
    chance.shuffle(writes)
    return writes[: chance.randint(0, len(writes))]


def _each_flushed(log: WriteLog) -> Iterator[Entry]:
    for entry in log.entries():
        if entry.changes:
            yield dataclasses.replace(entry, flags=entry.flags & ~Flag.FLUSH)
            yield dataclasses.replace(entry, length=0, flags=Flag.FLUSH)


def count_barriers(log: WriteLog, *, in_order: bool = False) -> int:
    """Return how many barriers a log has; of one that is replayed in order, how many writes."""
    return sum(entry.changes if in_order else entry.is_barrier for entry in log.entries())


def touched(log: WriteLog, spans: Sequence[Span]) -> Iterator[tuple[Span, Entry]]:
    """Yield each request that changes one of the parts of the disk, with that part."""
    for entry in log.entries():
        for span in spans:
            if span.meets(entry):
                yield span, entry
