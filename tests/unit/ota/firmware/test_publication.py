"""Publishing firmware: two people, no way back, and what a box sees. Then the drills: what a thief of keys can do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Targets, Timestamp
from tuf.ngclient import Updater

from omamori_ota import files
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.firmware import publication
from omamori_ota.firmware.publication import FirmwareRepository, add_signature
from omamori_ota.firmware.release_directory import ReleaseDirectory
from omamori_ota.firmware.signatures import file_signer
from omamori_ota.key_rotation import KeyRotation, recovery_names
from omamori_ota.keys import KeyDirectory
from omamori_ota.metadata import parse, to_bytes
from omamori_ota.packs import VerifiedPack
from omamori_protocol.firmware_release import (
    FirmwareRelease,
    index_target,
    parse_custom,
    parse_release,
    payload_target,
    release_target,
)
from unit.ota.conftest import START, ManualClock
from unit.ota.test_repository import DiskFetcher

from .conftest import BOARD, ROOT, MakeRelease, changed


class Box:
    """A box's view of the firmware, with the real TUF client."""

    def __init__(self, repository: Path, trust: Path, home: Path) -> None:
        home.mkdir()
        self._parts = (DiskFetcher(repository), trust, home)
        self.now = START

    def updater(self) -> Updater:
        fetcher, trust, home = self._parts
        updater = Updater(
            str(home),
            "https://repo.test/metadata/",
            str(home),
            "https://repo.test/targets/",
            fetcher=fetcher,
            bootstrap=(trust / "root.json").read_bytes(),
        )
        updater._trusted_set.reference_time = self.now
        updater.refresh()
        return updater

    def release(self, version: str) -> FirmwareRelease | None:
        updater = self.updater()
        target = updater.get_targetinfo(release_target(BOARD, version))
        if target is None:
            return None
        data = Path(updater.download_target(target)).read_bytes()
        assert parse_custom(target.unrecognized_fields["custom"]) == parse_release(data)
        return parse_release(data)

    def file(self, path: str) -> bytes:
        updater = self.updater()
        target = updater.get_targetinfo(path)
        assert target is not None
        return Path(updater.download_target(target)).read_bytes()


@pytest.fixture
def own_keys(tmp_path: Path, key_directory: KeyDirectory) -> KeyDirectory:
    shutil.copytree(key_directory.path, tmp_path / "own-keys")
    return KeyDirectory(tmp_path / "own-keys")


@pytest.fixture
def repository(tmp_path: Path, own_keys: KeyDirectory, clock: ManualClock) -> FirmwareRepository:
    made = FirmwareRepository(tmp_path / "repo", own_keys, clock)
    made.init()
    return made


@pytest.fixture
def box(tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory) -> Box:
    return Box(tmp_path / "repo", own_keys.path / "trust", tmp_path / "box")


def key(keys: KeyDirectory, name: str) -> CryptoSigner:
    return file_signer(keys.path / "tuf" / f"{name}.pem")


def publish(
    repository: FirmwareRepository, keys: KeyDirectory, release: ReleaseDirectory, *names: str
) -> dict[str, int]:
    staged = release.path.parent / f"staged-{release.release.version}.json"
    repository.stage(release, staged)
    for name in names or ("firmware1", "firmware2"):
        add_signature(staged, key(keys, name))
    return repository.release(release, staged).versions


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


def test_two_people_publish_and_a_box_gets_it(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    release = make("1.2.0")
    assert box.release("1.2.0") is None
    staged = tmp_path / "staged.json"
    waiting = repository.stage(release, staged)
    assert (waiting.signed, waiting.threshold) == ((), 2)
    assert box.release("1.2.0") is None
    first = add_signature(staged, key(own_keys, "firmware1"))
    assert first == release.release
    with pytest.raises(RejectedError, match="1 of 2 signatures"):
        repository.release(release, staged)
    add_signature(staged, key(own_keys, "firmware2"))
    assert len(repository.describe(staged).signed) == 2
    repository.release(release, staged)
    assert box.release("1.2.0") == release.release
    assert repository.releases() == (release.release,)
    assert box.file(index_target(BOARD, "1.2.0")) == (release.path / "full.index").read_bytes()
    assert box.file(payload_target(BOARD, "1.2.0")) == (release.path / "full.payload").read_bytes()


def test_a_second_release_stands_beside_the_first_with_its_delta(
    repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    old, new = make("1.1.0"), make("1.2.0", changed(ROOT))
    new.add_delta(old, lambda _done, _total: None)
    publish(repository, own_keys, old)
    publish(repository, own_keys, new)
    assert box.release("1.1.0") == old.release
    found = box.release("1.2.0")
    assert found is not None
    assert found.delta_from("1.1.0") is not None
    assert box.file(payload_target(BOARD, "1.2.0", "1.1.0")) == (new.path / "from-1.1.0.payload").read_bytes()


@pytest.mark.parametrize(
    ("version", "root", "epoch", "message"),
    [
        ("1.1.9", ROOT, 2, "lower than the published"),
        ("1.2.0-dev.5", ROOT, 2, "lower than the published"),
        ("1.2.0", changed(ROOT), 2, "with other bytes"),
        ("1.3.0", ROOT, 1, "security epoch 1 is lower"),
    ],
)
def test_there_is_no_way_back(
    tmp_path: Path,
    repository: FirmwareRepository,
    own_keys: KeyDirectory,
    make: MakeRelease,
    version: str,
    root: bytes,
    epoch: int,
    message: str,
) -> None:
    publish(repository, own_keys, make("1.2.0", epoch=2))
    before = snapshot(tmp_path / "repo")
    with pytest.raises(RejectedError, match=message):
        publish(repository, own_keys, make(version, root, epoch=epoch))
    assert snapshot(tmp_path / "repo") == before


def test_the_same_release_again_is_refused_as_the_same(
    repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease
) -> None:
    release = make("1.2.0")
    publish(repository, own_keys, release)
    with pytest.raises(RejectedError, match="the same"):
        publish(repository, own_keys, release)


def test_a_release_staged_before_another_was_published_is_refused(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease
) -> None:
    late, first = make("1.3.0"), make("1.2.0")
    staged = tmp_path / "staged.json"
    repository.stage(late, staged)
    for name in ("firmware1", "firmware2"):
        add_signature(staged, key(own_keys, name))
    publish(repository, own_keys, first)
    with pytest.raises(RejectedError, match="not what would be published now"):
        repository.release(late, staged)


def test_what_expired_while_it_waited_is_refused(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, clock: ManualClock
) -> None:
    release, staged = make("1.2.0"), tmp_path / "staged.json"
    repository.stage(release, staged)
    for name in ("firmware1", "firmware2"):
        add_signature(staged, key(own_keys, name))
    clock.advance(days=91)
    with pytest.raises(RejectedError, match="expired"):
        repository.release(release, staged)


def test_one_person_does_not_sign_twice(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease
) -> None:
    release, staged = make("1.2.0"), tmp_path / "staged.json"
    repository.stage(release, staged)
    add_signature(staged, key(own_keys, "firmware1"))
    with pytest.raises(RejectedError, match="signed it already"):
        add_signature(staged, key(own_keys, "firmware1"))
    staged.write_bytes(b"{}")
    with pytest.raises(SetupError):
        add_signature(staged, key(own_keys, "firmware2"))


def test_a_release_that_changed_after_it_was_signed_is_refused(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    release, staged = make("1.2.0"), tmp_path / "staged.json"
    repository.stage(release, staged)
    for name in ("firmware1", "firmware2"):
        add_signature(staged, key(own_keys, name))
    other = make("1.2.0", changed(ROOT))
    with pytest.raises(RejectedError, match="not what would be published"):
        repository.release(other, staged)
    assert box.release("1.2.0") is None


def test_a_cut_shows_the_old_state_and_is_repeated(
    tmp_path: Path,
    repository: FirmwareRepository,
    own_keys: KeyDirectory,
    make: MakeRelease,
    box: Box,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(repository, own_keys, make("1.1.0"))
    release = make("1.2.0")

    def cut(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if path.name == "timestamp.json":
            raise OSError("power")
        files.write_atomic(path, data, mode=mode)

    monkeypatch.setattr("omamori_ota.repository.write_atomic", cut)
    with pytest.raises(OSError, match="power"):
        publish(repository, own_keys, release)
    assert box.release("1.2.0") is None
    assert box.release("1.1.0") is not None
    monkeypatch.undo()
    publish(repository, own_keys, release)
    assert box.release("1.2.0") == release.release


def test_old_releases_leave_unless_they_are_on_the_way(
    repository: FirmwareRepository,
    own_keys: KeyDirectory,
    make: MakeRelease,
    box: Box,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(publication, "KEPT_RELEASES", 2)
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish(repository, own_keys, make(version))
    publish(repository, own_keys, make("1.3.0", min_from="1.1.0"))
    assert [item.version for item in repository.releases()] == ["1.1.0", "1.2.0", "1.3.0"]
    assert box.release("1.0.0") is None
    assert not (tmp_path / f"repo/targets/firmware/{BOARD}/1.0.0").exists()


def test_a_repository_of_before_learns_where_firmware_is(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    with repository.changing() as current:
        delegations = current.targets.signed.delegations
        assert delegations is not None
        assert delegations.roles is not None
        delegations.roles["firmware"].paths = ["firmware/*/*"]
        version = repository._sign_versioned(current, "targets", current.targets)
        current.snapshot.signed.meta["targets.json"].version = version
        repository.sign_delegated(current, [])
    with pytest.raises(SetupError, match="before firmware could be published") as caught:
        publish(repository, own_keys, make("1.2.0"))
    assert "refresh --offline" in caught.value.hint
    repository.refresh(is_offline_included=True)
    publish(repository, own_keys, make("1.2.0"))
    assert box.release("1.2.0") is not None


# --- a third owner: any two of three ---


def new_owner(place: Path) -> tuple[Path, Path]:
    signer = CryptoSigner.generate_ed25519()
    private, public = place / "third.pem", place / "third.pub"
    private.write_bytes(signer.private_bytes)
    loaded = serialization.load_pem_private_key(signer.private_bytes, None)
    public.write_bytes(
        loaded.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_any_two_of_three_owners_are_enough(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    private, public = new_owner(tmp_path)
    repository.add_owner(public)
    with pytest.raises(RejectedError, match="already"):
        repository.add_owner(public)
    release, staged = make("1.2.0"), tmp_path / "staged.json"
    repository.stage(release, staged)
    add_signature(staged, file_signer(private))
    with pytest.raises(RejectedError, match="1 of 2"):
        repository.release(release, staged)
    add_signature(staged, key(own_keys, "firmware2"))
    repository.release(release, staged)
    assert box.release("1.2.0") == release.release
    with pytest.raises(SetupError, match="not a public key"):
        repository.add_owner(private)


# --- drills ---


class Thief:
    """Has some keys, and the web server."""

    def __init__(self, directory: Path, keys: KeyDirectory, *names: str) -> None:
        self._metadata = directory / "metadata"
        self._signers = [key(keys, name) for name in names]

    def forge(self, change: Callable[[Targets], None], role: str) -> None:
        """Replace the newest metadata of a delegated role, and everything above it that the thief's keys can sign."""
        newest = max(self._metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
        metadata = parse(Targets, newest.read_bytes(), role)
        change(metadata.signed)
        metadata.signed.version += 1
        metadata.signatures.clear()
        for signer in self._signers:
            metadata.sign(signer, append=True)
        (self._metadata / f"{metadata.signed.version}.{role}.json").write_bytes(to_bytes(metadata))
        self._point(role, metadata.signed.version)

    def _point(self, role: str, version: int) -> None:
        from tuf.api.metadata import Snapshot  # noqa: PLC0415

        timestamp = parse(Timestamp, (self._metadata / "timestamp.json").read_bytes(), "timestamp")
        number = timestamp.signed.snapshot_meta.version
        snapshot_ = parse(Snapshot, (self._metadata / f"{number}.snapshot.json").read_bytes(), "snapshot")
        snapshot_.signed.meta[f"{role}.json"].version = version
        snapshot_.signed.version = number + 1
        timestamp.signed.snapshot_meta.version = number + 1
        timestamp.signed.version += 1
        for metadata, name in ((snapshot_, f"{number + 1}.snapshot.json"), (timestamp, "timestamp.json")):
            metadata.signatures.clear()
            for signer in self._signers:
                metadata.sign(signer, append=True)
            (self._metadata / name).write_bytes(to_bytes(metadata))


def firmware_target(release: FirmwareRelease) -> Callable[[Targets], None]:
    def change(signed: Targets) -> None:
        from tuf.api.metadata import TargetFile  # noqa: PLC0415

        data = release.to_json()
        target = TargetFile.from_data(release_target(BOARD, release.version), data, ["sha256"])
        target.unrecognized_fields["custom"] = release.to_custom()
        signed.targets[target.path] = target

    return change


ONLINE = ("feed", "snapshot", "timestamp")


def test_the_whole_online_machine_cannot_release_firmware(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    publish(repository, own_keys, make("1.2.0"))
    assert box.release("1.2.0") is not None
    Thief(tmp_path / "repo", own_keys, *ONLINE).forge(firmware_target(make("6.6.6").release), "firmware")
    with pytest.raises(RepositoryError):
        box.release("6.6.6")


def test_a_stolen_feed_key_cannot_name_firmware(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    Thief(tmp_path / "repo", own_keys, *ONLINE).forge(firmware_target(make("6.6.6").release), "feed")
    assert box.release("6.6.6") is None  # the path is not delegated to the feed role


def test_one_stolen_firmware_key_is_not_enough(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease, box: Box
) -> None:
    evil = make("6.6.6")
    with pytest.raises(RejectedError, match="1 of 2"):
        publish(repository, own_keys, evil, "firmware1")
    with pytest.raises(RejectedError, match="1 of 2"):
        publish(repository, own_keys, evil, "firmware1", "feed", "targets1")
    Thief(tmp_path / "repo", own_keys, "firmware1", *ONLINE).forge(firmware_target(evil.release), "firmware")
    with pytest.raises(RepositoryError):
        box.release("6.6.6")


@pytest.mark.parametrize("stolen", [["firmware1"], ["timestamp"], ["snapshot"], ["feed"]])
def test_after_a_theft_the_keys_change_and_firmware_goes_on(
    tmp_path: Path,
    repository: FirmwareRepository,
    own_keys: KeyDirectory,
    clock: ManualClock,
    make: MakeRelease,
    make_pack: Callable[..., VerifiedPack],
    box: Box,
    stolen: list[str],
) -> None:
    release = make("1.2.0")
    publish(repository, own_keys, release)
    assert box.release("1.2.0") is not None
    shutil.copytree(own_keys.path, tmp_path / "thief")
    KeyRotation(tmp_path / "repo", own_keys, clock).rotate(recovery_names(stolen))
    assert box.release("1.2.0") == release.release
    publish(repository, own_keys, make("1.3.0"))
    assert box.release("1.3.0") is not None
    thief = KeyDirectory(tmp_path / "thief")
    with pytest.raises(RejectedError, match=r"[01] of 2"):
        publish(
            repository,
            thief if "firmware1" in stolen else own_keys,
            make("6.6.6"),
            "firmware1",
            stolen[0] if stolen[0] != "firmware1" else "feed",
        )


@pytest.mark.parametrize(
    "names", [["timestamp"], ["snapshot", "timestamp"], ["feed"], ["feed", "snapshot", "timestamp"]]
)
def test_lost_online_keys_are_replaced(
    tmp_path: Path,
    repository: FirmwareRepository,
    own_keys: KeyDirectory,
    clock: ManualClock,
    make: MakeRelease,
    box: Box,
    names: list[str],
) -> None:
    publish(repository, own_keys, make("1.2.0"))
    assert box.release("1.2.0") is not None
    for name in names:
        (own_keys.path / f"tuf/{name}.pem").unlink()
    rotation = KeyRotation(tmp_path / "repo", own_keys, clock)
    with pytest.raises(SetupError):
        rotation.rotate(names)
    rotation.replace_lost(names)
    assert box.release("1.2.0") is not None
    publish(repository, own_keys, make("1.3.0"))
    assert box.release("1.3.0") is not None
    repository.refresh()


@pytest.mark.parametrize("cut_at", ["root.json", "snapshot.json", "timestamp.json"])
def test_a_cut_while_a_lost_key_is_replaced_is_taken_up(
    tmp_path: Path,
    repository: FirmwareRepository,
    own_keys: KeyDirectory,
    clock: ManualClock,
    make: MakeRelease,
    box: Box,
    monkeypatch: pytest.MonkeyPatch,
    cut_at: str,
) -> None:
    publish(repository, own_keys, make("1.2.0"))
    names = ["snapshot", "timestamp"]
    for name in names:
        (own_keys.path / f"tuf/{name}.pem").unlink()

    def cut(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if path.name.endswith(cut_at):
            raise OSError("power")
        files.write_atomic(path, data, mode=mode)

    for module in ("repository", "key_rotation"):
        monkeypatch.setattr(f"omamori_ota.{module}.write_atomic", cut)
    rotation = KeyRotation(tmp_path / "repo", own_keys, clock)
    with pytest.raises(OSError, match="power"):
        rotation.replace_lost(names)
    monkeypatch.undo()
    KeyRotation(tmp_path / "repo", own_keys, clock).replace_lost(names)
    assert box.release("1.2.0") is not None


def test_offline_keys_are_not_replaced_as_lost(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, clock: ManualClock
) -> None:
    for name in ("firmware1", "root1", "targets2"):
        with pytest.raises(RejectedError, match="only online keys"):
            KeyRotation(tmp_path / "repo", own_keys, clock).replace_lost([name])


def test_files_of_the_repository_are_readable_for_a_web_server(
    tmp_path: Path, repository: FirmwareRepository, own_keys: KeyDirectory, make: MakeRelease
) -> None:
    before = os.umask(0o077)
    try:
        publish(repository, own_keys, make("1.2.0"))
    finally:
        os.umask(before)
    for path in (tmp_path / "repo/targets").rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044
