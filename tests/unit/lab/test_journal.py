import json
import os
from pathlib import Path

import pytest

from omamori_lab.cleaning import clean
from omamori_lab.errors import SetupError
from omamori_lab.journal import (
    Journal,
    Leftovers,
    ProcessMark,
    end_process,
    owned,
    read_leftovers,
    start_ticks,
)
from omamori_lab.run import Process, spawn


@pytest.fixture
def sleeper(tmp_path):
    with (tmp_path / "sleeper.log").open("wb") as log:
        process = spawn(["sleep", "300"], log=log)
    yield process
    process.kill()
    process.wait()


def journal_file(state: Path, **changes: object) -> None:
    body = {"format": 1, "run": "0a1b2c", "processes": [], "namespaces": [], **changes}
    (state / "journal.json").write_text(json.dumps(body))


def test_nothing_was_ever_started(tmp_path: Path) -> None:
    assert read_leftovers(tmp_path) == Leftovers()
    assert not clean(tmp_path / "never")


def test_a_running_process_is_found_again(tmp_path: Path, sleeper: Process) -> None:
    journal = Journal(tmp_path)
    journal.add_process(sleeper.pid, "sleeper")
    (mark,) = read_leftovers(tmp_path).processes
    assert (mark.pid, mark.name) == (sleeper.pid, "sleeper")
    journal.remove_process(sleeper.pid)
    assert not read_leftovers(tmp_path)


def test_the_same_process_id_with_another_start_time_is_not_ours(tmp_path: Path) -> None:
    ours = start_ticks(os.getpid())
    assert ours is not None
    journal_file(tmp_path, processes=[{"pid": os.getpid(), "start_ticks": ours - 1, "name": "x"}])
    assert not read_leftovers(tmp_path)
    end_process(ProcessMark(os.getpid(), ours - 1, "x"))  # we are still here


def test_a_leftover_process_is_ended_and_the_journal_removed(tmp_path: Path, sleeper: Process) -> None:
    Journal(tmp_path).add_process(sleeper.pid, "sleeper")
    removed = clean(tmp_path)
    assert [mark.pid for mark in removed.processes] == [sleeper.pid]
    assert sleeper.wait(5) == -15
    assert not (tmp_path / "journal.json").exists()
    assert not clean(tmp_path)


def test_a_namespace_of_another_run_is_never_touched(tmp_path: Path) -> None:
    journal_file(tmp_path, namespaces=["om0a1b2c-pc1", "omffffff-pc1"])
    with pytest.raises(SetupError, match="is not of run 0a1b2c"):
        read_leftovers(tmp_path)


@pytest.mark.parametrize("name", ["om0a1b2c-../../etc", "om0a1b2c-/x"])
def test_a_namespace_name_with_a_path_is_refused(tmp_path: Path, name: str) -> None:
    journal_file(tmp_path, namespaces=[name])
    with pytest.raises(SetupError, match="not a lab's journal"):
        read_leftovers(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "run": "0a1b2c"}', '{"format": 1, "run": "/"}'])
def test_something_else_in_place_of_a_journal_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal.json").write_text(text)
    with pytest.raises(SetupError, match="not a lab's journal"):
        read_leftovers(tmp_path)


def test_a_journal_of_one_byte_too_many_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(SetupError, match="more than 1048576 bytes"):
        read_leftovers(tmp_path)


def test_a_second_lab_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(SetupError, match="another lab is running"), owned(tmp_path):
        pass
    with owned(tmp_path):
        pass


def test_cleaning_under_a_running_lab_is_refused(tmp_path: Path) -> None:
    with owned(tmp_path), pytest.raises(SetupError, match="another lab is running"):
        clean(tmp_path)
