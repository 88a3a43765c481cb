"""The lines of a list, some thousand at a time: read, compared, changed.

A list is a file of lines in ascending order of their bytes, each once, each with its end. It may have millions of
lines, so nothing here holds more than a few blocks of one, whatever the lists hold, and nothing works line by line
where a block will do. Whether a line is a domain or a digest is not known here.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import PackRejectedError

BLOCK_BYTES = 128 * 1024

Blocks = Iterator[list[bytes]]


class Difference(NamedTuple):
    """What differs between two lists in one stretch of both, each in ascending order.

    Attributes:
        removed: Lines that only the old list has, with their place in it (0 is the first line).
        added: Lines that only the new list has.
    """

    removed: list[tuple[int, bytes]]
    added: list[bytes]


def read_blocks(file: BinaryIO, what: str, *, block_bytes: int | None = None) -> Blocks:
    """Yield the lines of a file, without their ends.

    Args:
        file: At its beginning.
        what: Name for errors.
        block_bytes: How much is read at once.

    Raises:
        PackRejectedError: A line goes on for more than a block, or the last one has no end.
    """
    size = block_bytes or BLOCK_BYTES
    rest = b""
    while chunk := file.read(size):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > size:
            raise PackRejectedError(f"{what}: line too long")
        if lines:
            yield lines
    if rest:
        raise PackRejectedError(f"{what}: the last line has no end")


def read_list_blocks(path: Path | None) -> Blocks:
    """Yield the lines of a list's file; None stands for an empty list."""
    if path is not None:
        with path.open("rb") as file:
            yield from read_blocks(file, path.name)


def is_ascending(lines: list[bytes], after: bytes) -> bool:
    """Tell whether the lines are in order, each once, and all behind `after`."""
    return after < lines[0] and all(map(operator.lt, lines, itertools.islice(lines, 1, None)))


def compare(old: Blocks, new: Blocks) -> Iterator[Difference]:
    """Yield what leads from one list to another; stretches that are alike yield nothing."""
    place = 0
    before: list[bytes] = next(old, [])
    after: list[bytes] = next(new, [])
    while before or after:
        if not before or not after:
            upto_before, upto_after = len(before), len(after)
        else:
            bound = min(before[-1], after[-1])
            upto_before, upto_after = bisect.bisect_right(before, bound), bisect.bisect_right(after, bound)
        one, other = before[:upto_before], after[:upto_after]
        if one != other:
            kept, wanted = set(one), set(other)
            yield Difference(
                [(place + index, line) for index, line in enumerate(one) if line not in wanted],
                [line for line in other if line not in kept],
            )
        place += upto_before
        before = before[upto_before:] or next(old, [])
        after = after[upto_after:] or next(new, [])


def change(lists: Blocks, removals: Iterator[int], additions: Blocks, what: str) -> Blocks:
    """Yield a list without the lines at the places `removals`, then with `additions`; all three ascend.

    Raises:
        PackRejectedError: A place lies behind the end of the list.
    """
    place = 0
    gone = next(removals, None)
    pending: list[bytes] = next(additions, [])
    for block in lists:
        lines = block
        bound = lines[-1]
        end = place + len(lines)
        if gone is not None and gone < end:
            places = set()
            while gone is not None and gone < end:
                places.add(gone - place)
                gone = next(removals, None)
            lines = [line for index, line in enumerate(lines) if index not in places]
        place = end
        while pending and pending[0] <= bound:
            cut = min(bound, pending[-1])
            some, others = bisect.bisect_right(pending, cut), bisect.bisect_right(lines, cut)
            yield sorted(lines[:others] + pending[: max(some, 1)])
            lines, pending = lines[others:], pending[max(some, 1) :] or next(additions, [])
        if lines:
            yield lines
    if gone is not None:
        raise PackRejectedError(f"{what}: line {gone} is to be removed, there are {place}")
    while pending:
        yield pending
        pending = next(additions, [])
