"""Which parts of the running release help most to describe a piece of the next one.

A compressor finds what is alike by itself, but only within what it is given, and a box has memory for little. Blocks
of 4096 bytes that are the same in both images are landmarks: between two of them, changed bytes are most like the old
bytes between the same two. So a segment refers to its own landmarks' places and to what lies between their neighbours'.
Pure: bytes and numbers in, ranges out.
"""

from __future__ import annotations

import bisect
import hashlib
import mmap

from omamori_protocol.segments import MAX_REFERENCE_BYTES, MAX_REFERENCES, MIB

BLOCK = 4096
_MARGIN = 64 * 1024  # around everything that is referred to
_REACH = 6 * MIB  # to both sides of where a piece without landmarks should be
_MAX_SAME = 8  # places that are remembered of one content
_EMPTY = bytes(BLOCK)

Range = tuple[int, int]


class Landmarks:
    """The blocks that an image has in common with an older one.

    Args:
        new: The image that is described.
        old: The image that runs.
    """

    def __init__(self, new: mmap.mmap | bytes, old: mmap.mmap | bytes) -> None:
        self._old_size = len(old)
        self._new_size = len(new)
        places: dict[bytes, list[int]] = {}
        for at in range(0, len(old) - BLOCK + 1, BLOCK):
            block = old[at : at + BLOCK]
            if block != _EMPTY:
                same = places.setdefault(_digest(block), [])
                if len(same) < _MAX_SAME:
                    same.append(at)
        self._new: list[int] = []
        self._old: list[int] = []
        expected = 0
        for at in range(0, len(new) - BLOCK + 1, BLOCK):
            same = places.get(_digest(new[at : at + BLOCK]), [])
            if same:
                # Of several places the one where it would be if nothing had moved since the last landmark.
                best = min(same, key=lambda place: abs(place - expected))
                self._new.append(at)
                self._old.append(best)
                expected = best
            expected += BLOCK

    def __len__(self) -> int:
        return len(self._new)

    def references(self, start: int, end: int) -> list[Range]:
        """Return ranges of the old image (begin, end) for the new image's bytes from `start` to `end`, ascending."""
        first = bisect.bisect_left(self._new, start)
        last = bisect.bisect_left(self._new, end)
        ranges: list[Range] = [(old, old + BLOCK) for old in self._old[first:last]]
        # Stretches without a landmark: before the first one, between two, after the last.
        previous_new, previous_old = (self._new[first - 1] + BLOCK, self._old[first - 1] + BLOCK) if first else (0, 0)
        for index in range(first, last + 1):
            if index < len(self._new):
                next_new, next_old = self._new[index], self._old[index]
            else:
                next_new, next_old = self._new_size, self._old_size
            if next_new > previous_new:
                gap = (max(previous_new, start), min(next_new, end))
                ranges += self._between((previous_new, next_new), (previous_old, next_old), gap)
            if index < len(self._new):
                previous_new, previous_old = next_new + BLOCK, next_old + BLOCK
        return fit(ranges, self._old_size)

    def _between(self, new: Range, old: Range, gap: Range) -> list[Range]:
        """Return where to look for the bytes `gap` of the stretch `new`, which took the place of the stretch `old`."""
        if gap[0] >= gap[1]:
            return []
        length = gap[1] - gap[0]
        if old[0] <= old[1] <= old[0] + 4 * (new[1] - new[0]) + MIB:
            if old[1] - old[0] <= 2 * length + _MARGIN:
                return [(old[0] - _MARGIN, old[1] + _MARGIN)]
            # A long stretch: what lies at the same share of the way, and a good deal to both sides.
            share = (old[1] - old[0]) / (new[1] - new[0])
            begin = old[0] + int((gap[0] - new[0]) * share)
            end = old[0] + int((gap[1] - new[0]) * share)
            return [(max(old[0], begin - _REACH) - _MARGIN, min(old[1], end + _REACH) + _MARGIN)]
        # The landmarks are not in the same order: look behind the one and before the other.
        reach = min(length, _REACH) + _MARGIN
        return [(old[0] - _MARGIN, old[0] + reach), (old[1] - reach, old[1] + _MARGIN)]


def fit(ranges: list[Range], size: int) -> list[Range]:
    """Return ranges put together, within 0..`size`, and as many and as large as a segment may refer to."""
    merged: list[Range] = []
    for begin, end in sorted((max(0, begin), min(size, end)) for begin, end in ranges):
        if begin >= end:
            continue
        if merged and begin <= merged[-1][1] + BLOCK:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    while len(merged) > MAX_REFERENCES:  # bridge the smallest hole
        hole = min(range(1, len(merged)), key=lambda index: merged[index][0] - merged[index - 1][1])
        merged[hole - 1 : hole + 1] = [(merged[hole - 1][0], merged[hole][1])]
    excess = sum(end - begin for begin, end in merged) - MAX_REFERENCE_BYTES
    while excess > 0:  # cut the largest one at both ends
        index = max(range(len(merged)), key=lambda index: merged[index][1] - merged[index][0])
        begin, end = merged[index]
        cut = min(excess, end - begin)
        merged[index] = (begin + cut // 2, end - (cut - cut // 2))
        excess -= cut
    return [(begin, end) for begin, end in merged if begin < end]


def _digest(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=16).digest()
