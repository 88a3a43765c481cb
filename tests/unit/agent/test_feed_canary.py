"""The canary: what an engine that does not match any more looks like, and what is not held against a feed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from omamori_agent.feed.canary import Canary, write_canary
from omamori_protocol.vocabulary import FeedState
from sim.feed_box import NEVER, Box, changed_rules
from sim.packs import PackSource


def secret(box: Box, serial: int) -> str:
    return (box.paths.feed_store / str(serial) / "engine/canary").read_text().strip()


def test_every_feed_has_a_secret_of_its_own(protected: Box) -> None:
    protected.publish(changed_rules())
    protected.poll()
    assert protected.active == 2
    assert secret(protected, 1) != secret(protected, 2)
    rules = (protected.paths.feed_current / "engine/all.rules").read_text()
    assert secret(protected, 2) in rules
    assert protected.canaries == 2


def test_engine_that_does_not_notice_it_any_more(protected: Box) -> None:
    protected.engine.before_reload = lambda: setattr(protected.engine, "sees_packets", False)
    protected.publish(changed_rules())
    protected.poll()
    assert protected.active == 1
    assert protected.shown[:2] == (1, FeedState.ROLLED_BACK)
    assert "canary" in protected.shown[2]


def test_engine_that_did_not_notice_it_before_either(protected: Box) -> None:
    protected.engine.sees_packets = False
    protected.publish(changed_rules())
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_box_without_an_address(protected: Box) -> None:
    protected.has_address = False
    protected.publish(changed_rules())
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")
    assert protected.canaries == 0


def test_lists_that_change_need_no_canary(protected: Box) -> None:
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
    assert (protected.active, protected.canaries) == (2, 0)


def test_rules_left_out_keep_the_canary(protected: Box) -> None:
    protected.store.leave_out(protected.store.current(), frozenset({1000001}))
    rules = (protected.paths.feed_current / "engine/all.rules").read_text()
    assert "sid:1000001" not in rules
    assert secret(protected, 1) in rules


def test_what_was_noticed_earlier_does_not_count(protected: Box) -> None:
    engine = protected.paths.feed_current / "engine"
    asking = Canary(protected.control, tries=2, send=protected.send_canary)
    assert asking.is_noticed(engine, NEVER) is True
    protected.engine.sees_packets = False
    assert asking.is_noticed(engine, NEVER) is False


def test_lost_questions_are_asked_again(protected: Box) -> None:
    asked = []

    def lossy(data: bytes, _address: tuple[str, int]) -> None:
        asked.append(data)
        if len(asked) == 3:
            protected.engine.see_question(data)

    engine = protected.paths.feed_current / "engine"
    assert Canary(protected.control, tries=3, send=lossy).is_noticed(engine, NEVER) is True
    assert len(asked) == 3
    protected.engine.datasets.pop("omamori-canary")
    asked.clear()
    assert Canary(protected.control, tries=2, send=lossy).is_noticed(engine, NEVER) is False


def test_agent_that_stops_knows_nothing(protected: Box) -> None:
    stop = threading.Event()
    stop.set()
    engine = protected.paths.feed_current / "engine"
    assert Canary(protected.control, tries=3, send=lambda _data, _to: None).is_noticed(engine, stop) is None


@pytest.mark.parametrize("content", [None, b"", b"x" * 33, b"a" * 32, b"a" * 100])
def test_feed_without_a_canary(protected: Box, content: bytes | None) -> None:
    path = protected.paths.feed_current / "engine/canary"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    never_asked = Canary(protected.control, tries=3, send=lambda _data, _to: pytest.fail("asked"))
    assert never_asked.is_noticed(path.parent, NEVER) is None


def test_secrets_are_secret(tmp_path: Path) -> None:
    found = set()
    for number in range(5):
        engine = tmp_path / str(number)
        engine.mkdir()
        write_canary(engine)
        found.add((engine / "canary").read_text())
    assert len(found) == 5
