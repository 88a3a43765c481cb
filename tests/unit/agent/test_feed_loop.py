"""Announcements, polls and the loop around them."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator

import pytest

from omamori_agent import feed as feed_package
from omamori_agent.config import load_config
from omamori_agent.engine import EngineFeature
from omamori_protocol.vocabulary import EngineState, FeedState
from sim.feed_box import Box, wait_for
from sim.packs import PackSource


@pytest.fixture
def running(protected: Box) -> Iterator[Box]:
    stop = threading.Event()
    thread = threading.Thread(target=protected.worker.run, args=(stop,))
    thread.start()
    wait_for(lambda: len(protected.server.requests) > 2)
    yield protected
    started = time.monotonic()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - started < 1.5


def test_announcement_is_answered_at_once(running: Box) -> None:
    source = PackSource(serial=2, domains={"dangerous": ("new.test",)})
    running.publish(source)
    started = time.monotonic()
    running.worker.on_announcement(2)
    wait_for(lambda: running.engine.has("dangerous", "new.test"))
    assert time.monotonic() - started < 2
    wait_for(lambda: running.shown == (2, FeedState.ACTIVE, ""))


def test_announcement_before_the_repository_has_it(running: Box) -> None:
    running.worker.on_announcement(2)
    time.sleep(0.2)
    running.publish(PackSource(serial=2))
    wait_for(lambda: running.active == 2)


def test_announcements_of_what_is_known_wake_nobody(running: Box) -> None:
    time.sleep(0.2)
    running.server.requests.clear()
    for serial in (0, 1, 1, 1):
        running.worker.on_announcement(serial)
    time.sleep(0.3)
    assert running.server.requests == []


def test_many_announcements_become_few_requests(running: Box) -> None:
    running.publish(PackSource(serial=2))
    for _ in range(1000):
        running.worker.on_announcement(2)
    wait_for(lambda: running.shown[0] == 2)
    assert sum(path.endswith("timestamp.json") for path in running.server.requests) <= 4


def test_events_wait_for_an_outbox_that_refuses(protected: Box) -> None:
    protected.outbox.failures = 2
    protected.publish(PackSource(serial=2))
    protected.poll()
    protected.poll()
    assert protected.events == [(2, FeedState.ACTIVE, None)]


def test_worker_of_the_product(box: Box) -> None:
    shutil.copy(box.server.ca_file, box.paths.service_ca)
    feature = feed_package.build(
        load_config(box.paths.root),
        box.outbox,
        box.status,
        box.clock,
        EngineFeature([], box.control, box.watch, box.gate, box.block_lists),
    )
    assert [worker.name for worker in feature.workers] == ["feed"]
    feature.on_announcement(5)


def test_status_of_the_engine_is_asked(box: Box) -> None:
    assert box.status.get().engine is EngineState.INSPECTING
    assert os.path.lexists(box.paths.feed_current)
