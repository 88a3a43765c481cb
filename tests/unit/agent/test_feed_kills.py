"""What a kill in the middle leaves, and that the next start goes on."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from omamori_agent.feed.activate import Progress
from omamori_agent.feed.errors import ActivationInterruptedError
from omamori_agent.feed.record import Transition
from omamori_protocol.vocabulary import FeedState
from sim.engine import BUILT_IN_RULES
from sim.feed_box import NEVER, Box, Killed, changed_rules, kill
from sim.packs import PackSource


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("change_block", 1),
        ("remember", 1),
        ("switch", 1),
        ("change_dataset", 1),
        ("reload_rules", 1),
        ("run_id", 1),
        ("run_id", 2),
        ("remember", 2),
        ("prune", 1),
    ],
)
def test_agent_killed_during_an_activation(protected: Box, name: str, call: int, is_after: bool) -> None:
    source = changed_rules()
    source.addresses = {"blocked": ("203.0.113.7",)}
    protected.publish(source)
    undo = kill(protected, name, call, is_after=is_after)
    with pytest.raises(Killed):
        protected.poll()
    undo()
    protected.boot()
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")
    assert protected.engine.datasets["dangerous"] == {b"new.test"}
    assert protected.engine.loaded == BUILT_IN_RULES + 2
    assert protected.gate.blocked == {"203.0.113.7/32"}
    assert protected.store.record.transition is None
    assert not protected.activator.is_unfinished


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("remember", 2),
        ("switch", 2),
        ("change_dataset", 2),
        ("reload_rules", 2),
        ("run_id", 2),
        ("remember", 3),
        ("prune", 1),
    ],
)
def test_agent_killed_while_going_back(protected: Box, name: str, call: int) -> None:
    protected.tester.write_text("#!/bin/sh\nexit 0\n")
    source = changed_rules()
    source.rules += b"alert broken (sid:3;)\n"
    protected.publish(source)
    undo = kill(protected, name, call)
    with pytest.raises(Killed):
        protected.poll()
    undo()
    protected.boot()
    for _ in range(2):
        protected.poll()
    assert protected.active == 1
    assert protected.engine.datasets["dangerous"] == {b"malware.test"}
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    assert protected.gate.blocked == {"203.0.113.99/32"}
    assert protected.store.record.transition is None
    assert protected.store.record.quarantine_reason(2) is not None


def test_orderly_stop_during_a_restart_goes_on_at_the_next_start(protected: Box) -> None:
    stop = threading.Event()
    protected.engine.on_start = stop.set
    domains = {"dangerous": ("malware.test",), "games": ("games.test",)}
    protected.publish(PackSource(serial=2, domains=domains))
    protected.look()
    protected.worker.poll(stop)
    assert protected.active == 2
    assert protected.store.record.transition == Transition(1, 2)
    protected.boot()
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_orderly_stop_during_the_test_leaves_the_old_feed(protected: Box) -> None:
    protected.tester.write_text("#!/bin/sh\nsleep 30\n")
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    protected.publish(changed_rules())
    started = time.monotonic()
    protected.poll(stop)
    timer.join()
    assert time.monotonic() - started < 5
    assert protected.active == 1
    assert protected.events == []


def test_stop_between_entries(protected: Box) -> None:
    protected.publish(PackSource(serial=2, domains={"dangerous": ("a.test", "b.test")}))
    stop = threading.Event()
    stop.set()
    feed_stop = protected.activator
    protected.look()
    protected.repo.files.copy()
    protected.store.download_path.write_bytes(PackSource(serial=2, domains={"dangerous": ("a.test", "b.test")}).build())
    feed = protected.store.add(2, lambda _manifest: None)
    with pytest.raises(ActivationInterruptedError):
        feed_stop.activate(feed, stop)
    protected.boot()
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_origin_of_an_unfinished_change_is_gone(protected: Box) -> None:
    protected.store.remember(dataclasses.replace(protected.store.record, transition=Transition(9, 1)))
    protected.boot()
    generation = protected.engine.generation
    assert protected.activator.reconcile(NEVER) is Progress.DONE
    assert protected.engine.generation == generation + 1
    assert protected.store.record.transition is None
