"""Finished stages are found again; unfinished ones leave nothing."""

import os
import time
from pathlib import Path

import pytest

from omamori_firmware.cache import Cache
from omamori_firmware.errors import SetupError


def test_the_second_call_does_not_build(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    calls = []

    def build(directory: Path) -> None:
        calls.append(directory)
        (directory / "x").write_text("1")

    first = cache.obtain("stage", {"a": "1"}, build)
    second = cache.obtain("stage", {"a": "1"}, build)
    assert first == second
    assert (second / "x").read_text() == "1"
    assert len(calls) == 1


def test_another_input_is_another_result(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    one = cache.obtain("stage", {"a": "1"}, lambda _: None)
    two = cache.obtain("stage", {"a": "2"}, lambda _: None)
    assert one != two
    assert cache.find("stage", {"a": "3"}) is None


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def build(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        cache.obtain("stage", {}, build)
    assert cache.find("stage", {}) is None
    assert not list((tmp_path / "tmp").iterdir())


def test_work_of_a_killed_build_is_swept_but_not_that_of_a_running_one(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    dead = tmp_path / "tmp" / "root.dead"
    dead.mkdir(parents=True)
    (dead / ".lock").touch()
    with cache.workspace("one") as running, cache.workspace("two"):
        assert not dead.exists()
        assert running.exists()
    assert not running.exists()


def test_old_results_leave_and_fresh_ones_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    old = []
    for number in range(8):
        path = cache.obtain("stage", {"n": str(number)}, lambda _: None)
        os.utime(path, (time.time() - 86400 + number, time.time() - 86400 + number))
        old.append(path)
    last = cache.obtain("stage", {"n": "last"}, lambda _: None)
    assert last.exists()
    assert not old[0].exists()
    assert len(list((tmp_path / "objects").iterdir())) == 4


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError) as caught, Cache(tmp_path / "file").workspace("x"):
        pass
    assert "OMAMORI_CACHE" in str(caught.value.hint)
