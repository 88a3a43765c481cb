"""Publishing: what clients see before, after, and when it stops halfway.

The client is the real one of python-tuf, reading the repository's files through a fetcher.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError
from tuf.ngclient import FetcherInterface, Updater

from omamori_ota import files, keys
from omamori_ota.clock import parse_duration
from omamori_ota.errors import RejectedError, SetupError, TransientError
from omamori_ota.keys import KeyDirectory
from omamori_ota.packs import VerifiedPack
from omamori_ota.repository import Repository
from omamori_ota.roles import Lifetimes

from .conftest import START, ManualClock

MakePack = Callable[..., VerifiedPack]


class DiskFetcher(FetcherInterface):
    """Serves a repository directory as a plain web server would."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._directory / urlsplit(url).path.lstrip("/")
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        return iter([path.read_bytes()])


class Client:
    """A box's view of a repository; keeps its metadata like one."""

    def __init__(self, directory: Path, trust: Path, home: Path) -> None:
        home.mkdir()
        self._arguments = (DiskFetcher(directory), trust, home)

    def serial(self, now: datetime, channel: str = "demo") -> int | None:
        fetcher, trust, home = self._arguments
        updater = Updater(
            str(home),
            "https://repo.test/metadata/",
            str(home),
            "https://repo.test/targets/",
            fetcher=fetcher,
            bootstrap=(trust / "root.json").read_bytes(),
        )
        updater._trusted_set.reference_time = now
        updater.refresh()
        target = updater.get_targetinfo(f"feed/{channel}/pack.tar.gz")
        if target is None:
            return None
        updater.download_target(target, str(home / "pack"))
        return int(target.unrecognized_fields["custom"]["serial"])


@pytest.fixture
def client(tmp_path: Path, repository: Repository, key_directory: KeyDirectory) -> Client:
    return Client(tmp_path / "repo", key_directory.path / "trust", tmp_path / "client")


def test_new_repository_offers_no_feed(client: Client) -> None:
    assert client.serial(START) is None


def test_published_pack_arrives(repository: Repository, client: Client, make_pack: MakePack) -> None:
    done = repository.publish_feed(make_pack(3), "demo")
    assert done.serial == 3
    assert done.versions == {"feed": 2, "snapshot": 2, "timestamp": 2}
    assert client.serial(START) == 3


def test_channels_are_apart(repository: Repository, client: Client, make_pack: MakePack) -> None:
    repository.publish_feed(make_pack(3), "demo")
    repository.publish_feed(make_pack(1, "pilot"), "pilot")
    assert (client.serial(START), client.serial(START, "pilot")) == (3, 1)
    assert [(feed.channel, feed.serial) for feed in repository.status().feeds] == [("demo", 3), ("pilot", 1)]


@pytest.mark.parametrize("serial", [1, 5])
def test_serial_that_is_not_greater_is_refused(
    tmp_path: Path, repository: Repository, make_pack: MakePack, serial: int
) -> None:
    repository.publish_feed(make_pack(5), "demo")
    before = tree(tmp_path / "repo")
    with pytest.raises(RejectedError, match="not greater than the published 5") as caught:
        repository.publish_feed(make_pack(serial), "demo")
    assert "--serial 6" in caught.value.hint
    assert tree(tmp_path / "repo") == before


def test_pack_of_another_channel_is_refused(tmp_path: Path, repository: Repository, make_pack: MakePack) -> None:
    before = tree(tmp_path / "repo")
    with pytest.raises(RejectedError, match="for the channel 'pilot'"):
        repository.publish_feed(make_pack(1, "pilot"), "demo")
    assert tree(tmp_path / "repo") == before


@pytest.mark.parametrize("cut_at", range(4))
def test_power_cut_at_each_write_leaves_the_previous_state(
    tmp_path: Path,
    repository: Repository,
    client: Client,
    make_pack: MakePack,
    monkeypatch: pytest.MonkeyPatch,
    cut_at: int,
) -> None:
    repository.publish_feed(make_pack(1), "demo")
    writes = []

    def cut(path: Path, data: bytes, **options: int) -> None:
        if len(writes) == cut_at:
            raise OSError("power cut")
        writes.append(path.name)
        files.write_atomic(path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr("omamori_ota.repository.write_atomic", cut)
        with pytest.raises(OSError, match="power cut"):
            repository.publish_feed(make_pack(2), "demo")
    assert client.serial(START) == 1
    repository.publish_feed(make_pack(3), "demo")
    assert client.serial(START) == 3


def test_order_of_writing_ends_with_the_timestamp(
    repository: Repository, make_pack: MakePack, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def note(path: Path, data: bytes, **options: int) -> None:
        names.append(path.name)
        files.write_atomic(path, data, **options)

    monkeypatch.setattr("omamori_ota.repository.write_atomic", note)
    repository.publish_feed(make_pack(1), "demo")
    assert names[0].endswith(".pack.tar.gz")
    assert names[1:] == ["2.feed.json", "2.snapshot.json", "timestamp.json"]


def test_left_over_version_is_stepped_over_not_rewritten(
    tmp_path: Path, repository: Repository, client: Client, make_pack: MakePack
) -> None:
    left = tmp_path / "repo/metadata/2.feed.json"
    left.write_text("left by a cut")
    repository.publish_feed(make_pack(1), "demo")
    assert left.read_text() == "left by a cut"
    assert client.serial(START) == 1


def test_client_in_the_middle_still_finds_the_previous_pack(
    tmp_path: Path, repository: Repository, make_pack: MakePack
) -> None:
    for serial in range(1, 6):
        repository.publish_feed(make_pack(serial), "demo")
    packs = list((tmp_path / "repo/targets/feed/demo").iterdir())
    assert len(packs) == 3


def test_refresh_prolongs_without_touching_offline_roles(
    repository: Repository, client: Client, clock: ManualClock, make_pack: MakePack
) -> None:
    repository.publish_feed(make_pack(1), "demo")
    clock.advance(hours=23)
    assert repository.refresh().versions == {"snapshot": 3, "timestamp": 3}
    clock.advance(hours=12)
    assert client.serial(clock.now) == 1


def test_refresh_renews_the_feed_role_at_half_of_its_life(repository: Repository, clock: ManualClock) -> None:
    clock.advance(days=4)
    assert set(repository.refresh().versions) == {"feed", "snapshot", "timestamp"}


def test_offline_roles_are_renewed_when_asked(repository: Repository, clock: ManualClock, client: Client) -> None:
    clock.advance(days=100)
    versions = repository.refresh(is_offline_included=True).versions
    assert versions == {"targets": 2, "feed": 2, "firmware": 2, "snapshot": 2, "timestamp": 2}
    assert client.serial(clock.now) is None


def test_expired_metadata_is_refused_by_the_client(repository: Repository, client: Client, clock: ManualClock) -> None:
    clock.advance(days=2)
    with pytest.raises(ExpiredMetadataError):
        client.serial(clock.now)


def test_lifetimes_can_be_shortened_for_the_lab(
    tmp_path: Path, repository: Repository, key_directory: KeyDirectory, clock: ManualClock, client: Client
) -> None:
    short = Repository(tmp_path / "repo", key_directory, clock, Lifetimes.parse(["timestamp=30s"]))
    short.refresh()
    assert client.serial(clock.now) is None
    clock.advance(seconds=31)
    with pytest.raises(ExpiredMetadataError):
        client.serial(clock.now)


def test_second_publisher_waits_and_gives_up(
    tmp_path: Path, repository: Repository, make_pack: MakePack, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(0, 1000, 6))
    monkeypatch.setattr("omamori_ota.files.time.monotonic", lambda: next(ticks))
    with files.exclusive(tmp_path / "repo/.lock"), pytest.raises(TransientError, match="another publisher"):
        repository.refresh()


def test_repository_of_other_keys_is_not_signed_over(
    tmp_path: Path, repository: Repository, clock: ManualClock, make_pack: MakePack
) -> None:
    other = keys.init(tmp_path / "other", clock, Lifetimes())
    before = tree(tmp_path / "repo")
    with pytest.raises(SetupError, match="not signed by this key directory"):
        Repository(tmp_path / "repo", other, clock).publish_feed(make_pack(1), "demo")
    assert tree(tmp_path / "repo") == before


def test_changed_metadata_is_not_signed_over(tmp_path: Path, repository: Repository, make_pack: MakePack) -> None:
    repository.publish_feed(make_pack(4), "demo")
    path = tmp_path / "repo/metadata/2.feed.json"
    path.write_bytes(path.read_bytes().replace(b'"serial":4', b'"serial":1'))
    with pytest.raises(SetupError, match="published feed metadata"):
        repository.publish_feed(make_pack(5), "demo")


def test_oversize_metadata_is_not_read(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "repo/metadata/timestamp.json").write_bytes(b" " * (5_000_001))
    with pytest.raises(SetupError, match="larger than 5000000"):
        repository.status()


def test_repository_is_readable_for_a_web_server(tmp_path: Path, repository: Repository, make_pack: MakePack) -> None:
    repository.publish_feed(make_pack(1), "demo")
    for path in [tmp_path / "repo", *(tmp_path / "repo").rglob("*")]:
        if path.name != ".lock":
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_occupied_directory_is_refused(tmp_path: Path, repository: Repository) -> None:
    before = tree(tmp_path / "repo")
    with pytest.raises(SetupError, match="exists already"):
        repository.init()
    assert tree(tmp_path / "repo") == before


def test_status_tells_expiries_of_the_table(repository: Repository) -> None:
    left = {role.role: role.expires - START for role in repository.status().roles}
    assert left == {
        "root": parse_duration("365d"),
        "targets": parse_duration("180d"),
        "firmware": parse_duration("90d"),
        "feed": parse_duration("7d"),
        "snapshot": parse_duration("7d"),
        "timestamp": parse_duration("1d"),
    }


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
