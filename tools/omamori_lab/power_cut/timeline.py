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
        ends = [_end(entry) for entry in entries]
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

    def first_boundary(self, disk_log_length: int, recording: Recording) -> int:
        """Return the first boundary after the disk's log had a length."""
        made = sum(_end(entry) <= disk_log_length for entry in recording.logs()[0].entries())
        return bisect.bisect_left(self._barriers, made)

    def window(self, boundary: int) -> tuple[int, int]:
        """Return how many requests to the disk had been made at least and at most between two flushes."""
        first = self._barriers[boundary - 1] + 1 if boundary else 0
        last = self._barriers[boundary] if boundary < len(self._barriers) else self._count
        return first, last

    def moments(self, boundary: int) -> Iterator[Moment]:
        """Yield the moments between a flush and the next at which the disk keeps nothing more than what was flushed."""
        first, last = self.window(boundary)
        for writes in range(self._at_least(first), self._at_most(last) + 1):
            yield Moment(Cut(boundary), writes)

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
