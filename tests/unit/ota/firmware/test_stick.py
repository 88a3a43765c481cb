"""A stick leads a box without a network to one release, for as long as it says, by the same checks."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.firmware.stick import StickWriter
from omamori_ota.keys import KeyDirectory
from omamori_protocol.firmware_release import index_target, payload_target
from unit.ota.conftest import ManualClock

from .conftest import BOARD, ROOT, MakeRelease, changed
from .test_publication import Box, publish


@pytest.fixture
def writer(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock) -> StickWriter:
    made = StickWriter(tmp_path / "repo", key_directory, clock)
    made.init()
    return made


def test_stick_holds_one_release_and_no_more(
    tmp_path: Path, writer: StickWriter, key_directory: KeyDirectory, make: MakeRelease
) -> None:
    old, new = make("1.1.0"), make("1.2.0", changed(ROOT))
    new.add_delta(old, lambda _done, _total: None)
    for release in (old, new):
        publish(writer, key_directory, release)
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "photos").mkdir()
    writer.write_stick(stick, BOARD, "1.2.0", valid=timedelta(days=30), starts=("1.1.0",))
    box = Box(stick, key_directory.path / "trust", tmp_path / "box")
    assert box.release("1.2.0") == new.release
    for path in (index_target(BOARD, "1.2.0"), payload_target(BOARD, "1.2.0", "1.1.0")):
        assert box.file(path)
    assert not (stick / f"targets/firmware/{BOARD}/1.1.0").exists()
    assert (stick / "photos").is_dir()
    online = Box(tmp_path / "repo", key_directory.path / "trust", tmp_path / "online")
    assert online.release("1.2.0") == new.release  # the repository has moved past the stick's versions


def test_box_that_used_a_stick_goes_on_with_the_repository(
    tmp_path: Path, writer: StickWriter, key_directory: KeyDirectory, make: MakeRelease
) -> None:
    publish(writer, key_directory, make("1.2.0"))
    stick = tmp_path / "stick"
    stick.mkdir()
    writer.write_stick(stick, BOARD, "1.2.0", valid=timedelta(days=30))
    box = Box(stick, key_directory.path / "trust", tmp_path / "box")
    assert box.release("1.2.0") is not None
    shutil.rmtree(stick)
    (tmp_path / "repo").rename(stick)  # the same box now sees the repository
    assert box.release("1.2.0") is not None


def test_stick_expires(tmp_path: Path, writer: StickWriter, key_directory: KeyDirectory, make: MakeRelease) -> None:
    publish(writer, key_directory, make("1.2.0"))
    stick = tmp_path / "stick"
    stick.mkdir()
    writer.write_stick(stick, BOARD, "1.2.0", valid=timedelta(days=30))
    box = Box(stick, key_directory.path / "trust", tmp_path / "box")
    now = box.now
    box.now = now + timedelta(days=29)
    assert box.release("1.2.0") is not None
    box.now = now + timedelta(days=31)
    with pytest.raises(RepositoryError):
        box.release("1.2.0")


def test_what_is_not_there_is_refused(
    tmp_path: Path, writer: StickWriter, key_directory: KeyDirectory, make: MakeRelease
) -> None:
    publish(writer, key_directory, make("1.2.0"))
    valid = timedelta(days=1)
    with pytest.raises(SetupError, match="not a directory"):
        writer.write_stick(tmp_path / "none", BOARD, "1.2.0", valid=valid)
    with pytest.raises(RejectedError, match="not published"):
        writer.write_stick(tmp_path, BOARD, "1.3.0", valid=valid)
    with pytest.raises(RejectedError, match="no delta"):
        writer.write_stick(tmp_path, BOARD, "1.2.0", valid=valid, starts=("1.1.0",))
    for wrong in (timedelta(0), timedelta(days=90, seconds=1)):
        with pytest.raises(RejectedError, match="at most 90d"):
            writer.write_stick(tmp_path, BOARD, "1.2.0", valid=wrong)
