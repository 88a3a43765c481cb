"""Locked packages: text, comparison and what apt is told."""

from pathlib import Path

import pytest

from omamori_firmware.errors import LockDriftError, SetupError
from omamori_firmware.lockfile import (
    Package,
    compare,
    load_lock,
    parse_lock,
    parse_status,
    render_lock,
    render_preferences,
)
from omamori_firmware.recipe import source_tree

A = Package("a-tool", "1:2.0-1+b1", "amd64", "a" * 64)
B = Package("libb", "3~rc1", "all", "b" * 64)


def test_what_is_written_is_read_again() -> None:
    assert parse_lock(render_lock([B, A]), where="x.lock") == (A, B)


@pytest.mark.parametrize(
    "line",
    [
        "a 1 amd64",
        "A 1 amd64 " + "a" * 64,
        "a 1 amd64 " + "a" * 63,
        "a 1;x amd64 " + "a" * 64,
        "../a 1 all " + "a" * 64,
    ],
)
def test_a_malformed_line(line: str) -> None:
    with pytest.raises(SetupError, match=r"x\.lock:2"):
        parse_lock("# head\n" + line + "\n", where="x.lock")


def test_a_package_locked_twice() -> None:
    with pytest.raises(SetupError):
        parse_lock(render_lock([A]) + render_lock([A]), where="x.lock")


def test_no_lock_yet(tmp_path: Path) -> None:
    assert load_lock(tmp_path / "none.lock") is None


def test_apt_stores_an_epoch_as_percent_3a() -> None:
    assert A.file_name == "a-tool_1%3a2.0-1+b1_amd64.deb"


def test_preferences_ask_for_the_locked_versions_first() -> None:
    text = render_preferences([A], ["suricata"], "trixie")
    first, second = text.split("\n\n")
    assert first == "Package: a-tool\nPin: version 1:2.0-1+b1\nPin-Priority: 1001"
    assert "Package: suricata\nPin: release n=trixie-backports" in second


def test_equal_packages_do_not_differ() -> None:
    assert compare([A, B], [B, A]) == []


def test_each_kind_of_difference_is_told() -> None:
    newer = Package("a-tool", "1:2.0-2", "amd64", "c" * 64)
    tampered = Package("libb", "3~rc1", "all", "d" * 64)
    extra = Package("zeta", "1", "all", "e" * 64)
    assert compare([A, B], [newer, tampered, extra]) == [
        "a-tool: locked 1:2.0-1+b1, got 1:2.0-2",
        "libb: 3~rc1 has other bytes than the locked ones",
        "zeta: 1 installed, not locked",
    ]
    assert compare([A], []) == ["a-tool: locked 1:2.0-1+b1, not installed"]


def test_a_drift_error_shows_some_and_counts_the_rest() -> None:
    err = LockDriftError("root.lock", [f"p{number}: locked 1, got 2" for number in range(20)], hint="renew")
    assert "p7" in str(err)
    assert "12 more" in str(err)
    assert len(err.differences) == 20


def test_only_installed_packages_of_a_status_file_count() -> None:
    status = (
        "Package: b\nStatus: install ok installed\nVersion: 2\nArchitecture: all\nDescription: x\n Package: no\n\n"
        "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
    )
    assert parse_status(status) == [("a", "1", "amd64"), ("b", "2", "all")]


@pytest.mark.parametrize("name", ["root", "tools"])
def test_the_locks_of_this_repository_cover_their_package_lists(name: str) -> None:
    tree = source_tree()
    lock = load_lock(tree.lock(name))
    assert lock
    names = {package.name for package in lock}
    assert set(tree.package_list(name).packages) <= names


def test_the_root_lock_names_the_kernel_and_the_engine_of_backports() -> None:
    lock = {package.name: package for package in load_lock(source_tree().lock("root")) or ()}
    assert "linux-image-amd64" in lock
    assert any(name.startswith("linux-image-6.") for name in lock)
    assert "bpo13" in lock["suricata"].version
