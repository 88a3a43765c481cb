"""A box with everything around its feed: repository, engine, gate, disk. Tests start, feed and kill it."""

from __future__ import annotations

import hashlib
import itertools
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from omamori_agent.clock import SystemClock
from omamori_agent.engine import BlockLists, EngineControl, EngineWatch
from omamori_agent.feed.activate import Activator
from omamori_agent.feed.canary import SET as CANARY_SET
from omamori_agent.feed.canary import Canary
from omamori_agent.feed.channel import FeedChannel
from omamori_agent.feed.engine_test import EngineTest
from omamori_agent.feed.exclusion import RuleExclusion
from omamori_agent.feed.fetcher import HTTPSFetcher
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.feed.reporter import FeedReporter
from omamori_agent.feed.store import FeedStore
from omamori_agent.feed.trust import FeedRepository
from omamori_agent.feed.worker import FeedWorker
from omamori_agent.status import StatusBoard
from omamori_protocol.feed_offer import FeedOffer, OfferedIncrement, increment_target
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, FeedState
from sim.box import make_box
from sim.engine import SimulatedEngine
from sim.gate import SimulatedGate
from sim.increments import make_increment
from sim.outbox import MemoryOutbox
from sim.packs import RULE, PackSource
from sim.repository import FileServer, RepositorySimulator

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
    crashes=2,
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
        self.paths.desired.mkdir(exist_ok=True)
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
        self.increments: list[OfferedIncrement] = []
        self.paths.trust_root.write_bytes(self.repo.trusted_root)
        (directory / "server").mkdir()
        self.server = FileServer(self.repo.files, directory / "server")
        self.engine = SimulatedEngine(self.paths.engine_socket, self.paths.feed_current)
        self.gate = SimulatedGate()
        self.limits = LIMITS
        self.has_address = True
        self.canaries = 0
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
        self.exclusion = RuleExclusion()
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
            exclusion=self.exclusion,
            canary=Canary(self.control, tries=3, send=self.send_canary),
        )
        self.channel = FeedChannel(self.paths.feed_channel, "demo")
        self.worker = FeedWorker(
            channel=self.channel,
            repository=FeedRepository(
                base_url=self.server.url,
                device="ZA35-000001",
                channel=self.channel.get(),
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

    def send_canary(self, data: bytes, address: tuple[str, int]) -> None:
        """What the box sends reaches the engine, if the box has an address."""
        assert address == ("192.0.2.53", 53)
        if not self.has_address:
            raise OSError(101, "Network is unreachable")
        self.canaries += 1
        self.engine.see_question(data)

    def crash(self, times: int = 1) -> None:
        """Let the engine die and its supervisor start it again; the worker looks on."""
        for _ in range(times):
            self.engine.restart()
            self.look()

    def look(self) -> None:
        """What the watch and the worker do every second."""
        (self.paths.root / "procs").write_text(f"{1000 + self.engine.generation}\n")
        self.activator.watch_over()
        self.status.update(engine=self.watch.probe().state)

    def publish(self, source: PackSource, *, since: Sequence[PackSource] = ()) -> None:
        """Publish a pack, with the increments that lead to it from each of the packs before."""
        data = source.build()
        for old, new in itertools.pairwise([*since, source] if since else []):
            self.put_increment(old, new, make_increment(old, new))
        digest = hashlib.sha256(source.manifest().to_json()).hexdigest()
        offer = FeedOffer(source.serial, digest, tuple(self.increments))
        self.repo.put_target(data, offer.to_custom())
        self.repo.sign_all()

    def put_increment(self, old: PackSource, new: PackSource, data: bytes) -> str:
        """Store an increment; the next pack offers it. Returns where it is stored."""
        self.increments = [item for item in self.increments if (item.start, item.goal) != (old.serial, new.serial)]
        self.increments.append(OfferedIncrement(old.serial, new.serial, len(data)))
        path = increment_target("demo", old.serial, new.serial)
        return self.repo.put_target(data, {"format": 1}, path=path)

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


def changed_rules(serial: int = 2) -> PackSource:
    return PackSource(serial=serial, domains={"dangerous": ("new.test",)}, rules=RULE + b"alert ip (sid:2;)\n")


class Killed(BaseException):
    """SIGKILL: no handler runs."""


def kill(box: Box, name: str, call: int, *, is_after: bool = False) -> Callable[[], None]:
    """Let the agent die at the given call of a method; returns what brings the method back.

    Changes of the canary's own set are not counted: they are no part of what a test wants to cut in two.
    """
    owners = {
        "change_block": box.gate,
        "replace_block": box.gate,
        "remember": box.store,
        "switch": box.store,
        "prune": box.store,
    }
    target = owners.get(name, box.control)
    original: Callable[..., object] = getattr(target, name)
    calls = itertools.count(1)

    def killing(*args: object, **options: object) -> object:
        if name == "change_dataset" and args[0] == CANARY_SET:
            return original(*args, **options)
        number = next(calls)
        if number == call and not is_after:
            raise Killed
        result = original(*args, **options)
        if number == call:
            raise Killed
        return result

    setattr(target, name, killing)
    return lambda: setattr(target, name, original)


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
