"""A real engine and a feed that does it no good: the box goes back to the one before and never takes that serial again.

Repository, worker, gate and engine are real. How long it takes is measured by `omamori-lab bench feed`; here it may
take as long as a busy machine needs, and what the box is in the end is asserted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.feed.limits import FeedLimits
from omamori_firmware.errors import ImageError
from omamori_lab import feed_way_back
from omamori_lab.errors import SetupError
from omamori_lab.feed_packs import write_feed_pack
from omamori_lab.feed_questions import Questions
from omamori_lab.memory_group import MemoryGroup
from omamori_lab.native_wire import obtain_programs
from omamori_lab.rule_set import generate_rules
from omamori_lab.served_feed_lane import ServedFeedLane
from omamori_protocol.feed_manifest import ListKind
from omamori_protocol.vocabulary import FeedState

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

LIMITS = FeedLimits(settle_s=1.0, settle_poll_s=0.1, reconcile_s=0.5, min_gap_s=0.2, reserve_bytes=0)
RULES = generate_rules(200)
GOOD = b"malware.test"


def pack(directory: Path, serial: int, *names: bytes, extra: str = "", **more: list[bytes]) -> Path:
    path = directory / f"{serial}.tar.gz"
    lists = {"names": list(names)} | more
    write_feed_pack(path, serial, RULES, {name: (ListKind.DOMAIN, lines) for name, lines in lists.items()}, extra=extra)
    return path


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFeedLane]:
    try:
        programs = obtain_programs()
    except ImageError as err:
        pytest.skip(f"no engine: {err}")
    made = ServedFeedLane(*programs, LIMITS)
    try:
        made.start()
        made.publish(pack(tmp_path_factory.mktemp("first"), 1, GOOD), 1)
        made.work()
        made.wait_shown(1, FeedState.ACTIVE)
        yield made
    finally:
        made.stop()


def assert_good(lane: ServedFeedLane) -> None:
    """The engine inspects with the first feed and with nothing of another."""
    with Questions(lane.lane) as questions:
        # Its queues open a little after it says that it has loaded its rules.
        questions.first_unanswered_s(GOOD.decode(), timeout_s=60)
        assert questions.is_answered("good.test", patience_s=10)
        assert questions.is_answered("bad.test", patience_s=10)


def extra(number: int) -> str:
    return f'alert ip any any -> any any (msg:"more"; ip_proto:{number}; sid:1899999;)\n'


def test_rules_that_do_not_load(lane: ServedFeedLane, tmp_path: Path) -> None:
    bad = pack(tmp_path, 2, b"bad.test", GOOD, extra="alert ip any any -> any any (no_such_word:1; sid:1899999;)\n")
    found = feed_way_back.from_refusal(lane, bad, 2)
    assert "serial 2: engine test failed" in found.reason
    assert "no_such_word" in found.reason
    assert_good(lane)


def test_engine_that_crashes_again_and_again(lane: ServedFeedLane, tmp_path: Path) -> None:
    found = feed_way_back.from_crashes(lane, pack(tmp_path, 3, b"bad.test", GOOD, extra=extra(254)), 3)
    assert found.deaths >= LIMITS.crashes
    assert found.reason == "serial 3: the engine dies again and again with this feed"
    assert_good(lane)


@pytest.mark.parametrize(("serial", "name"), [(4, "many"), (5, "names")])
def test_engine_without_memory_for_the_lists(lane: ServedFeedLane, tmp_path: Path, serial: int, name: str) -> None:
    """By a restart for a list that is new, and by entries added to one that is there."""
    try:
        with MemoryGroup(f"{lane.lane.directory.name}-try").existing():
            pass
    except SetupError as err:
        pytest.skip(str(err))
    many = {name: [b"host%06d.example%d.com" % (number, number % 97) for number in range(120_000)]}
    bad = pack(tmp_path, serial, b"bad.test", GOOD, extra=extra(200 + serial), **many)
    found = feed_way_back.from_no_memory(lane, bad, serial, room_bytes=8 << 20)
    assert found.deaths >= 1
    assert found.reason.startswith(f"serial {serial}: ")
    assert_good(lane)


def test_box_takes_the_next_good_feed(lane: ServedFeedLane, tmp_path: Path) -> None:
    lane.publish(pack(tmp_path, 6, GOOD, b"next.test", extra=extra(199)), 6)
    lane.wait_shown(6, FeedState.ACTIVE)
    with Questions(lane.lane) as questions:
        questions.first_unanswered_s("next.test", timeout_s=60)
        assert questions.is_answered("good.test", patience_s=10)
