"""What a delta refers to: landmarks, what lies between them, and never more than a box has memory for."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from omamori_ota.firmware.matching import BLOCK, Landmarks, fit
from omamori_protocol.segments import MAX_REFERENCE_BYTES, MAX_REFERENCES

OLD = random.Random(5).randbytes(64 * BLOCK)


def covers(ranges: list[tuple[int, int]], begin: int, end: int) -> bool:
    return any(first <= begin and end <= last for first, last in ranges)


def test_what_has_not_changed_refers_to_its_own_place() -> None:
    landmarks = Landmarks(OLD, OLD)
    assert len(landmarks) == 64
    assert covers(landmarks.references(8 * BLOCK, 16 * BLOCK), 8 * BLOCK, 16 * BLOCK)


def test_what_has_moved_is_found() -> None:
    new = random.Random(6).randbytes(3 * BLOCK) + OLD[:-BLOCK]
    ranges = Landmarks(new, OLD).references(20 * BLOCK, 30 * BLOCK)
    assert covers(ranges, 17 * BLOCK, 27 * BLOCK)


def test_changed_bytes_refer_to_the_old_ones_between_the_same_landmarks() -> None:
    new = OLD[: 20 * BLOCK] + random.Random(7).randbytes(4 * BLOCK) + OLD[26 * BLOCK :]
    assert covers(Landmarks(new, OLD).references(20 * BLOCK, 24 * BLOCK), 20 * BLOCK, 26 * BLOCK)


def test_repeated_blocks_are_taken_where_they_are_expected() -> None:
    same = random.Random(8).randbytes(BLOCK)
    old = OLD[: 10 * BLOCK] + same + OLD[10 * BLOCK : 40 * BLOCK] + same
    ranges = Landmarks(old, old).references(10 * BLOCK, 11 * BLOCK)
    assert ranges == [(10 * BLOCK, 11 * BLOCK)]


def test_nothing_in_common_looks_at_the_same_share_of_the_way() -> None:
    new = random.Random(9).randbytes(len(OLD))
    landmarks = Landmarks(new, OLD)
    assert len(landmarks) == 0
    assert covers(landmarks.references(30 * BLOCK, 31 * BLOCK), 30 * BLOCK, 31 * BLOCK)


@given(
    st.lists(st.tuples(st.integers(-(2**20), 2**28), st.integers(-(2**20), 2**28)), max_size=60),
    st.integers(1, 2**28),
)
def test_any_ranges_are_made_to_fit(ranges: list[tuple[int, int]], size: int) -> None:
    found = fit(ranges, size)
    assert len(found) <= MAX_REFERENCES
    assert sum(end - begin for begin, end in found) <= MAX_REFERENCE_BYTES
    assert all(0 <= begin < end <= size for begin, end in found)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))
