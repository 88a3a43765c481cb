"""Replaced keys: boxes follow at every moment, thieves do not, and a cut in the middle is taken up again."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from omamori_ota import cli, files
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.key_rotation import KeyRotation, recovery_names
from omamori_ota.keys import KeyDirectory
from omamori_ota.packs import VerifiedPack
from omamori_ota.repository import Repository
from omamori_ota.roles import KEY_NAMES, ROLES

from .conftest import START, ManualClock
from .test_repository import Client, tree

MakePack = Callable[..., VerifiedPack]
EVERY_KIND = ["root1", "targets1", "targets2", "firmware1", "feed", "snapshot", "timestamp"]


@pytest.fixture
def own_keys(tmp_path: Path, key_directory: KeyDirectory) -> KeyDirectory:
    """A copy of the key directory that a test may change."""
    shutil.copytree(key_directory.path, tmp_path / "keys")
    return KeyDirectory(tmp_path / "keys")


@pytest.fixture
def rotation(tmp_path: Path, own_keys: KeyDirectory, clock: ManualClock) -> KeyRotation:
    made = KeyRotation(tmp_path / "repo", own_keys, clock)
    made.init()
    return made


class Boxes:
    """Boxes that last looked at different times; each must follow."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boxes: list[Client] = []

    def add(self) -> Client:
        directory = self._directory
        box = Client(directory / "repo", directory / "keys/trust", directory / f"box{len(self._boxes)}")
        self._boxes.append(box)
        return box

    def serials(self) -> set[int | None]:
        return {box.serial(START) for box in [*self._boxes, self.add()]}


@pytest.fixture
def boxes(tmp_path: Path, rotation: KeyRotation, make_pack: MakePack) -> Boxes:
    rotation.publish_feed(make_pack(1), "demo")
    made = Boxes(tmp_path)
    assert made.add().serial(START) == 1
    return made


def keyids(keys: KeyDirectory) -> dict[str, str]:
    return {name: keys.current_key(name).keyid for name in KEY_NAMES}


@pytest.mark.parametrize("names", [*([name] for name in EVERY_KIND), EVERY_KIND])
def test_boxes_follow_and_only_the_new_keys_sign(
    rotation: KeyRotation, own_keys: KeyDirectory, boxes: Boxes, make_pack: MakePack, names: list[str]
) -> None:
    before = keyids(own_keys)
    rotation.rotate(names)
    after = keyids(own_keys)
    assert {name for name in KEY_NAMES if before[name] != after[name]} == set(names)
    assert boxes.serials() == {1}
    rotation.publish_feed(make_pack(2), "demo")
    assert boxes.serials() == {2}
    rotation.refresh(is_offline_included=True)
    assert boxes.serials() == {2}
    assert stat.S_IMODE((own_keys.path / "tuf" / f"{names[0]}.pem").stat().st_mode) == 0o600
    assert not list((own_keys.path / "tuf").glob("*.next.pem"))


def test_again_and_again(rotation: KeyRotation, boxes: Boxes, make_pack: MakePack) -> None:
    for serial in range(2, 6):
        rotation.rotate(["root1", "feed", "timestamp"])
        rotation.publish_feed(make_pack(serial), "demo")
        assert boxes.serials() == {serial}
    assert {role.role: role.version for role in rotation.status().roles}["root"] == 5


@pytest.mark.parametrize("name", ["feed", "snapshot", "timestamp", "targets1"])
def test_old_key_is_worth_nothing(
    tmp_path: Path, rotation: KeyRotation, own_keys: KeyDirectory, boxes: Boxes, make_pack: MakePack, name: str
) -> None:
    shutil.copytree(own_keys.path, tmp_path / "stolen")
    rotation.rotate([name])
    assert boxes.serials() == {1}
    thief = Repository(tmp_path / "repo", KeyDirectory(tmp_path / "stolen"), lambda: START)
    pack = make_pack(2)

    def publish() -> None:
        thief.publish_feed(pack, "demo")
        thief.refresh(is_offline_included=True)

    with pytest.raises(SetupError, match="does not name the key"):
        publish()


def test_thief_with_the_old_feed_key_reaches_no_box(
    tmp_path: Path, rotation: KeyRotation, own_keys: KeyDirectory, boxes: Boxes
) -> None:
    (stolen,) = own_keys.signers("feed")
    rotation.rotate(["feed"])
    path = tmp_path / "repo/metadata"
    newest = max(path.glob("*.feed.json"), key=lambda item: int(item.name.partition(".")[0]))
    evil: Metadata[Targets] = Metadata.from_file(str(newest))
    evil.sign(stolen)
    newest.write_bytes(evil.to_bytes())
    with pytest.raises(RepositoryError):
        boxes.add().serial(START)


def fast_forward(repo: Path, keys: KeyDirectory, role: str) -> None:
    """What a thief of an online key does to boxes for good, unless they are helped."""
    path = repo / "metadata"
    timestamp: Metadata[Timestamp] = Metadata.from_file(str(path / "timestamp.json"))
    if role == "snapshot":
        old: Metadata[Snapshot] = Metadata.from_file(
            str(path / f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
        )
        old.signed.version = timestamp.signed.snapshot_meta.version = 2_000_000
        old.sign(keys.signers("snapshot")[0])
        (path / "2000000.snapshot.json").write_bytes(old.to_bytes())
        timestamp.signed.version += 1
    else:
        timestamp.signed.version = 2_000_000
    timestamp.sign(keys.signers("timestamp")[0])
    (path / "timestamp.json").write_bytes(timestamp.to_bytes())


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_revoking_recovers_from_a_fast_forward(
    tmp_path: Path, rotation: KeyRotation, own_keys: KeyDirectory, boxes: Boxes, make_pack: MakePack, role: str
) -> None:
    true = tmp_path / "true"
    shutil.copytree(tmp_path / "repo", true)
    fast_forward(tmp_path / "repo", own_keys, role)
    assert boxes.serials() == {1}
    shutil.rmtree(tmp_path / "repo")
    true.rename(tmp_path / "repo")
    rotation.publish_feed(make_pack(2), "demo")
    rotation.refresh()
    with pytest.raises(RepositoryError):
        boxes.serials()
    rotation.rotate(recovery_names([role]))
    assert boxes.serials() == {2}


def test_what_has_to_change_with_a_stolen_key() -> None:
    assert recovery_names(["timestamp"]) == ["timestamp"]
    assert recovery_names(["snapshot"]) == ["snapshot", "timestamp"]
    assert recovery_names(["feed"]) == ["feed", "snapshot", "timestamp"]
    assert recovery_names(["targets1", "root2"]) == ["root2", "targets1", "snapshot", "timestamp"]
    assert recovery_names(["root1"]) == ["root1"]
    with pytest.raises(RejectedError, match="is not a key"):
        recovery_names(["nobody"])


def test_unknown_key_changes_nothing(tmp_path: Path, rotation: KeyRotation) -> None:
    before = tree(tmp_path / "repo"), tree(tmp_path / "keys")
    with pytest.raises(RejectedError, match="is not a key"):
        rotation.rotate(["feed", "nobody"])
    assert (tree(tmp_path / "repo"), tree(tmp_path / "keys")) == before


def test_more_root_keys_at_once_than_boxes_could_follow(tmp_path: Path, rotation: KeyRotation) -> None:
    before = tree(tmp_path / "keys")
    with pytest.raises(RejectedError, match="at most 1 of the root keys"):
        rotation.rotate(["root1", "root2"])
    assert tree(tmp_path / "keys") == before


# Cuts.


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts writes of the repository and the key directory; `limit` is where the power fails."""
    state = {"done": 0, "limit": -1}

    def count() -> None:
        if state["done"] == state["limit"]:
            raise OSError("power cut")
        state["done"] += 1

    def counted(path: Path, data: bytes, **options: int) -> None:
        count()
        files.write_atomic(path, data, **options)

    adopt = KeyDirectory.adopt

    def adopting(self: KeyDirectory, name: str) -> None:
        count()
        adopt(self, name)

    for module in ("repository", "keys", "key_rotation"):
        monkeypatch.setattr(f"omamori_ota.{module}.write_atomic", counted)
    monkeypatch.setattr(KeyDirectory, "adopt", adopting)
    return state


@pytest.mark.parametrize("names", [["feed"], ["timestamp"], ["root1"], EVERY_KIND])
def test_cut_at_each_write(
    tmp_path: Path, rotation: KeyRotation, boxes: Boxes, make_pack: MakePack, writes: dict[str, int], names: list[str]
) -> None:
    spare = tmp_path / "spare"
    spare.mkdir()
    for name in ("repo", "keys"):
        shutil.copytree(tmp_path / name, spare / name)
    writes["done"] = 0
    rotation.rotate(names)
    steps = writes["done"]
    assert steps >= 3
    for step in range(steps):
        for name in ("repo", "keys"):
            shutil.rmtree(tmp_path / name)
            shutil.copytree(spare / name, tmp_path / name)
        someone = Boxes(tmp_path / f"step{step}")
        (tmp_path / f"step{step}").mkdir()
        for name in ("repo", "keys"):
            (tmp_path / f"step{step}" / name).symlink_to(tmp_path / name)
        assert someone.add().serial(START) == 1
        writes.update(done=0, limit=step)
        with pytest.raises(OSError, match="power cut"):
            rotation.rotate(names)
        writes["limit"] = -1
        assert someone.serials() == {1}, step
        rotation.publish_feed(make_pack(2), "demo")  # nobody has to know of the cut
        assert someone.serials() == {2}, step
        rotation.rotate(names)
        assert someone.serials() == {2}, step
        assert not list((tmp_path / "keys/tuf").glob("*.next.pem"))
        rotation.publish_feed(make_pack(3), "demo")
        assert someone.serials() == {3}, step


def test_same_root_is_signed_by_old_and_new_keys(tmp_path: Path, rotation: KeyRotation, own_keys: KeyDirectory) -> None:
    before = keyids(own_keys)
    rotation.rotate(["root2", "snapshot"])
    root: Metadata[Root] = Metadata.from_file(str(tmp_path / "repo/metadata/2.root.json"))
    after = keyids(own_keys)
    assert set(root.signed.roles["root"].keyids) == {after[name] for name in ROLES["root"].keys}
    assert set(root.signatures) == {before[name] for name in ROLES["root"].keys} | {after["root2"]}
    assert before["snapshot"] not in root.signed.keys


def test_command_line(
    tmp_path: Path, rotation: KeyRotation, own_keys: KeyDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [str(own_keys.path), str(tmp_path / "repo")]
    before = keyids(own_keys)
    assert cli.main(["keys", "rotate", *common, "feed"]) == 0
    assert "replaced feed;" in capsys.readouterr().out
    assert cli.main(["keys", "revoke", *common, "feed", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["versions"]) == {"root", "targets", "feed", "snapshot", "timestamp"}
    changed = {name for name, keyid in keyids(own_keys).items() if before[name] != keyid}
    assert changed == {"feed", "snapshot", "timestamp"}
    assert cli.main(["keys", "rotate", *common, "nobody"]) == 1
    assert "is not a key" in capsys.readouterr().err
