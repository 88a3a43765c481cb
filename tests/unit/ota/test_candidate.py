"""A pack on trial: who is offered what before, during and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from omamori_ota.candidate import Candidate
from omamori_ota.errors import RejectedError
from omamori_ota.keys import KeyDirectory
from omamori_ota.packs import VerifiedPack
from omamori_ota.repository import Repository
from omamori_protocol.feed_offer import FeedOffer, parse_offer

from .conftest import ManualClock

MakePack = Callable[..., VerifiedPack]


@pytest.fixture
def repository(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock, make_pack: MakePack) -> Repository:
    made = Repository(tmp_path / "repo", key_directory, clock)
    made.init()
    made.publish_feed(make_pack(serial=5), "demo")
    return made


@pytest.fixture
def offers(tmp_path: Path) -> Callable[[], dict[str, FeedOffer]]:
    def read() -> dict[str, FeedOffer]:
        newest = max(
            (tmp_path / "repo" / "metadata").glob("*.feed.json"), key=lambda path: int(path.name.split(".")[0])
        )
        targets = Metadata[Targets].from_bytes(newest.read_bytes()).signed.targets
        return {path: parse_offer(target.unrecognized_fields["custom"]) for path, target in targets.items()}

    return read


MAIN, TRIED = "feed/demo/pack.tar.gz", "feed/demo/candidate.tar.gz"


def test_a_candidate_reaches_more_and_more_and_then_everyone(
    repository: Repository, make_pack: MakePack, offers: Callable[[], dict[str, FeedOffer]], tmp_path: Path
) -> None:
    candidate = Candidate(repository, "demo")
    new = make_pack(serial=6)
    candidate.publish(new, 10)
    assert (offers()[MAIN].serial, offers()[TRIED].serial, offers()[TRIED].permille) == (5, 6, 10)
    candidate.reach(100)
    assert offers()[TRIED].permille == 100
    candidate.promote()
    assert set(offers()) == {MAIN}
    assert (offers()[MAIN].serial, offers()[MAIN].permille) == (6, 1000)
    assert any(path.read_bytes() == new.data for path in (tmp_path / "repo/targets/feed/demo").glob("*.pack.tar.gz"))
    repository.status()


def test_a_withdrawn_candidate_is_named_by_the_pack_to_go_back_to(
    repository: Repository, make_pack: MakePack, offers: Callable[[], dict[str, FeedOffer]]
) -> None:
    candidate = Candidate(repository, "demo")
    candidate.publish(make_pack(serial=6), 10)
    candidate.withdraw()
    assert set(offers()) == {MAIN}
    assert (offers()[MAIN].serial, offers()[MAIN].withdrawn) == (5, (6,))
    for again in (5, 6):
        with pytest.raises(RejectedError, match="not greater than 6"):
            candidate.publish(make_pack(serial=again), 10)
        with pytest.raises(RejectedError, match="not greater than"):
            repository.publish_feed(make_pack(serial=again), "demo")
    candidate.publish(make_pack(serial=7), 10)
    candidate.promote()
    assert offers()[MAIN].withdrawn == ()


def test_an_emergency_overtakes_the_candidate(
    repository: Repository, make_pack: MakePack, offers: Callable[[], dict[str, FeedOffer]]
) -> None:
    Candidate(repository, "demo").publish(make_pack(serial=6), 10)
    repository.publish_feed(make_pack(serial=7), "demo")
    assert set(offers()) == {MAIN}
    assert offers()[MAIN].serial == 7


@pytest.mark.parametrize("permille", [0, -1, 1001])
def test_a_part_that_is_none(repository: Repository, make_pack: MakePack, permille: int) -> None:
    with pytest.raises(RejectedError, match="not a part of the fleet"):
        Candidate(repository, "demo").publish(make_pack(serial=6), permille)


def test_without_a_candidate_nothing_moves(
    repository: Repository, make_pack: MakePack, offers: Callable[[], dict[str, FeedOffer]]
) -> None:
    candidate = Candidate(repository, "demo")
    before = offers()
    for move in (candidate.promote, candidate.withdraw, lambda: candidate.reach(100)):
        with pytest.raises(RejectedError, match="no candidate"):
            move()
    assert offers() == before
    candidate.publish(make_pack(serial=6), 100)
    with pytest.raises(RejectedError, match="has reached 100"):
        candidate.reach(100)


def test_the_first_pack_cannot_be_a_candidate(
    tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock, make_pack: MakePack
) -> None:
    empty = Repository(tmp_path / "empty", key_directory, clock)
    empty.init()
    with pytest.raises(RejectedError, match="could not go back"):
        Candidate(empty, "demo").publish(make_pack(serial=1), 10)
    with pytest.raises(RejectedError, match="for the channel 'demo'"):
        Candidate(empty, "other").publish(make_pack(serial=1), 10)


def test_what_is_newest_on_offer(repository: Repository, make_pack: MakePack) -> None:
    candidate = Candidate(repository, "demo")
    assert candidate.newest() == 5
    candidate.publish(make_pack(serial=6), 10)
    assert candidate.newest() == 6
    candidate.withdraw()
    assert candidate.newest() == 5
    with pytest.raises(RejectedError, match="nothing is published"):
        Candidate(repository, "other").newest()
