"""Rules left out: of the running engine, of every later feed, and back in when the exemption ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_agent.errors import TransientError
from omamori_agent.feed import activate
from omamori_agent.feed.exclusion import LeftOut, RuleExclusion, load_left_out, save_left_out, write_rules
from omamori_protocol.vocabulary import FeedState
from sim.engine import BUILT_IN_RULES
from sim.feed_box import NEVER, Box, Killed
from sim.packs import RULE, PackSource

SID = 1000001  # of sim.packs.RULE
TWO = PackSource(serial=2, rules=RULE + b'alert ip any any -> any any (msg:"sid:7\\; no"; sid:8; rev:1;)\n')


def rules_of(box: Box) -> bytes:
    """The rules that the engine gets, without the one about the canary."""
    rules = (box.paths.feed_current / "engine/all.rules").read_bytes()
    return rules.removesuffix((box.paths.feed_current / "engine/canary.rules").read_bytes() + b"\n")


def want(box: Box, *rule_ids: int) -> None:
    box.exclusion.want(frozenset(rule_ids))
    box.look()
    box.worker._tend(NEVER)


def test_rule_leaves_the_running_engine_and_comes_back(protected: Box) -> None:
    generation = protected.engine.generation
    want(protected, SID)
    assert protected.engine.loaded == BUILT_IN_RULES
    assert protected.engine.reload_time == 1
    assert b"sid:" not in rules_of(protected)
    assert protected.exclusion.applied == {SID}
    assert not protected.activator.is_unfinished
    want(protected, SID)
    assert protected.engine.reload_time == 1
    want(protected)
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    assert rules_of(protected) == RULE + b"\n"
    assert protected.engine.generation == generation  # never restarted


def test_rule_that_is_in_no_feed_reloads_once(protected: Box) -> None:
    want(protected, 4711)
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    assert protected.exclusion.applied == {4711}
    assert protected.engine.reload_time == 1


def test_next_feed_has_them_left_out_from_the_start(protected: Box) -> None:
    want(protected, SID)
    protected.publish(TWO)
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")
    assert rules_of(protected).count(b"\nalert") + rules_of(protected).startswith(b"alert") == 1
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    assert protected.exclusion.applied == {SID}


def test_same_rules_in_the_next_feed_are_loaded_again_when_the_wish_has_changed(protected: Box) -> None:
    want(protected, SID)
    protected.exclusion.want(frozenset())  # and before anybody looks, a feed with the same rules comes
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
    assert protected.active == 2
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    assert rules_of(protected) == RULE + b"\n"


def test_after_a_restart_what_is_left_out_stays_out_until_somebody_says_otherwise(protected: Box) -> None:
    want(protected, SID)
    protected.boot()
    protected.publish(TWO)
    protected.poll()
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    want(protected)
    assert protected.engine.loaded == BUILT_IN_RULES + 2


def test_engine_that_is_not_there_loads_the_file_when_it_starts(protected: Box) -> None:
    protected.engine.stop()
    want(protected, SID)
    assert protected.exclusion.applied == {SID}
    protected.engine.start()
    protected.look()
    protected.worker._tend(NEVER)
    assert protected.engine.loaded == BUILT_IN_RULES


def test_going_back_to_the_feed_before_leaves_them_out_there_too(protected: Box) -> None:
    protected.tester.write_text("#!/bin/sh\nexit 0\n")
    want(protected, 8)
    broken = PackSource(serial=2, rules=TWO.rules + b"alert broken (sid:3;)\n")
    protected.publish(broken)
    protected.exclusion.want(frozenset({SID, 8}))
    protected.poll()
    assert protected.active == 1
    want(protected, SID, 8)
    assert protected.engine.loaded == BUILT_IN_RULES
    assert protected.exclusion.applied == {SID, 8}


@pytest.mark.parametrize("name", ["reload_rules", "confirm_left_out"])
def test_kill_in_the_middle_is_made_good_whatever_is_wanted_then(
    protected: Box, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def killed(*_args: object, **_more: object) -> None:
        raise Killed

    target = protected.control if name == "reload_rules" else protected.store
    monkeypatch.setattr(target, name, killed)
    with pytest.raises(Killed):
        want(protected, SID)
    monkeypatch.undo()
    monkeypatch.setattr("omamori_agent.engine.control._RELOAD_POLL_S", 0.01)
    protected.boot()
    want(protected)  # the exemption is gone meanwhile: the rule must be back
    assert rules_of(protected) == RULE + b"\n"
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    assert protected.exclusion.applied == frozenset()


def test_engine_that_does_not_take_them_is_asked_again_after_a_while(
    protected: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def refuse(**_more: object) -> None:
        calls.append(1)
        raise TransientError("engine: busy")

    monkeypatch.setattr(protected.control, "reload_rules", refuse)
    for _ in range(5):
        want(protected, SID)
    assert len(calls) == 1
    assert protected.exclusion.applied is None
    monkeypatch.undo()
    monkeypatch.setattr("omamori_agent.engine.control._RELOAD_POLL_S", 0.01)
    monkeypatch.setattr(activate, "_LEAVE_OUT_RETRY_S", 0.0)
    protected.activator._leave_out_at_s = 0.0
    want(protected, SID)
    assert protected.exclusion.applied == {SID}


def test_disk_that_is_full_changes_nothing(protected: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omamori_agent.feed.store.write_rules", full)
    want(protected, SID)
    assert rules_of(protected) == RULE + b"\n"
    assert protected.engine.loaded == BUILT_IN_RULES + 1
    assert protected.exclusion.applied is None


def test_empty_feed_has_nothing_to_leave_out(box: Box) -> None:
    want(box, SID)
    assert box.exclusion.applied == {SID}
    assert not (box.paths.empty_feed / "engine/left-out.json").exists()


LINES = (
    b"alert ip any any -> any any (sid:1;)\n",
    b'alert ip any any -> any any (msg:"sid:1\\; text"; sid: 2 ; rev:1;)\n',
    b"# alert ip any any -> any any (sid:1;)\n",
    b"alert ip any any -> any any (classtype:x; sid:11; gid:1;)\n",
    b"\n",
    b"alert ip any any -> any any (sid:1;)",
)


def test_lines_of_rules(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"".join(LINES))
    left_out = write_rules(tmp_path, [source], frozenset({1, 99}))
    assert left_out == LeftOut(frozenset({1, 99}), 2)
    assert (tmp_path / "all.rules").read_bytes() == b"".join(LINES[1:5]) + b"\n"
    assert write_rules(tmp_path, [source, source], frozenset()).count == 0
    assert (tmp_path / "all.rules").read_bytes() == (b"".join(LINES) + b"\n") * 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"rule_ids": [0], "count": 0, "is_sure": true}',
        b'{"rule_ids": ["1"], "count": 0, "is_sure": true}',
        b'{"rule_ids": [1], "count": -1, "is_sure": true}',
        b'{"rule_ids": [1], "count": 1}',
        b'{"rule_ids": ' + str(list(range(1, 258))).encode() + b', "count": 1, "is_sure": true}',
        b" " * 20000,
    ],
)
def test_damaged_note_means_that_nobody_knows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "left-out.json").write_bytes(content)
    assert not load_left_out(tmp_path).is_just(frozenset())


def test_note_there_and_back(tmp_path: Path) -> None:
    assert load_left_out(tmp_path) == LeftOut()
    for note in (LeftOut(frozenset({1, 2**32 - 1}), 1), LeftOut(frozenset(), 0, is_sure=False)):
        save_left_out(tmp_path, note)
        assert load_left_out(tmp_path) == note


def test_wish_is_known_to_nobody_at_first() -> None:
    exclusion = RuleExclusion()
    assert exclusion.wanted is None
    assert exclusion.applied is None
