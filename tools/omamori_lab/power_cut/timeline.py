"""Which states of the disk and of the firmware's variables there may have been at the same moment.

The disk forgets what was not flushed, the variables' flash memory keeps each byte at once. A moment lies between two
flushes of the disk; the variables are as they were after one of the writes that may have come in between. Where the
recording's clock does not tell which of two was first, both orders are moments.
"""

from __future__ import annotations

import bisect
import dataclasses
import random
from collections.abc import Iterator

from .recording import Recording
from .replay import Cut
from .write_log import Entry


@dataclasses.dataclass(frozen=True)
class Moment:
    """A power cut.

    Attributes:
        cut: What the disk keeps.
        writes: So many writes to the variables had been done.
    """

    cut: Cut
    writes: int

    def __str__(self) -> str:
        return f"{self.cut}, {self.writes} writes to the variables"


class Timeline:
    """The two logs of a recording, put together.

    Args:
        recording: It has ended.
    """

    def __init__(self, recording: Recording) -> None:
        disk_log, vars_log = recording.logs()
        entries = list(disk_log.entries())
        self._ends = ends = [_end(entry) for entry in entries]
        self._barriers = [entry.number for entry in entries if entry.is_barrier]
        self._count = len(entries)
        clock = recording.clock()
        around = [clock.disk_around(_end(entry)) for entry in vars_log.entries() if entry.changes]
        # In entries of the disk's log: surely made before, made at most.
        self._earliest = _rising([bisect.bisect_right(ends, low) for low, _ in around])
        self._latest = _rising([bisect.bisect_right(ends, high) for _, high in around])

    @property
    def boundaries(self) -> int:
        """How many flushes there are."""
        return len(self._barriers)

    @property
    def writes(self) -> int:
        """How many writes to the variables there are."""
        return len(self._earliest)

    def boundary_at(self, length: int) -> int:
        """Return how many flushes had ended when the disk's log had a length."""
        return bisect.bisect_left(self._barriers, bisect.bisect_right(self._ends, length))

    def spread(self, first: int, count: int, *, around: int = 2) -> list[int]:
        """Return boundaries from `first` on: all near writes to the variables, and so many others, evenly spread."""
        every = range(first, self.boundaries + 1)
        busy = [
            number for number in every if self._at_least(self.window(number)[0]) < self._at_most(self.window(number)[1])
        ]
        chosen = {near for number in busy for near in range(number - around, number + around + 1) if near in every}
        rest = [number for number in every if number not in chosen]
        chosen |= {rest[(2 * at + 1) * len(rest) // (2 * count)] for at in range(count if rest else 0)}
        return sorted(chosen)

    def window(self, boundary: int) -> tuple[int, int]:
        """Return how many requests to the disk had been made at least and at most between two flushes."""
        first = self._barriers[boundary - 1] + 1 if boundary else 0
        last = self._barriers[boundary] if boundary < len(self._barriers) else self._count
        return first, last

    def moments(self, boundary: int) -> Iterator[Moment]:
        """Yield the moments between a flush and the next at which the disk keeps nothing more than what was flushed."""
        first, last = self.window(boundary)
        for writes in range(self._at_least(first), self._at_most(last) + 1):
            made = self._earliest[writes - 1] if writes else 0
            yield Moment(Cut(boundary, before=max(first, made)), writes)

    def drawn(self, boundary: int, seed: int) -> Moment:
        """Return a moment between a flush and the next at which the disk keeps some of what was on its way."""
        chance = random.Random(f"{boundary} {seed}")  # noqa: S311 - to be repeatable, not secret
        first, last = self.window(boundary)
        made = chance.randint(first, last)
        writes = chance.randint(self._at_least(made), self._at_most(made))
        return Moment(Cut(boundary, seed, made), writes)

    def _at_least(self, made: int) -> int:
        return bisect.bisect_left(self._latest, made)

    def _at_most(self, made: int) -> int:
        return bisect.bisect_right(self._earliest, made)


def _end(entry: Entry) -> int:
    """Return how long the log is when it has this entry."""
    return entry.data_offset + (0 if entry.is_discard else entry.length)


def _rising(values: list[int]) -> list[int]:
    """Return the same, no value lower than the one before it: flash memory is written in order."""
    highest = 0
    for at, value in enumerate(values):
        values[at] = highest = max(highest, value)
    return values
