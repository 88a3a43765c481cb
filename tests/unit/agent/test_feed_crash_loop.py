"""An engine that dies again and again, and the feed that made it do so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from omamori_agent.feed.crash_loop import CrashLoop
from omamori_agent.feed.record import Record, load_record, save_record
from omamori_protocol.vocabulary import EngineState, FeedState
from sim.engine import BUILT_IN_RULES
from sim.feed_box import LIMITS, NEVER, Box, changed_rules
from sim.packs import PackSource

# The count itself.


def looks(loop: CrashLoop, *processes: int | None, at_s: float = 0.0) -> bool:
    for process in processes:
        loop.look(process, at_s)
    return loop.is_looping(at_s)


def test_first_process_and_the_same_one_again_are_no_crash() -> None:
    assert not looks(CrashLoop(1, 60), None, 1, 1, None, 1)


def test_as_many_as_allowed_and_one_more() -> None:
    loop = CrashLoop(2, 60)
    assert not looks(loop, 1, 2)
    assert looks(loop, 3)


def test_crashes_far_apart_are_no_loop() -> None:
    loop = CrashLoop(2, 60)
    looks(loop, 1, 2)
    assert not looks(loop, 3, at_s=60.1)
    assert looks(loop, 4, at_s=100)
    assert not loop.is_looping(161)


def test_restart_that_was_asked_for_does_not_count() -> None:
    loop = CrashLoop(1, 60)
    looks(loop, 1)
    loop.expect_restart()
    assert not looks(loop, None, 2)
    assert looks(loop, 3)
    loop.forget()
    assert not loop.is_looping(0)


# On the box.


@pytest.fixture
def second(protected: Box) -> Box:
    """A box whose second feed has settled."""
    protected.look()
    protected.publish(changed_rules())
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")
    protected.outbox.events.clear()
    return protected


def test_engine_that_dies_again_and_again_gets_the_feed_before(second: Box) -> None:
    second.crash(2)
    second.poll()
    assert second.active == 1
    assert second.shown == (1, FeedState.ROLLED_BACK, "serial 2: the engine dies again and again with this feed")
    assert second.store.record.quarantine_reason(2) is not None
    assert second.engine.loaded == BUILT_IN_RULES + 1
    assert second.engine.datasets["dangerous"] == {b"malware.test"}
    second.poll()
    assert second.active == 1


def test_engine_that_is_down_while_the_feed_goes_back(second: Box) -> None:
    second.crash(2)
    second.engine.stop()
    second.poll()
    assert second.active == 1
    second.engine.start()
    second.poll()
    assert second.engine.loaded == BUILT_IN_RULES + 1
    assert second.store.record.transition is None


def test_engine_that_began_with_the_feed_before_is_not_made_to_read_it_again(second: Box) -> None:
    second.publish(PackSource(serial=3, rules=changed_rules().rules, domains={"dangerous": ("many.test",)}))
    second.poll()
    assert second.active == 3
    second.crash(2)
    second.engine.stop()
    second.poll()
    assert second.active == 2
    second.engine.start()
    second.look()
    commands = list(second.engine.commands)
    second.poll()
    assert second.store.record.transition is None
    assert second.engine.datasets["dangerous"] == {b"new.test"}
    since = second.engine.commands[len(commands) :]
    assert not {"dataset-add", "reload-rules", "shutdown"} & set(since)


def test_engine_that_began_before_the_link_was_switched_is_brought_the_feed(second: Box) -> None:
    second.publish(PackSource(serial=3, rules=changed_rules().rules, domains={"dangerous": ("many.test",)}))
    second.poll()
    second.crash(2)  # the last of these processes read feed 3
    second.poll()
    assert second.active == 2
    assert second.engine.datasets["dangerous"] == {b"new.test"}


def test_one_crash_is_none_too_many(second: Box) -> None:
    second.crash()
    second.poll()
    assert second.shown == (2, FeedState.ACTIVE, "")


def test_old_feed_is_not_to_blame(second: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    later = second.clock.now() + LIMITS.probation_s + 1
    monkeypatch.setattr(second.clock, "now", lambda: later)
    second.crash(2)
    second.poll()
    assert second.active == 2
    assert second.store.record.quarantined == ()


def test_agent_that_starts_anew_remembers_how_young_the_feed_is(second: Box) -> None:
    second.boot()
    second.crash(2)
    second.poll()
    assert second.active == 1


def test_the_first_feed_is_not_given_up_for_the_empty_one(box: Box) -> None:
    box.look()
    box.publish(PackSource(serial=1))
    box.poll()
    box.look()
    box.crash(2)
    box.poll()
    assert box.shown == (1, FeedState.ACTIVE, "")
    assert box.store.record.quarantined == ()


def test_engine_that_dies_while_it_loads_new_lists(protected: Box) -> None:
    """Out of memory at its start, for example: it never listens, and nobody waits for ten minutes."""
    protected.limits = dataclasses.replace(LIMITS, restart_timeout_s=600.0)
    protected.boot()
    deaths = iter(range(3))

    def die() -> None:
        if (protected.paths.feed_current / "manifest.json").exists() and protected.active == 2:
            for _ in deaths:
                protected.engine.generation += 1
                protected.look()

    protected.engine.on_start = die
    protected.publish(PackSource(serial=2, domains={"dangerous": ("malware.test",), "games": ("games.test",)}))
    protected.poll()
    assert protected.active == 1
    assert protected.shown[1] is FeedState.ROLLED_BACK


def test_engine_that_dies_in_a_transition_that_waits(protected: Box) -> None:
    protected.look()
    protected.engine.answer = lambda command: b"" if command == "dataset-add" else None
    protected.control._timeout_s = 0.2
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
    assert protected.active == 2
    assert protected.store.record.transition is not None
    protected.engine.answer = lambda _command: None
    protected.crash(2)
    protected.status.update(engine=EngineState.STARTING)
    protected.worker._tend(NEVER)
    assert protected.active == 1
    assert protected.shown[1] is FeedState.ROLLED_BACK


def test_record_of_an_older_version(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    save_record(path, Record(previous=1, activated_s=5))
    assert load_record(path).activated_s == 5
    path.write_text(path.read_text().replace('"activated_s":5,', ""))
    assert load_record(path) == Record(previous=1)
    path.write_text('{"format":1,"previous":1,"transition":null,"quarantined":[],"activated_s":-1}')
    assert load_record(path) == Record()
