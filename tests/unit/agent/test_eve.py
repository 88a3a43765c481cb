"""Following the EVE file: partial lines, rotation, restarts, reboots, and files that are too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.engine.eve import EveTail

BOOT = "boot-1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "eve.json"


@pytest.fixture
def tail(path: Path) -> Callable[..., EveTail]:
    def make(position: str | None = None, **options: object) -> EveTail:
        options.setdefault("boot_id", BOOT)
        return EveTail(path, position=position, **options)  # type: ignore[arg-type]

    return make


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def drain(tail: EveTail) -> list[bytes]:
    lines: list[bytes] = []
    for _ in range(100):
        lines += tail.read().lines
    return lines


def test_file_that_is_not_there_yet(path: Path, tail: Callable[..., EveTail]) -> None:
    reader = tail()
    assert reader.read().lines == []
    append(path, b"one\ntwo\n")
    assert reader.read().lines == [b"one", b"two"]
    assert reader.read().lines == []


def test_line_is_handed_out_when_it_is_whole(path: Path, tail: Callable[..., EveTail]) -> None:
    reader = tail()
    append(path, b"one\ntw")
    assert reader.read().lines == [b"one"]
    assert reader.read().lines == []
    append(path, b"o\n\n")
    assert reader.read().lines == [b"two"]


def test_position_is_behind_the_last_whole_line(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"one\ntw")
    position = tail().read().position
    assert position.endswith(":4")
    append(path, b"o\nthree\n")
    assert drain(tail(position)) == [b"two", b"three"]


def test_position_of_another_boot_says_nothing(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"one\ntwo\n")
    position = tail().read().position
    assert drain(tail(position, boot_id="boot-2")) == [b"one", b"two"]


@pytest.mark.parametrize(
    "position", ["", ":", "::", "boot-1:x:0", "boot-1:1:-5", "boot-1:1", "x" * 500, "boot-1:1:1:1"]
)
def test_position_that_cannot_be_read(path: Path, tail: Callable[..., EveTail], position: str) -> None:
    append(path, b"one\n")
    assert drain(tail(position)) == [b"one"]


def test_position_beyond_the_end_starts_again(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"one\n")
    position = f"{BOOT}:{path.stat().st_ino}:1000"
    assert drain(tail(position)) == [b"one"]


def test_position_is_kept_while_the_file_is_away(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"one\n")
    position = tail().read().position
    path.rename(path.with_name("elsewhere"))
    assert tail(position).read().position == position


def test_file_cut_in_place(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"one\ntwo\n")
    reader = tail()
    drain(reader)
    path.write_bytes(b"new\n")
    assert drain(reader) == [b"new"]


def test_file_replaced(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"one\n")
    reader = tail()
    reader.read()
    append(path, b"late\n")
    path.rename(path.with_name("kept"))
    append(path, b"new\n")
    assert drain(reader) == [b"late", b"new"]


def test_line_of_exactly_the_allowed_length(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"x" * 1000 + b"\nnext\n")
    reader = tail(max_line_bytes=1000)
    assert drain(reader) == [b"x" * 1000, b"next"]
    assert reader.oversize_lines == 0


@pytest.mark.parametrize("length", [1001, 70_000, 500_000])
def test_longer_line_is_skipped_and_counted(path: Path, tail: Callable[..., EveTail], length: int) -> None:
    append(path, b"before\n" + b"x" * length + b"\nnext\n")
    reader = tail(max_line_bytes=1000)
    assert drain(reader) == [b"before", b"next"]
    assert reader.oversize_lines == 1


def test_longer_line_that_grows(path: Path, tail: Callable[..., EveTail]) -> None:
    reader = tail(max_line_bytes=1000)
    for _ in range(10):
        append(path, b"x" * 900)
        assert reader.read().lines == []
        assert len(reader._partial) <= 1000
    append(path, b"\nnext\n")
    assert drain(reader) == [b"next"]
    assert reader.oversize_lines == 1


def test_one_read_is_bounded(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path, b"x" * 99 + b"\n")
    append(path, (b"y" * 99 + b"\n") * 20_000)
    reader = tail(max_batch_bytes=100_000)
    first = reader.read()
    assert 900 < len(first.lines) < 2000
    assert len(drain(reader)) + len(first.lines) == 20_001


def test_rotation(path: Path, tail: Callable[..., EveTail]) -> None:
    old = path.with_name("eve.json.1")
    reader = tail()
    append(path, b"one\n")
    reader.read()
    assert not reader.rotate(100)
    assert reader.rotate(3)
    assert old.exists()
    assert reader.wants_reopen
    append(old, b"still\n")  # the engine has not reopened yet
    assert reader.read().lines == [b"still"]
    assert reader.read().lines == []
    assert not reader.rotate(3)
    append(old, b"last\n")
    append(path, b"new\n")
    assert not reader.wants_reopen
    assert drain(reader) == [b"last", b"new"]
    assert not old.exists()
    assert reader.position == f"{BOOT}:{path.stat().st_ino}:4"


def test_killed_between_rename_and_reopen(path: Path, tail: Callable[..., EveTail]) -> None:
    reader = tail()
    append(path, b"one\ntwo\n")
    position = reader.read().position
    reader.rotate(3)
    again = tail(position)
    assert again.wants_reopen
    assert drain(again) == []
    append(path.with_name("eve.json.1"), b"late\n")
    append(path, b"new\n")
    assert drain(again) == [b"late", b"new"]


def test_killed_after_the_engine_reopened(path: Path, tail: Callable[..., EveTail]) -> None:
    reader = tail()
    append(path, b"one\n")
    position = reader.read().position
    reader.rotate(3)
    append(path.with_name("eve.json.1"), b"late\n")
    append(path, b"new\n")
    assert drain(tail(position)) == [b"late", b"new"]


def test_killed_after_reading_the_new_file(path: Path, tail: Callable[..., EveTail]) -> None:
    """The old file was removed before the position in the new one was stored; here the removal was lost."""
    append(path.with_name("eve.json.1"), b"old\n")
    append(path, b"one\ntwo\n")
    position = f"{BOOT}:{path.stat().st_ino}:4"
    assert drain(tail(position)) == [b"two"]
    assert not path.with_name("eve.json.1").exists()


def test_old_file_left_by_an_agent_whose_position_is_lost(path: Path, tail: Callable[..., EveTail]) -> None:
    append(path.with_name("eve.json.1"), b"old\n")
    append(path, b"new\n")
    assert drain(tail()) == [b"old", b"new"]


def test_engine_died_in_the_middle_of_a_line(path: Path, tail: Callable[..., EveTail]) -> None:
    reader = tail()
    append(path, b"one\ntw")
    reader.read()
    reader.rotate(3)
    append(path, b"new\n")
    assert drain(reader) == [b"new"]
    assert reader.cut_lines == 1


def test_rotation_of_a_file_that_vanished(path: Path, tail: Callable[..., EveTail]) -> None:
    reader = tail()
    append(path, b"one\n")
    reader.read()
    path.unlink()
    assert not reader.rotate(3)


def test_link_in_place_of_the_file_is_not_followed(path: Path, tail: Callable[..., EveTail]) -> None:
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        tail().read()


@given(
    st.lists(st.tuples(st.binary(max_size=30).filter(lambda data: b"\n" not in data), st.integers(0, 4)), max_size=30)
)
def test_every_line_exactly_once_whatever_happens_between(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bytes, int]]
) -> None:
    path = tmp_path_factory.mktemp("eve") / "eve.json"
    old = path.with_name("eve.json.1")
    reader = EveTail(path, boot_id=BOOT, position=None)
    stored = reader.position
    seen: list[bytes] = []

    def read() -> None:
        nonlocal stored
        batch = reader.read()
        if batch.lines:
            seen.extend(batch.lines)
            stored = batch.position

    for line, action in steps:
        append(old if old.exists() and not path.exists() and action != 3 else path, line + b"\n")
        if action == 1:
            read()
        elif action == 2:
            read()
            reader.rotate(0)
        elif action == 4:
            reader.close()
            reader = EveTail(path, boot_id=BOOT, position=stored)
    for _ in range(5):
        read()
    reader.close()
    assert seen == [line for line, _action in steps if line]
