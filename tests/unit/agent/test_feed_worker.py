"""From the repository to the engine: what is taken, what is refused, and what a kill in the middle leaves."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omamori_agent import feed as feed_package
from omamori_agent.clock import SystemClock
from omamori_agent.config import load_config
from omamori_agent.engine import BlockLists, EngineControl, EngineFeature, EngineWatch
from omamori_agent.feed.activate import Activator, Progress, blocked_lists
from omamori_agent.feed.engine_test import EngineTest
from omamori_agent.feed.errors import ActivationInterruptedError
from omamori_agent.feed.fetcher import HTTPSFetcher
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.feed.plan import make_plan
from omamori_agent.feed.record import Transition
from omamori_agent.feed.reporter import FeedReporter
from omamori_agent.feed.store import FeedStore
from omamori_agent.feed.stored import EMPTY
from omamori_agent.feed.trust import FeedRepository
from omamori_agent.feed.worker import FeedWorker
from omamori_agent.status import StatusBoard
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, EngineState, EventKind, FeedState
from sim.box import make_box
from sim.engine import BUILT_IN_RULES, SimulatedEngine
from sim.gate import SimulatedGate
from sim.outbox import MemoryOutbox
from sim.packs import RULE, PackSource
from sim.repository import FileServer, RepositorySimulator, status, tree

NEVER = threading.Event()
LIMITS = FeedLimits(
    settle_s=0.06,
    settle_poll_s=0.02,
    restart_timeout_s=5.0,
    reload_timeout_s=5.0,
    test_timeout_s=10.0,
    reserve_bytes=0,
    retry_first_s=0.1,
    retry_cap_s=0.4,
    min_gap_s=0.05,
    reconcile_s=0.1,
)
# A stand-in for the engine's program: refuses what a real one refuses, counts how often it was asked.
TESTER = """#!/bin/sh
config=$3
echo x >> {count}
rules=$(sed -n 's/^default-rule-path: //p' "$config")
if grep -q broken "$rules/all.rules"; then
  echo "E: error parsing signature \\"broken\\""
  exit 1
fi
grep -q '^filename: .*eve' "$config" && exit 9
exit 0
"""


class Box:
    """A box with everything around it; `boot` is a new start of the agent."""

    def __init__(self, directory: Path) -> None:
        self.paths = make_box(directory / "box")
        engine = self.paths.empty_feed / "engine"
        engine.mkdir()
        (engine / "all.rules").write_text("")
        (engine / "datasets.yaml").write_text("%YAML 1.1\n---\ndatasets: {}\n")
        self.paths.engine_config.write_text(
            f"default-rule-path: {self.paths.feed_current}/engine\neve: {self.paths.eve}\n"
        )
        self.test_count = directory / "tests"
        self.tester = directory / "suricata"
        self.tester.write_text(TESTER.format(count=self.test_count))
        self.tester.chmod(self.tester.stat().st_mode | stat.S_IXUSR)
        self.repo = RepositorySimulator()
        self.paths.trust_root.write_bytes(self.repo.trusted_root)
        (directory / "server").mkdir()
        self.server = FileServer(self.repo.files, directory / "server")
        self.engine = SimulatedEngine(self.paths.engine_socket, self.paths.feed_current)
        self.gate = SimulatedGate()
        self.limits = LIMITS
        self.clock = SystemClock()
        self.boot()

    def boot(self) -> None:
        """Start the agent's feed part anew; engine, gate and disk stay."""
        self.status = StatusBoard()
        self.outbox = MemoryOutbox()
        self.control = EngineControl(self.paths.engine_socket, self.clock, identify=self.engine.identify)
        self.watch = EngineWatch(
            self.control,
            processes=self.paths.root / "procs",
            ledger_path=self.paths.run / "ledger",
            outbox=MemoryOutbox(),
            status=self.status,
            clock=self.clock,
        )
        self.block_lists = BlockLists()
        self.store = FeedStore(self.paths, reserve_bytes=0)
        self.activator = Activator(
            store=self.store,
            control=self.control,
            watch=self.watch,
            gate=self.gate,
            block_lists=self.block_lists,
            engine_test=EngineTest(self.paths, timeout_s=10, command=[str(self.tester)]),
            status=self.status,
            clock=self.clock,
            limits=self.limits,
        )
        self.worker = FeedWorker(
            channel="demo",
            repository=FeedRepository(
                base_url=self.server.url,
                channel="demo",
                root_file=self.paths.trust_root,
                metadata_dir=self.paths.feed_metadata,
                fetcher=HTTPSFetcher(self.server.ca_file, self.store.download_path.parent, self.limits),
                clock=self.clock,
            ),
            store=self.store,
            activator=self.activator,
            control=self.control,
            reporter=FeedReporter(self.outbox, self.status, self.clock),
            clock=self.clock,
            limits=self.limits,
        )
        self.worker.start()
        self.look()

    def look(self) -> None:
        """What the watch does every second."""
        self.status.update(engine=self.watch.probe().state)

    def publish(self, source: PackSource) -> None:
        self.repo.publish(source.build(), source.serial)

    def poll(self, stop: threading.Event = NEVER) -> float:
        self.look()
        self.worker._tend(stop)
        delay_s = self.worker.poll(stop)
        self.worker._tend(stop)
        return delay_s

    @property
    def active(self) -> int:
        return self.store.current().serial

    @property
    def events(self) -> list[tuple[int | None, FeedState | None, str | None]]:
        events: list[Event] = self.outbox.of(EventKind.FEED)
        return [(event.feed_serial, event.feed_state, event.text) for event in events]

    @property
    def shown(self) -> tuple[int, FeedState, str]:
        status = self.status.get()
        return status.feed_serial, status.feed_state, status.feed_reason

    @property
    def tests(self) -> int:
        return self.test_count.read_text().count("x") if self.test_count.exists() else 0


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    monkeypatch.setattr("omamori_agent.engine.control._RELOAD_POLL_S", 0.01)
    made = Box(tmp_path)
    made.engine.start()
    with made.server:
        made.look()
        yield made
    made.engine.stop()


@pytest.fixture
def protected(box: Box) -> Box:
    """A box whose first feed is active."""
    box.publish(PackSource(serial=1))
    box.poll()
    assert box.active == 1
    box.outbox.events.clear()
    box.engine.commands.clear()
    box.test_count.unlink()
    return box


# Taking.


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


# Refusing.


def test_rules_the_engine_would_not_load(protected: Box) -> None:
    protected.poll()  # what TUF keeps is as new as it will be
    before = tree(protected.paths.feed_store)
    protected.publish(PackSource(serial=2, rules=b"drop broken (sid:1;)\n"))
    protected.poll()
    reason = 'serial 2: engine test failed: error parsing signature "broken"'
    assert protected.shown == (1, FeedState.REFUSED, reason)
    assert protected.events == [(2, FeedState.REFUSED, reason)]
    assert tree(protected.paths.feed_store) == before
    assert protected.active == 1
    assert protected.engine.generation == 2
    assert not any("reload" in command for command in protected.engine.commands)


def test_refused_serial_is_never_tried_again(protected: Box) -> None:
    protected.publish(PackSource(serial=2, rules=b"drop broken (sid:1;)\n"))
    protected.poll()
    protected.server.requests.clear()
    protected.poll()
    protected.boot()
    protected.poll()
    assert not any("pack.tar.gz" in path for path in protected.server.requests)
    assert protected.tests == 1
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    assert "serial 2" in protected.shown[2]
    protected.publish(PackSource(serial=3))
    protected.poll()
    assert protected.shown == (3, FeedState.ACTIVE, "")


def test_older_serial(protected: Box) -> None:
    protected.publish(PackSource(serial=5))
    protected.poll()
    protected.outbox.events.clear()
    before = tree(protected.paths.feed_store)
    protected.publish(PackSource(serial=4))
    for _ in range(3):
        protected.poll()
    assert protected.shown == (5, FeedState.REFUSED, "rollback: serial 4 is older than the active 5")
    assert protected.events == [(5, FeedState.REFUSED, "rollback: serial 4 is older than the active 5")]
    assert tree(protected.paths.feed_store) == before
    assert (protected.active, protected.gate.syncs) == (5, 2)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (PackSource(serial=3), "serial 2: the pack calls itself serial 3"),
        (PackSource(serial=2, channel="other"), "serial 2: the pack is for channel other"),
        (PackSource(serial=2, domains={"dangerous": ("b.test", "a.test")}), "serial 2: list dangerous: not sorted"),
        (PackSource(serial=2, addresses={"blocked": ("0.0.0.0/33",)}), "serial 2: list blocked: a line that is no"),
    ],
)
def test_signed_pack_that_is_not_for_us(protected: Box, source: PackSource, reason: str) -> None:
    before = tree(protected.paths.feed_store)
    protected.repo.publish(source.build(), 2)
    for _ in range(2):
        protected.poll()
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    assert protected.shown[2].startswith(reason)
    assert [event[:2] for event in protected.events] == [(2, FeedState.REFUSED)]
    assert tree(protected.paths.feed_store) == before


def test_newer_engine_needed_is_no_reason_to_quarantine(protected: Box) -> None:
    protected.publish(PackSource(serial=2, engine_min="9.0.0"))
    protected.poll()
    assert protected.shown == (1, FeedState.REFUSED, "needs engine 9.0.0, this is 8.0.8")
    assert protected.store.record.quarantined == ()


def test_gate_that_cannot_take_the_list(protected: Box) -> None:
    protected.gate.capacity = 1
    protected.publish(PackSource(serial=2, addresses={"blocked": ("203.0.113.1", "203.0.113.2")}))
    protected.poll()
    assert protected.active == 1
    assert protected.shown == (1, FeedState.REFUSED, "serial 2: block list: the block list has too many prefixes")
    assert protected.gate.blocked == {"203.0.113.99/32"}


def test_tampered_pack_is_refused_once_and_taken_when_it_is_right(protected: Box) -> None:
    source = PackSource(serial=2)
    place = protected.repo.publish(source.build(), 2)
    protected.repo.files[place] = b"x" + source.build()[1:]
    for _ in range(3):
        protected.poll()
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    assert len(protected.events) == 1
    protected.repo.files[place] = source.build()
    protected.poll()
    assert protected.shown == (2, FeedState.ACTIVE, "")


def test_trouble_that_goes_away_is_told(protected: Box) -> None:
    good = protected.repo.files["metadata/timestamp.json"]
    protected.repo.files["metadata/timestamp.json"] = b"{}"
    protected.poll()
    assert protected.shown[:2] == (1, FeedState.REFUSED)
    protected.repo.files["metadata/timestamp.json"] = good
    protected.poll()
    assert protected.shown == (1, FeedState.ACTIVE, "")
    assert [event[1] for event in protected.events] == [FeedState.REFUSED, FeedState.ACTIVE]


def test_expired_metadata_is_stale_and_goes_on_protecting(protected: Box) -> None:
    protected.repo.timestamp.expires = protected.repo.timestamp.expires.replace(year=2020)
    protected.repo.resign()
    for _ in range(2):
        protected.poll()
    assert protected.shown == (1, FeedState.STALE, "expired metadata: timestamp expired 2020-01-01T00:00Z")
    assert [event[1] for event in protected.events] == [FeedState.STALE]
    assert protected.active == 1
    assert protected.engine.has("dangerous", "malware.test")


def test_unreachable_repository_is_no_trouble_until_what_we_have_expires(
    protected: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in list(protected.repo.files):
        protected.server.behaviours[path] = status(503)
    protected.server.behaviours["metadata/2.root.json"] = status(503)
    assert 0 < protected.poll() <= 0.1
    assert protected.poll() <= 0.2
    assert protected.shown == (1, FeedState.ACTIVE, "")
    monkeypatch.setattr(protected.clock, "now", lambda: 2_200_000_000.0)
    protected.poll()
    assert protected.shown[:2] == (1, FeedState.STALE)


def test_no_space(protected: Box) -> None:
    protected.store._free_bytes = lambda _path: 100
    protected.publish(PackSource(serial=2))
    protected.poll()
    assert protected.shown == (1, FeedState.REFUSED, "not enough space on the data partition for 1 MiB")
    assert protected.store.record.quarantined == ()
    protected.store._free_bytes = lambda _path: 10**9
    protected.poll()
    assert protected.active == 2


def test_disk_that_does_not_take_the_record(protected: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _record: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("omamori_agent.feed.store.save_record", full)
        protected.publish(PackSource(serial=2))
        protected.poll()
        assert protected.active == 1
    protected.poll()
    assert protected.active == 2


def test_test_that_cannot_be_made(protected: Box) -> None:
    protected.tester.unlink()
    protected.publish(PackSource(serial=2, rules=RULE + b"# more\n"))
    protected.poll()
    assert protected.active == 1
    assert "test could not be made" in protected.shown[2]
    assert protected.store.record.quarantined == ()


def test_engine_configuration_that_names_no_feed(protected: Box) -> None:
    protected.paths.engine_config.write_text("default-rule-path: /elsewhere\n")
    protected.publish(PackSource(serial=2, rules=RULE + b"# more\n"))
    protected.poll()
    assert protected.active == 1
    assert "does not name" in protected.shown[2]


# Going back.


def changed_rules(serial: int = 2) -> PackSource:
    return PackSource(serial=serial, domains={"dangerous": ("new.test",)}, rules=RULE + b"alert ip (sid:2;)\n")


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


# An engine or a gate that is not there.


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
    protected.publish(PackSource(serial=2, domains={"dangerous": ("new.test",)}))
    protected.poll()
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
    generation = protected.engine.generation
    protected.engine.datasets.clear()
    protected.boot()
    protected.poll()
    assert protected.engine.generation == generation + 1
    assert protected.engine.has("dangerous", "malware.test")


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


# Kills.


class Killed(BaseException):
    """SIGKILL: no handler runs."""


def kill(box: Box, name: str, call: int, *, is_after: bool = False) -> Callable[[], None]:
    """Let the agent die at the given call of a method; returns what brings the method back."""
    owners = {"sync_block_lists": box.gate, "remember": box.store, "switch": box.store, "prune": box.store}
    target = owners.get(name, box.control)
    original: Callable[..., object] = getattr(target, name)
    calls = itertools.count(1)

    def killing(*args: object, **options: object) -> object:
        number = next(calls)
        if number == call and not is_after:
            raise Killed
        result = original(*args, **options)
        if number == call:
            raise Killed
        return result

    setattr(target, name, killing)
    return lambda: setattr(target, name, original)


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("sync_block_lists", 1),
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


# Announcements and the loop.


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


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


# Plans.


def test_plan_for_the_same_feed_is_nothing() -> None:
    plan = make_plan(PackSource(serial=1).manifest(), PackSource(serial=2).manifest())
    assert (plan.needs_test, plan.restarts, plan.reloads, plan.changed_lists, plan.changes_blocks) == (
        False,
        False,
        False,
        (),
        False,
    )


def test_plan_from_nothing() -> None:
    plan = make_plan(EMPTY, PackSource().manifest())
    assert plan.needs_test
    assert plan.restarts
    assert not plan.reloads
    assert plan.changes_blocks
    assert plan.changed_lists == ()


def test_plan_for_entries() -> None:
    old = PackSource(domains={"a": ("1.test",), "b": ("1.test",)}).manifest()
    new = PackSource(domains={"a": ("1.test",), "b": ("2.test",)}).manifest()
    assert make_plan(old, new).changed_lists == ("b",)
    assert not make_plan(old, new).needs_test


def test_plan_for_a_list_that_changes_what_it_is() -> None:
    old = PackSource(domains={"a": ("1.test",), "b": ("1.test",)}).manifest()
    new = PackSource(domains={"b": ("1.test",)}, digests={"a": ("0" * 64,)}).manifest()
    plan = make_plan(old, new)
    assert plan.needs_test
    assert plan.reloads
    assert make_plan(new, old).restarts


def test_plan_for_a_list_that_only_logs_now() -> None:
    old, new = PackSource(), PackSource(action=Action.LOGGED)
    plan = make_plan(old.manifest(), new.manifest())
    assert plan.changes_blocks
    assert not plan.needs_test


def test_status_of_the_engine_is_asked(box: Box) -> None:
    assert box.status.get().engine is EngineState.INSPECTING
    assert os.path.lexists(box.paths.feed_current)
