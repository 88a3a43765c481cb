"""Whatever happens while a file is written, a reader finds the old bytes or the new ones."""

import os
import sqlite3
import stat
import subprocess  # noqa: TID251 - SQLite's locks are between processes
import sys
from pathlib import Path

import pytest

from omamori_protocol.durable import make_private_file, write_atomic
from sim.power import PowerCut, count_steps, power_cut_before


def test_written_file_has_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "state"
    old_mask = os.umask(0o077)
    try:
        write_atomic(path, b"one", mode=0o644)
    finally:
        os.umask(old_mask)
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["state"]


def test_power_cut_at_every_step_leaves_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old content")
    steps = count_steps(lambda: write_atomic(tmp_path / "other", b"new content"))
    assert steps >= 5
    seen = set()
    for step in range(1, steps + 1):
        path.write_bytes(b"old content")
        with pytest.raises(PowerCut), power_cut_before(step):
            write_atomic(path, b"new content")
        seen.add(path.read_bytes())
        assert path.read_bytes() in {b"old content", b"new content"}
        # After the restart the next write works in spite of what was left behind.
        write_atomic(path, b"after the cut")
        assert path.read_bytes() == b"after the cut"
    assert seen == {b"old content", b"new content"}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["other", "state"]


def test_left_over_secret_is_not_inherited_with_wide_mode(tmp_path: Path) -> None:
    left = tmp_path / ".key.tmp"
    left.write_bytes(b"junk")
    left.chmod(0o666)
    write_atomic(tmp_path / "key", b"secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".key.tmp").symlink_to(victim)
    write_atomic(tmp_path / "key", b"secret")
    assert victim.read_bytes() == b"mine"


def test_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def no_space(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["state"]


def test_private_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "database"
    old_mask = os.umask(0)
    try:
        make_private_file(path)
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"content")
    make_private_file(path)
    assert path.read_bytes() == b"content"


def test_making_a_database_again_drops_no_lock_of_an_open_transaction(tmp_path: Path) -> None:
    path = tmp_path / "database"
    make_private_file(path)
    other = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')"
    )
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        make_private_file(path)
        ran = subprocess.run([sys.executable, "-c", other, path], capture_output=True, timeout=30, check=False)
        assert b"database is locked" in ran.stderr
    finally:
        holder.close()
