"""Publishing increments: what is offered, what is refused, what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_ota import cli
from omamori_ota.errors import RejectedError
from omamori_ota.keys import KeyDirectory
from omamori_ota.packs import ReadIncrement, VerifiedPack, read_increment, read_pack
from omamori_ota.repository import MAX_INCREMENTS, Published, Repository, kept_increments
from omamori_protocol.feed_offer import FeedOffer, OfferedIncrement
from sim.increments import make_increment
from sim.packs import PackSource

from .conftest import START, ManualClock
from .test_repository import Client, tree

COMMON = tuple(f"n{number:05d}.test" for number in range(3000))


def source(serial: int, **changes: object) -> PackSource:
    names = tuple(sorted((*COMMON, f"serial{serial}.test")))
    return PackSource(serial=serial, domains={"dangerous": names}, **changes)  # type: ignore[arg-type]


class Desk:
    """Builds packs and increments and publishes them."""

    def __init__(self, directory: Path, repository: Repository) -> None:
        self.directory = directory
        self.repository = repository

    def pack(self, serial: int) -> VerifiedPack:
        path = self.directory / f"{serial}.tar.gz"
        path.write_bytes(source(serial).build())
        return read_pack(path)

    def increment(self, start: int, goal: int) -> ReadIncrement:
        path = self.directory / f"{start}-{goal}"
        path.write_bytes(make_increment(source(start), source(goal)))
        return read_increment(path)

    def publish(self, serial: int, start: int | None = None) -> Published:
        increment = None if start is None else self.increment(start, serial)
        return self.repository.publish_feed(self.pack(serial), "demo", increment)

    @property
    def offered(self) -> list[tuple[int, int]]:
        (feed,) = self.repository.status().feeds
        return [(item.start, item.goal) for item in feed.increments]

    def stored(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "repo/targets/feed/demo").glob("*.increment"))


@pytest.fixture
def desk(tmp_path: Path, repository: Repository) -> Desk:
    return Desk(tmp_path, repository)


@pytest.fixture
def client(tmp_path: Path, repository: Repository, key_directory: KeyDirectory) -> Client:
    return Client(tmp_path / "repo", key_directory.path / "trust", tmp_path / "client")


def test_increment_is_offered_beside_the_pack(desk: Desk, client: Client) -> None:
    desk.publish(1)
    desk.publish(2, 1)
    desk.publish(4, 2)
    assert desk.offered == [(1, 2), (2, 4)]
    assert client.serial(START) == 4
    assert len(desk.stored()) == 2


def test_pack_without_an_increment_ends_the_chain(desk: Desk) -> None:
    desk.publish(1)
    desk.publish(2, 1)
    desk.publish(3)
    assert desk.offered == []


@pytest.mark.parametrize(("start", "goal"), [(1, 3), (2, 4), (1, 2)])
def test_increment_that_does_not_fit_publishes_nothing(desk: Desk, tmp_path: Path, start: int, goal: int) -> None:
    desk.publish(1)
    desk.publish(2)
    before = tree(tmp_path / "repo")
    with pytest.raises(RejectedError, match=f"leads from serial {start} to {goal}, not from 2 to 3"):
        desk.repository.publish_feed(desk.pack(3), "demo", desk.increment(start, goal))
    assert tree(tmp_path / "repo") == before


def test_increment_that_leads_elsewhere_publishes_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.publish(1)
    before = tree(tmp_path / "repo")
    path = tmp_path / "other"
    path.write_bytes(make_increment(source(1), source(2, rules=b"alert ip (sid:1;)\n")))
    with pytest.raises(RejectedError, match="does not lead to serial 2"):
        desk.repository.publish_feed(desk.pack(2), "demo", read_increment(path))
    assert tree(tmp_path / "repo") == before


def test_first_pack_has_nothing_to_begin_with(desk: Desk) -> None:
    with pytest.raises(RejectedError, match="not from 0 to 2"):
        desk.repository.publish_feed(desk.pack(2), "demo", desk.increment(1, 2))


def test_file_that_is_no_increment(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(RejectedError, match="is not an increment"):
        read_increment(tmp_path / "x")


def test_no_more_is_offered_than_somebody_would_take() -> None:
    chain = [OfferedIncrement(number, number + 1, 10) for number in range(1, 50)]
    assert kept_increments(chain, 10_000) == chain[-MAX_INCREMENTS:]
    assert kept_increments(chain, 101) == chain[-10:]
    assert kept_increments(chain, 100) == chain[-9:]
    assert kept_increments(chain, 10) == []
    assert kept_increments([chain[0], *chain[2:]], 10_000) == chain[-MAX_INCREMENTS:]
    assert kept_increments([chain[0], *chain[2:5]], 10_000) == chain[2:5]


def test_old_increments_leave_the_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omamori_ota.repository.MAX_INCREMENTS", 2)
    desk.publish(1)
    for serial in range(2, 10):
        desk.publish(serial, serial - 1)
    assert desk.offered == [(7, 8), (8, 9)]
    assert len(desk.stored()) == 2 + 2


def test_repository_of_an_older_publisher(desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FeedOffer, "to_custom", lambda self: {"format": 1, "serial": self.serial})
        desk.publish(1)
    desk.publish(2, 1)
    assert desk.offered == [(1, 2)]
    assert client.serial(START) == 2


def test_command_line(
    tmp_path: Path, desk: Desk, key_directory: KeyDirectory, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.publish(1)
    desk.pack(2)
    desk.increment(1, 2)
    common = [str(key_directory.path), str(tmp_path / "repo")]
    line = ["publish", "feed", *common, str(tmp_path / "2.tar.gz"), "--channel", "demo"]
    assert cli.main([*line, "--increment", str(tmp_path / "1-2")]) == 0
    assert cli.main(["status", *common]) == 0
    assert "from serial 1 to 2:" in capsys.readouterr().out
