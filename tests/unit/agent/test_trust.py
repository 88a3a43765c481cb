"""One test for each attack on the repository: what it is called, and that nothing on disk was changed by it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.errors import SetupError
from omamori_agent.feed import trust
from omamori_agent.feed.errors import FeedRefusedError, MetadataExpiredError, RepositoryUnavailableError
from omamori_agent.feed.fetcher import HTTPSFetcher
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.feed.trust import FeedRepository
from omamori_protocol.feed_pack import MAX_PACK_BYTES
from sim.clock import ManualClock
from sim.pki import Authority
from sim.repository import (
    FAR,
    TARGET,
    FileServer,
    RepositorySimulator,
    cut_off,
    drip,
    endless,
    signer,
    status,
    tree,
)

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
LIMITS = FeedLimits(connect_timeout_s=2.0, read_timeout_s=2.0, request_s=5.0)


class Client:
    """A box's view of a repository; `repository` is a new start of the agent."""

    def __init__(self, directory: Path, server: FileServer, root: bytes) -> None:
        self.directory = directory
        self.server = server
        self.clock = ManualClock(NOW.timestamp())
        self.root_file = directory / "root.json"
        self.root_file.write_bytes(root)
        self.metadata = directory / "metadata"
        self.downloads = directory / "download"
        self.downloads.mkdir()
        self.pack = self.downloads / "pack.tar.gz"
        self.limits = LIMITS
        self.ca_file = server.ca_file

    def repository(self, **options: str) -> FeedRepository:
        return FeedRepository(
            base_url=options.get("url", self.server.url),
            device="ZA35-000001",
            channel=options.get("channel", "demo"),
            root_file=self.root_file,
            metadata_dir=self.metadata,
            fetcher=HTTPSFetcher(self.ca_file, self.downloads, self.limits),
            clock=self.clock,
        )

    def age_metadata(self) -> None:
        """The stamp of the metadata is the real clock's; the tests live in their own time."""
        for path in self.metadata.glob("*.json"):
            os.utime(path, (NOW.timestamp(), NOW.timestamp()))

    def take(self) -> int:
        repository = self.repository()
        found = repository.refresh()
        repository.download(self.pack)
        self.age_metadata()
        return found.serial

    def verified(self) -> dict[str, bytes | str]:
        return tree(self.metadata)


@pytest.fixture
def repo() -> RepositorySimulator:
    made = RepositorySimulator()
    made.publish(b"first pack", 1)
    return made


@pytest.fixture
def server(repo: RepositorySimulator, tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "server").mkdir()
    with FileServer(repo.files, tmp_path / "server") as running:
        yield running


@pytest.fixture
def client(repo: RepositorySimulator, server: FileServer, tmp_path: Path) -> Client:
    (tmp_path / "box").mkdir()
    return Client(tmp_path / "box", server, repo.trusted_root)


def refused(client: Client, match: str, error: type[Exception] = FeedRefusedError) -> None:
    """Assert that a refresh is refused and that the verified metadata stays what it was."""
    before = client.verified()
    with pytest.raises(error, match=match) as caught:
        client.repository().refresh()
    assert client.verified() == before
    assert list(client.downloads.iterdir()) in ([], [client.pack])
    again = pytest.raises(error, match=match)
    with again as second:
        client.repository().refresh()
    assert str(second.value) == str(caught.value), "the reason must be the same for the same cause"


def test_new_pack(repo: RepositorySimulator, client: Client) -> None:
    found = client.repository().refresh()
    assert (found.serial, found.size) == (1, len(b"first pack"))
    assert client.take() == 1
    assert client.pack.read_bytes() == b"first pack"
    repo.publish(b"second pack", 2)
    assert client.take() == 2
    assert client.pack.read_bytes() == b"second pack"


def test_refresh_needs_few_requests_and_one_connection(repo: RepositorySimulator, client: Client) -> None:
    repository = client.repository()
    repository.refresh()
    client.server.requests.clear()
    repo.publish(b"second pack", 2)
    repository.refresh()
    repository.download(client.pack)
    assert [path.rpartition("/")[2] for path in client.server.requests[:4]] == [
        "2.root.json",
        "timestamp.json",
        f"{repo.snapshot.version}.snapshot.json",
        f"{repo.feed.version}.feed.json",
    ]
    assert len(client.server.requests) == 5
    assert client.server.connections == 1


def test_nothing_new_needs_two_requests(client: Client) -> None:
    repository = client.repository()
    repository.refresh()
    client.server.requests.clear()
    repository.refresh()
    assert len(client.server.requests) == 2


def test_server_that_closes_kept_connections(repo: RepositorySimulator, client: Client) -> None:
    client.server.keeps_alive = False
    assert client.take() == 1
    repo.publish(b"second pack", 2)
    assert client.take() == 2


def test_metadata_survives_a_restart_of_the_agent(client: Client) -> None:
    client.take()
    client.server.requests.clear()
    client.take()
    assert [path for path in client.server.requests if "snapshot" in path or "feed.json" in path] == []


# Tampering.


def test_tampered_pack(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    client.pack.unlink()
    place = repo.publish(b"second pack", 2)
    repo.files[place] = b"second pacK"
    repository = client.repository()
    repository.refresh()
    with pytest.raises(FeedRefusedError, match="tampered pack"):
        repository.download(client.pack)
    assert list(client.downloads.iterdir()) == []


def test_pack_that_is_longer_than_signed(repo: RepositorySimulator, client: Client) -> None:
    place = repo.publish(b"second pack", 2)
    repo.files[place] += b"x"
    repository = client.repository()
    repository.refresh()
    with pytest.raises(FeedRefusedError, match="oversize pack"):
        repository.download(client.pack)
    assert list(client.downloads.iterdir()) == []


def test_pack_that_is_shorter_than_signed(repo: RepositorySimulator, client: Client) -> None:
    place = repo.publish(b"second pack", 2)
    repo.files[place] = repo.files[place][:-1]
    repository = client.repository()
    repository.refresh()
    with pytest.raises(FeedRefusedError, match="tampered pack"):
        repository.download(client.pack)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "feed"])
def test_tampered_metadata(repo: RepositorySimulator, client: Client, role: str) -> None:
    client.take()
    repo.publish(b"second pack", 2)
    name = "timestamp" if role == "timestamp" else f"{getattr(repo, role).version}.{role}"
    data = repo.files[f"metadata/{name}.json"]
    repo.files[f"metadata/{name}.json"] = data.replace(b'"2036-01-01', b'"2037-01-01')
    before = client.verified()
    with pytest.raises(FeedRefusedError, match="tampered metadata"):
        client.repository().refresh()
    changed = {path for path, data in client.verified().items() if before[path] != data}
    assert changed <= {"timestamp.json", "snapshot.json"}  # what was verified before the tampered role
    assert f"{role}.json" not in changed


def test_feed_signed_by_a_wrong_key(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    repo.put_target(b"evil", {"serial": 2, "format": 1})
    repo.feed.version += 1
    repo.write(repo.feed, "feed", by=[signer()])
    repo.resign()
    with pytest.raises(FeedRefusedError, match="tampered metadata"):
        client.repository().refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_online_keys_cannot_sign_for_the_feed(repo: RepositorySimulator, client: Client, role: str) -> None:
    repo.put_target(b"evil", {"serial": 2, "format": 1})
    repo.feed.version += 1
    repo.write(repo.feed, "feed", by=repo.signers[role])
    repo.resign()
    with pytest.raises(FeedRefusedError, match="tampered metadata"):
        client.repository().refresh()


def test_timestamp_signed_by_a_wrong_key(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    repo.timestamp.version += 1
    repo.write(repo.timestamp, "timestamp", by=[signer()])
    refused(client, "tampered metadata")


def test_root_signed_by_one_of_three(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    repo.root.version += 1
    repo.write_root(by=repo.signers["root"][:1])
    refused(client, "tampered metadata")


def test_root_that_skips_a_version(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    repo.root.version = 3
    repo.write_root()
    repo.files["metadata/2.root.json"] = repo.files.pop("metadata/3.root.json")
    refused(client, "rollback")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff" * 100, b"[" * 5000, b'{"signed": 5, "signatures": []}'])
def test_timestamp_that_is_no_metadata(repo: RepositorySimulator, client: Client, body: bytes) -> None:
    client.take()
    repo.files["metadata/timestamp.json"] = body
    refused(client, "tampered metadata")


def test_metadata_of_another_role(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    repo.files["metadata/timestamp.json"] = repo.files["metadata/1.root.json"]
    refused(client, "tampered metadata")


# Rollback, freeze, mix.


def test_timestamp_rollback(repo: RepositorySimulator, client: Client) -> None:
    old = repo.files["metadata/timestamp.json"]
    repo.publish(b"second pack", 2)
    client.take()
    repo.files["metadata/timestamp.json"] = old
    refused(client, "rollback")


def test_snapshot_rollback(repo: RepositorySimulator, client: Client) -> None:
    repo.publish(b"second pack", 2)
    client.take()
    repo.snapshot.version -= 1
    repo.timestamp.version += 1
    repo.write_timestamp()
    refused(client, "rollback")


def test_targets_rollback(repo: RepositorySimulator, client: Client) -> None:
    repo.targets.version += 1
    repo.write(repo.targets, "targets")
    repo.publish(b"second pack", 2)
    client.take()
    repo.targets.version -= 1
    before = client.verified()["snapshot.json"]
    repo.resign()
    with pytest.raises(FeedRefusedError, match="rollback"):
        client.repository().refresh()
    assert client.verified()["snapshot.json"] == before


def test_feed_rollback(repo: RepositorySimulator, client: Client) -> None:
    repo.publish(b"second pack", 2)
    client.take()
    repo.feed.version -= 1
    before = client.verified()["snapshot.json"]
    repo.resign()
    with pytest.raises(FeedRefusedError, match="rollback"):
        client.repository().refresh()
    assert client.verified()["snapshot.json"] == before


def test_role_that_disappears_from_the_snapshot(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    del repo.snapshot.meta["feed.json"]
    repo.snapshot.version += 1
    repo.write(repo.snapshot, "snapshot")
    repo.timestamp.version += 1
    repo.write_timestamp()
    with pytest.raises(FeedRefusedError, match="tampered metadata"):
        client.repository().refresh()


def test_feed_of_one_version_with_the_snapshot_of_another(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    old = repo.files[f"metadata/{repo.feed.version}.feed.json"]
    repo.publish(b"second pack", 2)
    repo.files[f"metadata/{repo.feed.version}.feed.json"] = old
    with pytest.raises(FeedRefusedError, match=r"rollback|tampered"):
        client.repository().refresh()


def test_snapshot_of_one_version_with_the_timestamp_of_another(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    old = repo.files[f"metadata/{repo.snapshot.version}.snapshot.json"]
    repo.publish(b"second pack", 2)
    repo.files[f"metadata/{repo.snapshot.version}.snapshot.json"] = old
    with pytest.raises(FeedRefusedError, match=r"rollback|tampered"):
        client.repository().refresh()


def test_frozen_timestamp(repo: RepositorySimulator, client: Client) -> None:
    repo.timestamp.expires = NOW + DAY
    repo.resign()
    client.take()
    client.clock.advance(3 * 86400)
    refused(client, "expired metadata: timestamp expired 2026-11-23T00:00Z", MetadataExpiredError)
    assert client.repository().expired() == "expired metadata: timestamp expired 2026-11-23T00:00Z"


@pytest.mark.parametrize("role", ["root", "snapshot", "targets", "feed"])
def test_expired_role(repo: RepositorySimulator, client: Client, role: str) -> None:
    client.take()
    signed = getattr(repo, role)
    signed.expires = NOW - DAY
    signed.version += role != "snapshot"
    if role == "root":
        repo.write_root()
    else:
        repo.write(signed, role)
        repo.resign()
    with pytest.raises(MetadataExpiredError, match="expired metadata"):
        client.repository().refresh()


def test_expired_before_a_new_one_was_seen(repo: RepositorySimulator, client: Client) -> None:
    repo.timestamp.expires = NOW + DAY
    repo.resign()
    client.take()
    client.clock.advance(3 * 86400)
    repo.timestamp.expires = FAR
    repo.publish(b"second pack", 2)
    assert client.repository().refresh().serial == 2


def test_nothing_has_expired(client: Client) -> None:
    assert client.repository().expired() is None
    client.take()
    assert client.repository().expired() is None


def test_clock_that_lost_its_battery(repo: RepositorySimulator, client: Client) -> None:
    repo.timestamp.expires = NOW + DAY
    repo.resign()
    client.take()
    stamp = (NOW + 2 * DAY).timestamp()
    os.utime(client.metadata / "timestamp.json", (stamp, stamp))
    client.clock.now_s = dt.datetime(2020, 1, 1, tzinfo=dt.UTC).timestamp()
    refused(client, "expired", MetadataExpiredError)


# Keys change.


def test_root_rotation(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    old_signers = repo.signers["root"]
    new = signer()
    repo.root.revoke_key(old_signers[0].public_key.keyid, "root")
    repo.root.add_key(new.public_key, "root")
    repo.signers["root"] = [new, *old_signers[1:]]
    repo.root.version += 1
    repo.write_root(by=[new, *old_signers])
    repo.publish(b"second pack", 2)
    assert client.take() == 2
    assert (client.metadata / "root_history/2.root.json").exists()


def test_stolen_timestamp_key_is_useless_after_a_rotation(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    stolen = repo.signers["timestamp"]
    repo.signers["timestamp"] = [signer()]
    repo.root.revoke_key(stolen[0].public_key.keyid, "timestamp")
    repo.root.add_key(repo.signers["timestamp"][0].public_key, "timestamp")
    repo.root.version += 1
    repo.write_root()
    repo.timestamp.version += 1
    repo.write(repo.timestamp, "timestamp", by=stolen)
    with pytest.raises(FeedRefusedError, match="tampered metadata"):
        client.repository().refresh()


def rotate(repo: RepositorySimulator, *roles: str) -> None:
    """Replace the keys of top-level roles and publish everything anew with the new ones."""
    for role in roles:
        for old in repo.signers[role]:
            repo.root.revoke_key(old.public_key.keyid, role)
        repo.signers[role] = [signer()]
        repo.root.add_key(repo.signers[role][0].public_key, role)
    repo.root.version += 1
    repo.write_root()
    repo.resign()


@pytest.mark.parametrize(
    ("attacked", "rotated"),
    [("timestamp", ("timestamp",)), ("snapshot", ("snapshot", "timestamp")), ("feed", ("snapshot", "timestamp"))],
)
def test_recovery_from_a_fast_forward(
    repo: RepositorySimulator, client: Client, attacked: str, rotated: tuple[str, ...]
) -> None:
    """A thief of online keys raised versions to the end; new keys make the true, lower versions good again."""
    client.take()
    true = getattr(repo, attacked).version
    getattr(repo, attacked).version = 2**31 - 10
    if attacked == "feed":
        repo.write(repo.feed, "feed")
    repo.write_snapshot()
    if attacked == "timestamp":
        repo.write(repo.timestamp, "timestamp")
    else:
        repo.resign()
    client.take()
    getattr(repo, attacked).version = true
    repo.publish(b"second pack", 2)
    with pytest.raises(FeedRefusedError, match="rollback"):
        client.repository().refresh()
    rotate(repo, *rotated)
    assert client.take() == 2


def test_threshold_of_a_delegation_not_met(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    second = signer()
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    repo.targets.add_key(second.public_key, "feed")
    repo.targets.delegations.roles["feed"].threshold = 2
    repo.targets.version += 1
    repo.write(repo.targets, "targets")
    repo.publish(b"second pack", 2)
    with pytest.raises(FeedRefusedError, match="tampered metadata"):
        client.repository().refresh()
    repo.signers["feed"].append(second)
    repo.publish(b"third pack", 3)
    assert client.take() == 3


def test_stolen_feed_key_is_useless_after_a_rotation(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    stolen = repo.signers["feed"]
    repo.signers["feed"] = [signer()]
    repo.targets.revoke_key(stolen[0].public_key.keyid, "feed")
    repo.targets.add_key(repo.signers["feed"][0].public_key, "feed")
    repo.targets.version += 1
    repo.write(repo.targets, "targets")
    repo.publish(b"second pack", 2)
    assert client.take() == 2
    repo.put_target(b"evil", {"serial": 3, "format": 1})
    repo.feed.version += 1
    repo.write(repo.feed, "feed", by=stolen)
    repo.resign()
    with pytest.raises(FeedRefusedError, match="tampered metadata"):
        client.repository().refresh()


def test_endless_root_rotations(repo: RepositorySimulator, client: Client) -> None:
    for _ in range(trust.MAX_ROOT_ROTATIONS + 10):
        repo.root.version += 1
        repo.write_root()
    client.repository().refresh()
    asked = [path for path in client.server.requests if path.endswith(".root.json")]
    assert len(asked) == trust.MAX_ROOT_ROTATIONS


def test_root_of_the_image_that_is_broken(client: Client) -> None:
    client.root_file.write_bytes(b"{}")
    with pytest.raises(SetupError, match=r"root\.json"):
        client.repository().refresh()


def test_root_of_the_image_that_is_missing(client: Client) -> None:
    client.root_file.unlink()
    with pytest.raises(RepositoryUnavailableError):
        client.repository().refresh()


# Names and numbers.


@pytest.mark.parametrize(
    "custom",
    [
        None,
        {},
        [],
        {"serial": 2},
        {"serial": 2, "format": 2},
        {"serial": "2", "format": 1},
        {"serial": 0, "format": 1},
        {"serial": -1, "format": 1},
        {"serial": 2**31, "format": 1},
        {"serial": True, "format": 1},
    ],
)
def test_target_without_a_usable_serial(repo: RepositorySimulator, client: Client, custom: object) -> None:
    client.take()
    repo.put_target(b"second pack", custom)
    repo.sign_all()
    with pytest.raises(FeedRefusedError, match="offers no feed"):
        client.repository().refresh()


def test_target_larger_than_any_pack(repo: RepositorySimulator, client: Client) -> None:
    repo.put_target(b"second pack", {"serial": 2, "format": 1})
    repo.feed.targets[TARGET].length = MAX_PACK_BYTES + 1
    repo.sign_all()
    with pytest.raises(FeedRefusedError, match="serial 2: pack of"):
        client.repository().refresh()
    repo.feed.targets[TARGET].length = MAX_PACK_BYTES
    repo.sign_all()
    assert client.repository().refresh().size == MAX_PACK_BYTES


def test_target_without_sha256(repo: RepositorySimulator, client: Client) -> None:
    repo.put_target(b"second pack", {"serial": 2, "format": 1})
    repo.feed.targets[TARGET].hashes = {"md5": "0" * 32}
    repo.sign_all()
    with pytest.raises(FeedRefusedError, match="without a SHA-256"):
        client.repository().refresh()


def test_channel_without_a_feed(client: Client) -> None:
    with pytest.raises(RepositoryUnavailableError, match="no feed for this channel"):
        client.repository(channel="other").refresh()


def test_download_before_a_refresh(client: Client) -> None:
    with pytest.raises(RepositoryUnavailableError):
        client.repository().download(client.pack)


# The network.


def test_oversize_metadata(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    repo.files["metadata/timestamp.json"] += b" " * (trust.MAX_TIMESTAMP_BYTES + 1)
    refused(client, "oversize metadata")


@pytest.mark.parametrize("place", ["metadata/timestamp.json", "metadata/2.root.json"])
def test_endless_data(client: Client, place: str) -> None:
    client.take()
    client.server.behaviours[place] = endless()
    refused(client, "oversize metadata")


def test_endless_pack(repo: RepositorySimulator, client: Client) -> None:
    place = repo.publish(b"second pack" * 100_000, 2)
    client.server.behaviours[place] = endless()
    repository = client.repository()
    repository.refresh()
    with pytest.raises(FeedRefusedError, match="oversize pack"):
        repository.download(client.pack)
    assert list(client.downloads.iterdir()) == []


def test_endless_error_page(client: Client) -> None:
    client.take()
    client.server.behaviours["metadata/2.root.json"] = endless(code=404)
    assert client.repository().refresh().serial == 1


@pytest.mark.parametrize("headers_too", [False, True])
def test_slow_retrieval(client: Client, headers_too: bool) -> None:
    client.take()
    client.limits = dataclasses.replace(LIMITS, request_s=0.5, min_bytes_per_s=100_000)
    client.server.behaviours["metadata/timestamp.json"] = drip(headers_too=headers_too)
    started = time.monotonic()
    refused(client, "metadata: download too slow", RepositoryUnavailableError)
    assert time.monotonic() - started < 6


def test_slow_pack(repo: RepositorySimulator, client: Client) -> None:
    place = repo.publish(b"x" * 1_000_000, 2)
    repository = client.repository()
    repository.refresh()
    client.limits = dataclasses.replace(LIMITS, request_s=0.5, min_bytes_per_s=10_000_000)
    client.server.behaviours[place] = drip()
    repository = client.repository()
    repository.refresh()
    with pytest.raises(RepositoryUnavailableError, match="too slow"):
        repository.download(client.pack)
    assert list(client.downloads.iterdir()) == []


def test_server_that_says_nothing(client: Client) -> None:
    client.take()
    client.limits = dataclasses.replace(LIMITS, read_timeout_s=0.2)
    client.server.behaviours["metadata/timestamp.json"] = lambda _handler: time.sleep(1)
    refused(client, "too slow", RepositoryUnavailableError)


def test_connection_that_breaks(repo: RepositorySimulator, client: Client) -> None:
    client.take()
    client.server.behaviours["metadata/timestamp.json"] = cut_off(repo.files["metadata/timestamp.json"])
    refused(client, "metadata", RepositoryUnavailableError)


@pytest.mark.parametrize("code", [204, 301, 302, 307, 400, 500, 503])
def test_answer_that_is_no_file(client: Client, code: int) -> None:
    client.take()
    client.server.behaviours["metadata/timestamp.json"] = status(code, Location=f"{client.server.url}/metadata/x")
    refused(client, f"HTTP status {code}", RepositoryUnavailableError)
    assert "metadata/x" not in client.server.requests


def test_compressed_answer_is_not_unpacked(client: Client) -> None:
    client.take()
    headers = {"Content-Encoding": "gzip"}
    client.server.behaviours["metadata/timestamp.json"] = status(200, b"\x1f\x8b" + bytes(100), **headers)
    refused(client, "tampered metadata")


def test_nobody_listens(client: Client) -> None:
    client.take()
    with pytest.raises(RepositoryUnavailableError, match="refused"):
        client.repository(url="https://localhost:1").refresh()


def test_plain_http_is_never_asked(client: Client) -> None:
    with pytest.raises(RepositoryUnavailableError, match="only https"):
        client.repository(url=client.server.url.replace("https", "http")).refresh()


def test_server_of_another_authority(client: Client, tmp_path: Path) -> None:
    client.ca_file = tmp_path / "other-ca.pem"
    client.ca_file.write_bytes(Authority("somebody else").pem)
    with pytest.raises(RepositoryUnavailableError, match="server certificate"):
        client.repository().refresh()
    assert client.server.requests == []


def test_server_with_another_name(client: Client) -> None:
    with pytest.raises(RepositoryUnavailableError, match="server certificate"):
        client.repository(url=client.server.url.replace("localhost", "127.0.0.1")).refresh()


def test_authority_that_is_missing(client: Client, tmp_path: Path) -> None:
    client.ca_file = tmp_path / "nothing.pem"
    with pytest.raises(RepositoryUnavailableError):
        client.repository().refresh()


def test_metadata_directory_that_cannot_be_written(client: Client) -> None:
    client.metadata.write_text("a file in its place")
    with pytest.raises(RepositoryUnavailableError):
        client.repository().refresh()


def test_local_metadata_destroyed_by_a_power_cut(client: Client) -> None:
    client.take()
    for path in client.metadata.glob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"")
    assert client.take() == 1
