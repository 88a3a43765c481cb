"""Data carried over and back, with the power cut before every single thing that is done to the disk.

A cut is an exception that nobody may catch, raised by Python's own audit of file operations; what comes after it runs
as the next start does, with a new carrier.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_agent.errors import SetupError
from omamori_agent.migration.carry import Carrier
from omamori_agent.migration.errors import MigrationError, NoWayBackError, StepFailedError
from omamori_agent.migration.step import Step, load_steps


class Cut(BaseException):
    """The power is gone."""


class Power:
    """Counts what is done to files below a directory, and cuts before the n-th of it."""

    def __init__(self) -> None:
        self.below: str | None = None
        self.left = 0
        self.done = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, values: tuple[Any, ...]) -> None:
        if self.below is None or event not in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}:
            return
        if event == "open" and isinstance(values[2], int) and not values[2] & 0o3:
            return  # only reads
        if not any(isinstance(value, str) and value.startswith(self.below) for value in values) and event == "open":
            return
        self.done += 1
        if self.done > self.left:
            self.below = None
            raise Cut


POWER = Power()


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut here is the order of operations, not the cache of this machine's disk."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    top = tmp_path / "omamori"
    for name in ("migration", "desired", "feed", "identity", "firmware", "spool"):
        (top / name).mkdir(parents=True)
    (top / "desired/current.json").write_text('{"format": 1, "ring": "canary"}')
    (top / "identity/key.pem").write_text("secret")
    (top / "identity/key.pem").chmod(0o600)
    (top / "feed/store").mkdir()
    (top / "feed/store/7").write_bytes(b"pack" * 100)
    (top / "feed/current").symlink_to("store/7")
    (top / "spool/alerts").write_text("one\n")
    yield top
    POWER.below = None


def rename_ring(state: Path) -> None:
    path = state / "desired/current.json"
    value = json.loads(path.read_text())
    value["channel"] = value.pop("ring")
    value["format"] = 2
    path.write_text(json.dumps(value))
    (state / "desired/extra.json").write_text("{}")


def move_store(state: Path) -> None:
    (state / "feed/store").rename(state / "feed/packs")
    (state / "feed/current").unlink()
    (state / "feed/current").symlink_to("packs/7")


def fail(state: Path) -> None:
    (state / "desired/current.json").write_text("half")
    raise ValueError("no such ring")


STEP_2 = Step(2, ("desired/current.json", "desired/extra.json"), rename_ring)
STEP_3 = Step(3, ("feed/store", "feed/packs", "feed/current"), move_store)


def content(state: Path) -> dict[str, str]:
    """Everything the agent sees, with kinds, modes and contents."""
    seen = {}
    for path in sorted(state.rglob("*")):
        name = str(path.relative_to(state))
        if name.startswith("migration/"):
            continue
        if path.is_symlink():
            seen[name] = f"-> {path.readlink()}"
        elif path.is_file():
            seen[name] = f"{path.stat().st_mode:o} {path.read_text()}"
        else:
            seen[name] = f"{path.stat().st_mode:o}"
    return seen


def quiet(state: Path) -> bool:
    return not (state / "migration/journal.json").exists()


def test_data_of_this_version_are_left_alone(state: Path) -> None:
    before = content(state)
    assert Carrier(state, []).carry() is False
    assert content(state) == before
    assert list((state / "migration").iterdir()) == []


def test_steps_are_taken_once_and_in_order(state: Path) -> None:
    assert Carrier(state, [STEP_2, STEP_3]).carry()
    assert json.loads((state / "desired/current.json").read_text()) == {"format": 2, "channel": "canary"}
    assert (state / "feed/current").read_bytes() == b"pack" * 100
    assert (state / "migration/version").read_text() == "3\n"
    assert quiet(state)
    after = content(state)
    assert Carrier(state, [STEP_2, STEP_3]).carry() is False
    assert content(state) == after


def test_older_image_gets_its_data_back(state: Path) -> None:
    before = content(state)
    Carrier(state, [STEP_2, STEP_3]).carry()
    (state / "desired/current.json").write_text("written by the newer version")
    (state / "spool/alerts").write_text("one\ntwo\n")
    assert Carrier(state, []).carry()
    assert content(state) == before | {"spool/alerts": before["spool/alerts"] + "two\n"}
    assert (state / "migration/version").read_text() == "1\n"


def test_image_in_between_goes_back_and_takes_its_own_steps(state: Path) -> None:
    Carrier(state, [STEP_2, STEP_3]).carry()
    Carrier(state, [STEP_2]).carry()
    assert (state / "migration/version").read_text() == "2\n"
    assert json.loads((state / "desired/current.json").read_text())["channel"] == "canary"
    assert (state / "feed/store/7").is_file()


def test_five_upgrades_and_a_rollback_keep_everything(state: Path) -> None:
    def grow(number: int) -> Step:
        def apply(state: Path) -> None:
            path = state / "firmware/history"
            path.write_text((path.read_text() if path.exists() else "") + f"{number}\n")

        return Step(number, ("firmware/history",), apply)

    steps = [grow(number) for number in range(2, 8)]
    for count in range(1, 7):
        Carrier(state, steps[:count]).carry()
    assert (state / "firmware/history").read_text() == "2\n3\n4\n5\n6\n7\n"
    Carrier(state, steps[:5]).carry()
    assert (state / "firmware/history").read_text() == "2\n3\n4\n5\n6\n"
    assert (state / "identity/key.pem").read_text() == "secret"
    assert (state / "spool/alerts").read_text() == "one\n"


def test_failing_step_changes_nothing(state: Path) -> None:
    before = content(state)
    with pytest.raises(StepFailedError, match="no such ring"):
        Carrier(state, [STEP_2, Step(3, ("desired/current.json",), fail)]).carry()
    assert content(state) == before
    assert quiet(state)
    assert Carrier(state, []).carry() is False


def test_full_disk_changes_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = content(state)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(StepFailedError, match="No space"):
        Carrier(state, [STEP_2, STEP_3]).carry()
    assert content(state) == before
    assert quiet(state)


def test_newer_data_without_a_copy_are_refused_and_left(state: Path) -> None:
    (state / "migration/version").write_text("2\n")
    before = content(state)
    with pytest.raises(NoWayBackError):
        Carrier(state, []).carry()
    assert content(state) == before


@pytest.mark.parametrize("text", ["", "0\n", "two\n", "-1\n", "10000\n", "1" * 5000, "²\n"])
def test_rubbish_as_version_is_refused(state: Path, text: str) -> None:
    (state / "migration/version").write_text(text)
    with pytest.raises(SetupError, match="version"):
        Carrier(state, [STEP_2]).carry()


@pytest.mark.parametrize("text", ["", "[]", '{"stage": "resting"}', "{" * 5000])
def test_rubbish_in_the_journal_is_refused(state: Path, text: str) -> None:
    (state / "migration/journal.json").write_text(text)
    before = content(state)
    with pytest.raises(SetupError, match=r"journal\.json"):
        Carrier(state, [STEP_2]).carry()
    assert content(state) == before


@pytest.mark.parametrize("path", ["spool", "spool/x", "desired", "factory/provision.json", "feed/../x/y", "/etc/x"])
def test_step_may_change_only_the_agents_own_files(path: str) -> None:
    with pytest.raises(MigrationError):
        Step(2, (path,), rename_ring)


def test_missing_step_is_noticed(state: Path) -> None:
    with pytest.raises(MigrationError):
        Carrier(state, [STEP_3])


def test_steps_of_this_image_are_in_order() -> None:
    assert [step.number for step in load_steps()] == list(range(2, len(load_steps()) + 2))


def cut_everywhere(state: Path, act: Callable[[], object], check: Callable[[int], None]) -> int:
    """Run `act` again and again, each time cut one operation later, and `check` what comes of it."""
    cuts = 0
    while True:
        POWER.done, POWER.left, POWER.below = 0, cuts, str(state)
        try:
            act()
        except Cut:
            check(cuts)
            cuts += 1
        else:
            POWER.below = None
            return cuts


def reset(state: Path, snapshot: dict[str, bytes | str | None]) -> None:
    for child in state.iterdir():
        shutil.rmtree(child)
    for name, value in snapshot.items():
        path = state / name
        if value is None:
            path.mkdir(parents=True, exist_ok=True)
        elif isinstance(value, str):
            path.symlink_to(value)
        else:
            path.write_bytes(value)


def frozen(state: Path) -> dict[str, bytes | str | None]:
    return {
        str(path.relative_to(state)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(state.rglob("*"))
    }


def test_cut_at_every_step_of_an_upgrade_ends_in_either_version(state: Path) -> None:
    (state / "identity/key.pem").chmod(0o644)
    begin = frozen(state)
    old = content(state)
    Carrier(state, [STEP_2, STEP_3]).carry()
    new = content(state)
    reset(state, begin)
    ways = {"new image": ([STEP_2, STEP_3], new), "old image": ([], old)}

    def check(cut: int) -> None:
        found = frozen(state)
        for way, (steps, wanted) in ways.items():
            reset(state, found)
            Carrier(state, steps).carry()
            assert content(state) == wanted, (cut, way)
            assert quiet(state), (cut, way)
        reset(state, begin)

    assert cut_everywhere(state, Carrier(state, [STEP_2, STEP_3]).carry, check) > 20


def test_cut_at_every_step_of_going_back_ends_in_either_version(state: Path) -> None:
    (state / "identity/key.pem").chmod(0o644)
    old = content(state)
    Carrier(state, [STEP_2, STEP_3]).carry()
    new, begin = content(state), frozen(state)

    def check(cut: int) -> None:
        found = frozen(state)
        for steps, wanted in (([], old), ([STEP_2, STEP_3], new)):
            reset(state, found)
            Carrier(state, steps).carry()
            assert content(state) == wanted, cut
            assert quiet(state)
        reset(state, begin)

    assert cut_everywhere(state, Carrier(state, []).carry, check) > 15


def test_two_cuts_in_a_row_are_no_worse(state: Path) -> None:
    (state / "identity/key.pem").chmod(0o644)
    begin, old = frozen(state), content(state)

    def check(_: int) -> None:
        found = frozen(state)

        def again(cut: int) -> None:
            Carrier(state, []).carry()
            assert content(state) == old, cut
            reset(state, found)

        cut_everywhere(state, Carrier(state, [STEP_2, STEP_3]).carry, again)
        reset(state, begin)

    for cuts in (4, 12, 20):
        POWER.done, POWER.left, POWER.below = 0, cuts, str(state)
        with pytest.raises(Cut):
            Carrier(state, [STEP_2, STEP_3]).carry()
        check(cuts)
