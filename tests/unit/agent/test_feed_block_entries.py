"""The block list as a stream: which list a line belongs to, and what differs between two feeds."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.feed.block_entries import entries, entry_changes
from omamori_agent.feed.stored import StoredFeed
from omamori_protocol.vocabulary import Action
from sim.packs import PackSource

ADDRESSES = st.lists(st.integers(1, 12).map(lambda last: f"203.0.113.{last}"), unique=True).map(
    lambda lines: tuple(sorted(lines))
)
LISTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), ADDRESSES)


def feed(directory: Path, lists: dict[str, tuple[str, ...]], **changes: object) -> StoredFeed:
    source = PackSource(addresses=lists, **changes)  # type: ignore[arg-type]
    for path, data in source.files().items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    return StoredFeed(source.manifest(), directory)


def test_line_in_several_lists_belongs_to_the_first(tmp_path: Path) -> None:
    made = feed(tmp_path, {"b": ("203.0.113.1", "203.0.113.2"), "a": ("203.0.113.1", "203.0.113.3")})
    assert list(entries(made)) == [(b"203.0.113.1", 1), (b"203.0.113.2", 2), (b"203.0.113.3", 1)]


def test_lists_that_only_log_are_not_enforced(tmp_path: Path) -> None:
    assert list(entries(feed(tmp_path, {"a": ("203.0.113.1",)}, action=Action.LOGGED))) == []


@given(LISTS, LISTS)
def test_changes_lead_from_one_to_the_other(
    tmp_path_factory: pytest.TempPathFactory,
    old: dict[str, tuple[str, ...]],
    new: dict[str, tuple[str, ...]],
) -> None:
    before = feed(tmp_path_factory.mktemp("old"), old)
    after = feed(tmp_path_factory.mktemp("new"), new)
    held = dict(entries(before))
    for line, number in entry_changes(before, after):
        if number is None:
            del held[line]
        else:
            assert held.get(line) != number
            held[line] = number
    assert held == dict(entries(after))


def test_hundred_thousand_addresses_are_never_in_memory(tmp_path: Path) -> None:
    lines = tuple(sorted(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(100_000)))
    before = feed(tmp_path / "old", {"a": lines})
    after = feed(tmp_path / "new", {"a": (*lines[:50_000], *lines[50_100:])})
    tracemalloc.start()
    try:
        changed = sum(1 for _change in entry_changes(before, after))
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert changed == 100
    assert peak < 4 << 20  # as objects, the lines alone are 13 MiB
