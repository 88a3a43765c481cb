"""What did not work: the feed before is back, and the serial is never tried again."""

from __future__ import annotations

import dataclasses
import itertools

from omamori_agent.feed.record import Transition
from omamori_protocol.vocabulary import FeedState
from sim.engine import BUILT_IN_RULES
from sim.feed_box import LIMITS, Box, changed_rules
from sim.packs import PackSource


def assert_rolled_back(box: Box, serial: int = 2) -> None:
    assert box.active == 1
    assert box.shown[:2] == (1, FeedState.ROLLED_BACK)
    assert [event[:2] for event in box.events] == [(serial, FeedState.ROLLED_BACK)]
    assert box.engine.datasets["dangerous"] == {b"malware.test"}
    assert box.engine.loaded == BUILT_IN_RULES + 1
    assert box.engine.failed == []
    assert box.gate.blocked == {"203.0.113.99/32"}
    assert box.store.record.transition is None
    assert box.store.record.quarantine_reason(serial) is not None
    assert [path.name for path in box.paths.feed_store.iterdir()] == ["1"]


def test_rules_that_fail_in_the_running_engine(protected: Box) -> None:
    """The test passed, but what the engine loaded is not what was published."""
    source = changed_rules()
    source.rules += b"alert broken-only-live (sid:3;)\n"
    protected.tester.write_text("#!/bin/sh\nexit 0\n")
    protected.publish(source)
    protected.poll()
    assert_rolled_back(protected)
    assert "the engine loaded 4 of 3 rules, 1 failed alert broken-only-live" in protected.shown[2]


def test_engine_that_crashes_while_settling(protected: Box) -> None:
    crashed = itertools.count()

    def crash(command: str) -> None:
        if command == "ruleset-stats" and protected.engine.reload_time == 1 and next(crashed) == 1:
            protected.engine.generation += 1

    protected.engine.answer = crash
    protected.publish(changed_rules())
    protected.poll()
    assert_rolled_back(protected)
    assert "restarted by itself" in protected.shown[2]


def test_engine_that_does_not_come_back_after_a_restart(protected: Box) -> None:
    protected.limits = dataclasses.replace(LIMITS, restart_timeout_s=0.5)
    protected.boot()
    protected.engine.comes_back = False
    domains = {"dangerous": ("malware.test",), "games": ("games.test",)}
    protected.publish(PackSource(serial=2, domains=domains))
    protected.poll()
    assert (protected.active, protected.shown[:2]) == (1, (1, FeedState.ROLLED_BACK))
    assert protected.store.record.transition == Transition(2, 1)
    protected.engine.start()
    protected.poll()
    assert_rolled_back(protected)


def test_entry_that_the_engine_does_not_take(protected: Box) -> None:
    refusal = b'{"message":"failed to add data","return":"NOK"}\n'
    protected.engine.answer = lambda command: refusal if command == "dataset-add" else None

    protected.publish(PackSource(serial=2, domains={"dangerous": ("malware.test", "new.test")}))
    protected.poll()
    assert protected.active == 1
    assert protected.shown[:2] == (1, FeedState.ROLLED_BACK)
    assert protected.gate.blocked == {"203.0.113.99/32"}


def test_engine_that_lost_a_list_is_restarted(protected: Box) -> None:
    protected.engine.datasets.clear()
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")
    assert protected.engine.has("dangerous", "new.test")


def test_newer_feed_after_a_rollback(protected: Box) -> None:
    protected.tester.write_text("#!/bin/sh\nexit 0\n")
    protected.publish(PackSource(serial=2, rules=b"alert broken (sid:1;)\n"))
    protected.poll()
    assert protected.active == 1
    protected.poll()
    assert protected.shown[1] is FeedState.ROLLED_BACK
    protected.publish(changed_rules(3))
    protected.poll()
    assert protected.shown == (3, FeedState.ACTIVE, "")
