"""An engine or a gate that is not there, or not what it should be."""

from __future__ import annotations

import dataclasses
import time

from omamori_agent.feed.record import Transition
from omamori_protocol.vocabulary import FeedState
from sim.engine import BUILT_IN_RULES
from sim.feed_box import LIMITS, Box, changed_rules
from sim.packs import PackSource


def test_engine_that_is_down_gets_the_feed_when_it_is_back(protected: Box) -> None:
    protected.engine.stop()
    protected.publish(changed_rules())
    protected.poll()
    assert protected.active == 2
    assert protected.shown == (1, FeedState.ACTIVE, "")
    assert protected.tests == 1
    protected.engine.start()
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")
    assert protected.engine.loaded == BUILT_IN_RULES + 2
    assert protected.store.record.transition is None


def test_feed_after_feed_while_the_engine_is_down(protected: Box) -> None:
    protected.engine.stop()
    for serial in (2, 3):
        protected.publish(PackSource(serial=serial, domains={"dangerous": (f"n{serial}.test",)}))
        protected.poll()
    assert protected.active == 3
    protected.engine.start()
    protected.poll()
    assert protected.shown == (3, FeedState.ACTIVE, "")
    assert protected.engine.datasets["dangerous"] == {b"n3.test"}


def test_engine_that_starts_with_the_old_lists_while_the_link_is_switched(protected: Box) -> None:
    """It read the lists before the link was switched and answers after it."""
    protected.engine.stop()
    protected.engine.generation += 1  # its process is there already
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
    protected.engine.generation -= 1
    protected.engine.start()
    protected.engine.datasets = {"dangerous": {b"malware.test"}}
    protected.poll()
    assert protected.engine.datasets["dangerous"] == {b"new.test"}


def test_engine_that_dies_while_entries_change_loads_them_at_its_start(protected: Box) -> None:
    def die(command: str) -> bytes | None:
        return b"" if command == "dataset-add" else None

    protected.engine.answer = die
    protected.control._timeout_s = 0.2
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
    assert protected.active == 2
    assert protected.store.record.quarantined == ()
    protected.engine.answer = lambda _command: None
    protected.engine.restart()
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_engine_that_never_comes_back_with_the_new_lists(protected: Box) -> None:
    protected.limits = dataclasses.replace(LIMITS, restart_timeout_s=0.3)
    protected.boot()
    protected.engine.answer = lambda command: protected.engine.stop() or b"" if command == "dataset-add" else None
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
    assert protected.active == 2
    time.sleep(0.4)
    protected.poll()
    assert (protected.active, protected.shown[1]) == (1, FeedState.ROLLED_BACK)


def test_gate_that_appears_later_gets_its_list(box: Box) -> None:
    box.gate.is_there = False
    box.publish(PackSource(serial=1))
    box.poll()
    assert box.shown == (1, FeedState.ACTIVE, "")
    assert box.gate.lists == {}
    box.gate.is_there = True
    box.poll()
    assert box.gate.blocked == {"203.0.113.99/32"}


def test_block_list_is_brought_to_the_gate_at_every_start(protected: Box) -> None:
    protected.gate.lists = {}
    protected.boot()
    protected.poll()
    assert protected.gate.blocked == {"203.0.113.99/32"}


def test_engine_that_lacks_rules_when_the_agent_starts(protected: Box) -> None:
    generation = protected.engine.generation
    protected.engine.failed = ["alert x"]
    protected.boot()
    protected.poll()
    assert protected.engine.generation == generation + 1
    assert protected.shown == (1, FeedState.ACTIVE, "")


def test_engine_that_lacks_a_list_when_the_agent_starts(protected: Box) -> None:
    generation, pauses = protected.engine.generation, protected.gate.pauses
    protected.engine.datasets.clear()
    protected.boot()
    protected.poll()
    assert protected.engine.generation == generation + 1
    assert protected.engine.has("dangerous", "malware.test")
    assert (protected.gate.pauses, protected.gate.is_paused) == (
        pauses + 1,
        False,
    )  # nothing waits in a queue that closes


def test_engine_that_stays_wrong_is_restarted_once(protected: Box) -> None:
    generation = protected.engine.generation
    (protected.paths.feed_current / "engine/all.rules").write_text("alert broken (sid:1;)\n")
    protected.engine.restart()
    protected.boot()
    for _ in range(3):
        protected.poll()
    assert protected.engine.generation == generation + 2


def test_engine_that_starts_with_a_new_list_is_not_restarted_for_it(protected: Box) -> None:
    protected.engine.stop()
    protected.publish(PackSource(serial=2, domains={"dangerous": ("malware.test",), "games": ()}))
    protected.poll()
    protected.engine.start()
    generation = protected.engine.generation
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")
    assert protected.engine.generation == generation


def test_engine_that_began_to_start_two_feeds_ago_is_restarted(protected: Box) -> None:
    protected.engine.stop()
    for serial in (2, 3):
        protected.publish(PackSource(serial=serial, domains={"dangerous": (f"n{serial}.test",)}))
        protected.poll()
    assert protected.store.record.transition == Transition(2, 3, is_unclear=True)
    protected.boot()
    protected.engine.start()
    protected.engine.datasets = {"dangerous": {b"malware.test"}}
    protected.poll()
    assert protected.shown == (3, FeedState.ACTIVE, "")
    assert protected.engine.datasets["dangerous"] == {b"n3.test"}
