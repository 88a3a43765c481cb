"""A log of writes, and the disks that it leads to."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from omamori_lab.errors import LabError
from omamori_lab.power_cut import Cut, Entry, Replay, Span, WriteLog, cuts
from omamori_lab.power_cut.replay import count_barriers, touched
from omamori_lab.power_cut.write_log import Flag

SECTOR = 512
SECTORS = 16


def sector(letter: str) -> bytes:
    return letter.encode() * SECTOR


def write_log(path: Path, requests: list[tuple[int, str, Flag]], *, cut: int = 0) -> WriteLog:
    """Write a log as QEMU does: sector, one letter for each sector that is written, flags."""
    body = bytearray()
    for at, letters, flags in requests:
        count = len(letters)
        data = b"" if flags & Flag.DISCARD else b"".join(map(sector, letters))
        body += struct.pack("<QQQQ", at, count, flags, 0).ljust(SECTOR, b"\0") + data
    head = struct.pack("<QQQI", 0x6A736677736872, 1, 0, SECTOR).ljust(SECTOR, b"\0")
    path.write_bytes((head + body)[: len(head) + len(body) - cut])
    return WriteLog(path)


def disk(path: Path) -> Path:
    path.write_bytes(sector(".") * SECTORS)
    return path


def letters(path: Path) -> str:
    data = path.read_bytes()
    return "".join(chr(data[at]) if data[at] else "0" for at in range(0, len(data), SECTOR))


NONE, FLUSH, FUA, DISCARD = Flag(0), Flag.FLUSH, Flag.FUA, Flag.DISCARD
REQUESTS = [
    (0, "ab", NONE),
    (4, "c", NONE),
    (0, "", FLUSH),
    (1, "d", NONE),
    (8, "eee", NONE),
    (15, "f", NONE),
    (0, "", FLUSH),
    (2, "g", NONE),
]


def test_each_boundary_has_what_was_flushed_and_nothing_else(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", REQUESTS)
    assert count_barriers(log) == 2
    replay = Replay(disk(tmp_path / "disk"), log)
    for boundary, expected in enumerate(["." * 16, "ab..c" + "." * 11, "ad..c...eee....f"]):
        assert replay.move_to(Cut(boundary))
        assert letters(tmp_path / "disk") == expected
    assert not replay.move_to(Cut(3))


def test_a_subset_changes_only_what_was_on_its_way_and_is_taken_back(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", REQUESTS)
    replay = Replay(disk(tmp_path / "disk"), log)
    seen = set()
    for seed in range(60):
        assert replay.move_to(Cut(1, seed))
        seen.add(letters(tmp_path / "disk"))
    assert all(state[0] == "a" and state[4] == "c" and state[2] == "." for state in seen)
    assert {"ab..c" + "." * 11, "ad..c...eee....f"} < seen  # nothing and everything, and states between
    assert any("e." in state for state in seen)  # a torn write
    replay.move_to(Cut(1))
    assert letters(tmp_path / "disk") == "ab..c" + "." * 11


def test_the_same_seed_makes_the_same_disk(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", REQUESTS)
    states = []
    for name in ("one", "two"):
        Replay(disk(tmp_path / name), log).move_to(Cut(1, 7))
        states.append(letters(tmp_path / name))
    assert states[0] == states[1]


def test_forced_writes_are_there_before_the_next_flush(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", [(0, "a", NONE), (1, "b", FUA), (2, "c", NONE), (0, "", FLUSH)])
    replay = Replay(disk(tmp_path / "disk"), log)
    replay.move_to(Cut(0))
    assert letters(tmp_path / "disk").startswith(".b..")


def test_a_flush_does_not_cover_what_it_writes_itself(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", [(0, "a", NONE), (1, "b", FLUSH), (0, "", FLUSH)])
    replay = Replay(disk(tmp_path / "disk"), log)
    replay.move_to(Cut(1))
    assert letters(tmp_path / "disk").startswith("a.")
    replay.move_to(Cut(2))
    assert letters(tmp_path / "disk").startswith("ab")


def test_what_is_given_away_is_zero(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", [(0, "abc", NONE), (1, "xx", DISCARD), (0, "", FLUSH)])
    replay = Replay(disk(tmp_path / "disk"), log)
    replay.move_to(Cut(1))
    assert letters(tmp_path / "disk").startswith("a00.")


def test_a_log_of_a_killed_machine_ends_before_the_request_that_was_cut(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", REQUESTS, cut=100)
    assert len(list(log.entries())) == len(REQUESTS) - 1


def test_a_log_that_grew_by_blocks_ends_where_nothing_was_written(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", REQUESTS)
    with log.path.open("ab") as stream:
        stream.write(bytes(64 * SECTOR))
    assert len(list(log.entries())) == len(REQUESTS)


@pytest.mark.parametrize("data", [b"", b"x" * 600, struct.pack("<QQQI", 0x6A736677736872, 2, 0, 512).ljust(512, b"\0")])
def test_something_else_is_no_log(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(LabError, match="no log of writes"):
        WriteLog(tmp_path / "log")


def test_only_forwards(tmp_path: Path) -> None:
    replay = Replay(disk(tmp_path / "disk"), write_log(tmp_path / "log", REQUESTS))
    replay.move_to(Cut(2))
    with pytest.raises(ValueError, match="forwards"):
        replay.move_to(Cut(1))


def test_who_touches_what(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", REQUESTS)
    first, second = Span("first", 0, 2 * SECTOR), Span("hole", 5 * SECTOR, SECTOR)
    found = [(span.name, entry.number) for span, entry in touched(log, [first, second])]
    assert found == [("first", 0), ("first", 3)]
    assert not Span("x", 0, 512).meets(Entry(0, 0, 0, Flag.FLUSH, 0))


def test_sample_of_moments_is_spread() -> None:
    assert len(cuts(10)) == 22
    sample = cuts(1000, samples=4)
    assert len(sample) == 4
    assert [cut.boundary // 250 for cut in sample] == [0, 1, 2, 3]
    assert {cut.seed is None for cut in cuts(1000, samples=5)} == {True, False}


def test_flash_memory_keeps_each_write_at_once(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", [(0, "a", NONE), (1, "b", NONE), (0, "", FLUSH), (0, "c", NONE)])
    replay = Replay(disk(tmp_path / "disk"), log, in_order=True)
    assert count_barriers(log, in_order=True) == 3
    for boundary, expected in enumerate(["..", "a.", "ab", "cb"]):
        assert replay.move_to(Cut(boundary))
        assert letters(tmp_path / "disk").startswith(expected)
    assert not replay.move_to(Cut(4))
