"""Another feed channel by desired state: taken when it is newer, never a step back, and nothing is lost on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from omamori_agent.desired.errors import PendingError
from omamori_agent.errors import TransientError
from omamori_agent.feed.channel import FeedChannel, FeedPart
from omamori_protocol.desired import FeedSettings
from omamori_protocol.feed_offer import FeedOffer
from omamori_protocol.reported import PartName
from omamori_protocol.topics import feed_target
from omamori_protocol.vocabulary import FeedState
from sim.feed_box import Box
from sim.packs import PackSource

STABLE = FeedSettings(channel="stable")


@pytest.fixture
def choice(tmp_path: Path) -> FeedChannel:
    return FeedChannel(tmp_path / "channel", "demo")


def test_factory_s_channel_needs_no_file(choice: FeedChannel, tmp_path: Path) -> None:
    assert choice.get() == "demo"
    choice.choose(None)
    choice.choose("demo")
    assert not (tmp_path / "channel").exists()


def test_choice_outlives_a_restart_and_goes_back(choice: FeedChannel, tmp_path: Path) -> None:
    changes: list[str] = []
    choice.subscribe(lambda: changes.append(choice.get()))
    choice.choose("stable")
    choice.choose("stable")
    assert FeedChannel(tmp_path / "channel", "demo").get() == "stable"
    choice.choose(None)
    assert FeedChannel(tmp_path / "channel", "demo").get() == "demo"
    assert changes == ["stable", "demo"]


def test_disk_that_is_full_changes_nothing(choice: FeedChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    choice.subscribe(lambda: pytest.fail("nothing changed"))
    monkeypatch.setattr("omamori_agent.feed.channel.write_atomic", full)
    with pytest.raises(TransientError, match="No space"):
        choice.choose("stable")
    assert choice.get() == "demo"


@pytest.mark.parametrize("content", [b"", b"UPPER\n", b"a/b\n", b"\xff\n", b"x" * 65, b"../demo\n"])
def test_damaged_file_is_the_factory_s_channel(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "channel").write_bytes(content)
    assert FeedChannel(tmp_path / "channel", "demo").get() == "demo"


def test_part_is_pending_until_a_feed_of_the_channel_is_in_force(choice: FeedChannel) -> None:
    part = FeedPart(choice)
    assert part.name is PartName.FEED
    part.apply(None)
    with pytest.raises(PendingError, match="there is no feed yet"):
        part.apply(STABLE)
    assert choice.get() == "stable"
    choice.show("demo")
    with pytest.raises(PendingError, match="the feed of channel demo stays until then"):
        part.apply(STABLE)
    choice.show("stable")
    part.apply(STABLE)
    part.apply(None)
    assert choice.get() == "demo"


def publish(box: Box, serial: int, channel: str = "stable", domain: str = "stable.test") -> None:
    """Name a pack of another channel beside the one of `demo`."""
    pack = PackSource(serial=serial, channel=channel, domains={"dangerous": (domain,)})
    offer = FeedOffer(serial, hashlib.sha256(pack.manifest().to_json()).hexdigest())
    box.repo.put_target(pack.build(), offer.to_custom(), path=feed_target(channel))
    box.repo.sign_all()


def test_newer_feed_of_another_channel_is_taken(protected: Box) -> None:
    part = FeedPart(protected.channel)
    assert protected.channel.active() == "demo"
    publish(protected, serial=7)
    protected.poll()
    assert protected.active == 1  # nobody has said so
    with pytest.raises(PendingError):
        part.apply(STABLE)
    protected.poll()
    assert protected.active == 7
    assert protected.engine.has("dangerous", "stable.test")
    part.apply(STABLE)
    protected.boot()  # the first question of the next agent goes to the right channel, too
    publish(protected, serial=8)
    protected.poll()
    assert protected.active == 8
    assert protected.channel.active() == "stable"


@pytest.mark.parametrize("serial", [1, 3])
def test_older_feed_of_another_channel_is_a_step_back(protected: Box, serial: int) -> None:
    protected.publish(PackSource(serial=3))
    protected.poll()
    publish(protected, serial=serial)
    protected.channel.choose("stable")
    protected.poll()
    assert protected.active == 3
    assert protected.shown == (
        3,
        FeedState.REFUSED,
        f"serial {serial} of channel stable is not newer than the active 3",
    )
    assert protected.store.record.quarantined == ()
    protected.channel.choose(None)
    protected.poll()
    assert protected.shown == (3, FeedState.ACTIVE, "")


def test_channel_that_the_repository_does_not_have_leaves_the_feed(protected: Box) -> None:
    protected.channel.choose("nowhere")
    protected.poll()
    assert protected.active == 1
    assert protected.shown[0] == 1


def test_announcement_counts_for_the_channel_that_is_followed(protected: Box) -> None:
    publish(protected, serial=5)
    protected.channel.choose("stable")
    protected.poll()
    assert protected.active == 5
    publish(protected, serial=6)
    protected.worker.on_announcement(6)
    protected.poll()
    assert protected.active == 6
