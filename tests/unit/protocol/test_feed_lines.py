"""Lists as blocks of lines: compared, changed, without ever being whole in memory."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol.errors import PackRejectedError
from omamori_protocol.feed_lines import (
    BLOCK_BYTES,
    Blocks,
    change,
    compare,
    is_ascending,
    read_blocks,
    read_list_blocks,
)

LINES = st.lists(st.binary(min_size=1, max_size=3).filter(lambda line: b"\n" not in line), unique=True).map(sorted)


def blocks(lines: list[bytes], size: int) -> Blocks:
    return (lines[at : at + size] for at in range(0, len(lines), size))


@given(old=LINES, new=LINES, sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)))
def test_what_leads_from_one_list_to_another_leads_there(
    old: list[bytes], new: list[bytes], sizes: tuple[int, int, int]
) -> None:
    differences = list(compare(blocks(old, sizes[0]), blocks(new, sizes[1])))
    removed = [item for difference in differences for item in difference.removed]
    added = [line for difference in differences for line in difference.added]
    assert [line for _place, line in removed] == sorted(set(old) - set(new))
    assert added == sorted(set(new) - set(old))
    assert all(old[place] == line for place, line in removed)
    changed = change(blocks(old, sizes[0]), (place for place, _line in removed), blocks(added, sizes[2]), "x")
    assert list(itertools.chain.from_iterable(changed)) == new


def test_lists_that_are_alike_differ_nowhere() -> None:
    lines = [b"%d" % number for number in range(100, 200)]
    assert list(compare(blocks(lines, 7), blocks(lines, 9))) == []


def test_more_additions_than_lines_are_never_together_in_memory() -> None:
    added = [b"b%06d" % number for number in range(1000)]
    result = list(change(blocks([b"a", b"c"], 2), iter(()), blocks(added, 10), "x"))
    assert list(itertools.chain.from_iterable(result)) == [b"a", *added, b"c"]
    assert max(map(len, result)) <= 12


def test_removal_behind_the_end() -> None:
    with pytest.raises(PackRejectedError, match="line 2 is to be removed, there are 2"):
        list(change(blocks([b"a", b"b"], 2), iter((2,)), iter(()), "x"))


def test_lines_of_a_file_span_blocks(tmp_path: Path) -> None:
    lines = [b"%07d" % number for number in range(1000)]
    data = b"".join(line + b"\n" for line in lines)
    assert list(itertools.chain.from_iterable(read_blocks(io.BytesIO(data), "x", block_bytes=37))) == lines
    path = tmp_path / "list"
    path.write_bytes(data)
    assert list(itertools.chain.from_iterable(read_list_blocks(path))) == lines
    assert list(read_list_blocks(None)) == []


def test_last_line_without_an_end() -> None:
    with pytest.raises(PackRejectedError, match="the last line has no end"):
        list(read_blocks(io.BytesIO(b"a\nb"), "x"))


def test_line_that_fills_a_block_and_one_that_goes_on() -> None:
    longest = b"x" * BLOCK_BYTES
    assert list(read_blocks(io.BytesIO(longest + b"\n"), "x")) == [[longest]]
    with pytest.raises(PackRejectedError, match="line too long"):
        list(read_blocks(io.BytesIO(longest * 2), "x"))


@pytest.mark.parametrize(
    ("lines", "after", "expected"),
    [([b"a", b"b"], b"", True), ([b"b", b"a"], b"", False), ([b"a", b"a"], b"", False), ([b"a"], b"a", False)],
)
def test_order(lines: list[bytes], after: bytes, expected: bool) -> None:
    assert is_ascending(lines, after) is expected
