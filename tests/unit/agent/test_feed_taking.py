"""What is taken, and what the engine and the gate have afterwards."""

from __future__ import annotations

from omamori_agent.feed.block_entries import blocked_lists
from omamori_protocol.vocabulary import Action, FeedState
from sim.engine import BUILT_IN_RULES
from sim.feed_box import Box
from sim.packs import RULE, PackSource
from sim.repository import tree


def test_first_feed(box: Box) -> None:
    assert box.shown == (0, FeedState.NONE, "")
    box.publish(PackSource(serial=1))
    box.poll()
    assert box.shown == (1, FeedState.ACTIVE, "")
    assert box.events == [(1, FeedState.ACTIVE, None)]
    assert box.engine.has("dangerous", "malware.test")
    assert box.engine.loaded == BUILT_IN_RULES + 1
    assert box.gate.blocked == {"203.0.113.99/32"}
    assert box.tests == 1
    assert not box.store.download_path.exists()
    assert box.store.record.transition is None


def test_only_entries_of_lists_differ(protected: Box) -> None:
    protected.publish(
        PackSource(
            serial=2, domains={"dangerous": ("new.test", "other.test")}, addresses={"blocked": ("2001:db8::99",)}
        )
    )
    protected.poll()
    assert protected.active == 2
    assert protected.engine.datasets["dangerous"] == {b"new.test", b"other.test"}
    assert protected.gate.blocked == {"2001:db8::99/128"}
    assert protected.tests == 0
    assert protected.engine.generation == 2
    assert not any("reload" in command for command in protected.engine.commands)
    assert protected.events == [(2, FeedState.ACTIVE, None)]


def test_rules_differ(protected: Box) -> None:
    protected.publish(PackSource(serial=2, rules=RULE + b'alert ip any any -> any any (msg:"x"; sid:2;)\n'))
    protected.poll()
    assert protected.active == 2
    assert protected.engine.loaded == BUILT_IN_RULES + 2
    assert protected.tests == 1
    assert protected.engine.generation == 2
    assert "ruleset-reload-nonblocking" in protected.engine.commands


def test_digests_differ(protected: Box) -> None:
    rules = RULE + b"drop tcp any any -> any any (filesha256:malware.sha256; sid:2;)\n"
    protected.publish(PackSource(serial=2, rules=rules, digests={"malware": ("a" * 64,)}))
    protected.poll()
    protected.publish(PackSource(serial=3, rules=rules, digests={"malware": ("b" * 64,)}))
    protected.poll()
    assert (protected.active, protected.tests, protected.engine.reload_time) == (3, 2, 2)


def test_new_list_restarts_the_engine(protected: Box) -> None:
    generation = protected.engine.generation
    domains = {"dangerous": ("malware.test",), "games": ("games.test",)}
    protected.publish(PackSource(serial=2, domains=domains))
    protected.poll()
    assert protected.active == 2
    assert protected.engine.generation == generation + 1
    assert protected.engine.has("games", "games.test")


def test_list_that_is_gone_needs_no_restart(protected: Box) -> None:
    generation = protected.engine.generation
    protected.publish(PackSource(serial=2, domains={}, rules=b"# none\n"))
    protected.poll()
    assert (protected.active, protected.engine.generation) == (2, generation)
    protected.publish(PackSource(serial=3, domains={"dangerous": ("again.test",)}))
    protected.poll()
    assert protected.engine.datasets["dangerous"] == {b"again.test"}


def test_same_serial_changes_nothing(protected: Box) -> None:
    before = tree(protected.paths.feed)
    delay_s = protected.poll()
    assert 540 <= delay_s <= 660
    assert tree(protected.paths.feed) == before
    assert protected.events == []
    assert protected.engine.commands == ["uptime", "ruleset-stats"]


def test_previous_feed_is_kept_and_older_ones_are_not(protected: Box) -> None:
    for serial in (2, 3):
        protected.publish(PackSource(serial=serial, domains={"dangerous": (f"n{serial}.test",)}))
        protected.poll()
    assert sorted(path.name for path in protected.paths.feed_store.iterdir()) == ["2", "3"]


def test_list_that_only_logs_is_not_blocked(box: Box) -> None:
    box.publish(PackSource(serial=1, action=Action.LOGGED))
    box.poll()
    assert box.gate.blocked == set()


def test_numbers_of_lists_mean_something(box: Box) -> None:
    box.publish(PackSource(serial=1, addresses={"a": ("203.0.113.1",), "b": ("203.0.113.2",)}))
    box.poll()
    named = box.block_lists.get(2)
    assert named is not None
    assert named.name == "b"
    assert box.gate.lists[2] == {"203.0.113.2/32"}
    assert set(blocked_lists(box.store.current().manifest)) == {1, 2}


def test_texts_are_entries_of_a_dataset_too(box: Box) -> None:
    box.publish(PackSource(serial=1, texts={"paths": ("/a?b=C", "/~x/")}))
    box.poll()
    assert box.engine.datasets["paths"] == {b"/a?b=C", b"/~x/"}
    generation = box.engine.generation
    box.publish(PackSource(serial=2, texts={"paths": ("/a?b=C", "/new")}))
    box.poll()
    assert (box.active, box.engine.generation) == (2, generation)
    assert box.engine.datasets["paths"] == {b"/a?b=C", b"/new"}
