"""Packages that are not the locked ones stop a build, unless the builder was told to go on."""

from pathlib import Path

import pytest

from omamori_firmware.build import Builder
from omamori_firmware.cache import Cache
from omamori_firmware.errors import LockDriftError
from omamori_firmware.lockfile import Package, render_lock
from omamori_firmware.progress import Reporter
from omamori_firmware.recipe import SourceTree

LOCKED = Package("bash", "5.2-1", "amd64", "a" * 64)
NEWER = Package("bash", "5.2-2", "amd64", "b" * 64)


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    tree = SourceTree(tmp_path)
    tree.recipe.mkdir(parents=True)
    tree.lock("root").write_text(render_lock([LOCKED]))
    return Builder(tree, Cache(tmp_path / "cache"), Reporter(total=1, quiet=True))


def test_the_locked_packages_pass(builder: Builder) -> None:
    builder._check_lock("root", (LOCKED,), allow=False)
    assert builder._lock.states == {"root": "locked"}


def test_another_version_is_an_error_with_a_way_out(builder: Builder) -> None:
    with pytest.raises(LockDriftError, match=r"bash: locked 5\.2-1, got 5\.2-2") as caught:
        builder._check_lock("root", (NEWER,), allow=False)
    assert "--allow-drift" in str(caught.value.hint)


def test_drift_that_was_allowed_is_recorded(builder: Builder) -> None:
    builder._check_lock("root", (NEWER,), allow=True)
    assert builder._lock.states == {"root": "drift"}
    assert builder._lock.differences == ["bash: locked 5.2-1, got 5.2-2"]


def test_a_list_without_lock_is_called_unlocked(builder: Builder) -> None:
    builder._check_lock("tools", (NEWER,), allow=False)
    assert builder._lock.states == {"tools": "unlocked"}
