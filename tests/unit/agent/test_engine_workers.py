"""Alerts and blocks on their way into the outbox, and the watch over the engine."""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_agent import engine as engine_package
from omamori_agent.engine import BlockLists, EngineControl, EngineWatch, GateAccess
from omamori_agent.engine.alert_worker import CURSOR, AlertWorker, store
from omamori_agent.engine.block_worker import BlockWorker, read_block
from omamori_agent.engine.eve import EveTail
from omamori_agent.engine.fold import Folder
from omamori_agent.engine.gate_port import mac_of
from omamori_agent.engine.watch import Ledger, Probe, load_ledger
from omamori_agent.errors import TransientError
from omamori_agent.gate import BlockedFlow
from omamori_agent.status import StatusBoard
from omamori_protocol.feed_manifest import ListKind, PackList
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, Direction, EngineState, EventKind, Function, Severity
from sim.box import box_config
from sim.clock import ManualClock
from sim.engine import SimulatedEngine
from sim.gate import SimulatedGate
from sim.outbox import MemoryOutbox

NEVER = threading.Event()
MAC = "02:00:5e:10:00:01"


def eve_line(number: int, **changes: Any) -> bytes:
    record = {
        "event_type": "alert",
        "src_ip": "192.168.10.11",
        "dest_ip": f"203.0.113.{number}",
        "proto": "TCP",
        "alert": {"action": "blocked", "signature_id": 7, "signature": "rule", "severity": 1},
    }
    return json.dumps(record | changes).encode() + b"\n"


class Setting:
    """An EVE file and everything an alert worker needs; `worker` is a new run of the agent."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "eve.json"
        self.outbox = MemoryOutbox()
        self.clock = ManualClock()
        self.gate = SimulatedGate()
        self.gate.macs["192.168.10.11"] = MAC
        feed = directory / "feed/engine"
        feed.mkdir(parents=True)
        (feed / "datasets.yaml").write_text("%YAML 1.1\n---\ndatasets: {}\n")
        (feed / "all.rules").write_text("")
        self.engine = SimulatedEngine(directory / "engine.sock", directory / "feed")
        self.control = EngineControl(self.engine.path, self.clock, identify=self.engine.identify)

    def worker(self) -> AlertWorker:
        return AlertWorker(
            EveTail(self.path, boot_id="boot", position=self.outbox.cursor(CURSOR)),
            self.control,
            lambda address: mac_of(self.gate, address),
            self.outbox,
            self.clock,
            folder=Folder(),
            rotate_bytes=1000,
        )

    def append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    @property
    def destinations(self) -> list[str | None]:
        return [event.destination for event in self.outbox.of(EventKind.ALERT)]


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    made.engine.start()
    yield made
    made.engine.stop()


def test_alert_reaches_the_outbox_with_the_mac_of_the_gate(setting: Setting) -> None:
    setting.append(eve_line(1))
    assert setting.worker().step(NEVER)
    (event,) = setting.outbox.events
    assert event.terminal_mac == bytes.fromhex("02005e100001")
    assert setting.destinations == ["203.0.113.1"]


def test_alert_without_a_gate_has_no_mac(setting: Setting) -> None:
    setting.gate.is_there = False
    setting.append(eve_line(1))
    setting.worker().step(NEVER)
    assert setting.outbox.events[0].terminal_mac is None


def test_killed_after_every_step_each_alert_is_there_exactly_once(setting: Setting) -> None:
    for number in range(1, 20):
        setting.append(eve_line(number))
        setting.worker().step(NEVER)  # each time a new agent, the old one is gone without a word
    for _ in range(3):
        setting.worker().step(NEVER)
    assert setting.destinations == [f"203.0.113.{number}" for number in range(1, 20)]


def test_killed_before_the_outbox_had_it(setting: Setting) -> None:
    setting.append(eve_line(1) + eve_line(2))
    stop = threading.Event()
    stop.set()
    setting.outbox.failures = 1
    setting.worker().step(stop)
    assert setting.outbox.events == []
    setting.worker().step(NEVER)
    assert setting.destinations == ["203.0.113.1", "203.0.113.2"]


def test_outbox_that_refuses_for_a_while_loses_nothing(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omamori_agent.engine.alert_worker._RETRY_S", 0.01)
    setting.outbox.failures = 3
    setting.append(eve_line(1))
    setting.worker().step(NEVER)
    assert setting.destinations == ["203.0.113.1"]


def test_event_that_the_protocol_does_not_allow_holds_nothing_up() -> None:
    good = Event(boot=0, seq=0, at_ms=1, kind=EventKind.SYSTEM, text="good")
    bad = Event(boot=0, seq=0, at_ms=1, kind=EventKind.SYSTEM, text="x" * 301)
    outbox = MemoryOutbox()
    assert store(outbox, [bad, good], None, NEVER)
    assert outbox.events == [good]


def test_lines_that_are_no_alerts_are_counted_and_skipped(setting: Setting) -> None:
    setting.append(b"{\n\xff\n[]\n" + eve_line(1, event_type="stats") + eve_line(2, src_ip="x") + eve_line(3))
    worker = setting.worker()
    worker.step(NEVER)
    assert setting.destinations == ["203.0.113.3"]
    assert worker.rejected_lines == 4


def test_repeats_are_told_as_a_count(setting: Setting) -> None:
    worker = setting.worker()
    setting.append(eve_line(1) * 5)
    worker.step(NEVER)
    setting.clock.advance(61)
    worker.step(NEVER)
    assert [event.count for event in setting.outbox.events] == [1, 4]


def test_kill_costs_at_most_the_counts_of_open_windows(setting: Setting) -> None:
    setting.append(eve_line(1) * 5)
    setting.worker().step(NEVER)
    setting.append(eve_line(1))
    setting.worker().step(NEVER)
    assert [event.count for event in setting.outbox.events] == [1, 1]


def test_repeats_after_the_last_stored_event_are_read_again_after_a_kill(setting: Setting) -> None:
    worker = setting.worker()
    setting.append(eve_line(1))
    worker.step(NEVER)
    setting.append(eve_line(1) * 3)
    worker.step(NEVER)
    setting.worker().step(NEVER)
    assert sum(event.count for event in setting.outbox.events) == 2  # a first one again; its repeats are pending


def test_orderly_stop_tells_the_counts(setting: Setting) -> None:
    setting.append(eve_line(1) * 5)
    stop = threading.Event()
    thread = threading.Thread(target=setting.worker().run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 5
    while not setting.outbox.events and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(5)
    assert [event.count for event in setting.outbox.events] == [1, 4]
    setting.worker().step(NEVER)
    assert len(setting.outbox.events) == 2


def test_large_file_is_rotated_and_the_engine_asked_to_reopen(setting: Setting) -> None:
    worker = setting.worker()
    setting.append(b"".join(eve_line(number) for number in range(20)))
    worker.step(NEVER)
    assert setting.path.with_name("eve.json.1").exists()
    assert "reopen-log-files" in setting.engine.commands
    setting.append(eve_line(99))
    for _ in range(3):
        worker.step(NEVER)
    assert len(setting.destinations) == 21
    assert not setting.path.with_name("eve.json.1").exists()


def test_engine_that_is_away_is_asked_again_to_reopen(setting: Setting) -> None:
    setting.engine.stop()
    worker = setting.worker()
    setting.append(b"".join(eve_line(number) for number in range(20)))
    worker.step(NEVER)
    setting.engine.start()
    worker.step(NEVER)
    assert "reopen-log-files" not in setting.engine.commands
    setting.clock.advance(6)
    worker.step(NEVER)
    assert "reopen-log-files" in setting.engine.commands


# Blocks.

BLOCKED_LIST = PackList(
    name="c2-addresses",
    kind=ListKind.IP,
    path="lists/c2.txt",
    count=1,
    function=Function.BEHAVIOUR,
    severity=Severity.THREE,
    action=Action.BLOCKED,
    category="c2",
)


def flow(direction: Direction = Direction.OUT, **changes: Any) -> BlockedFlow:
    inside, outside = ipaddress.ip_address("192.168.10.11"), ipaddress.ip_address("203.0.113.99")
    values: dict[str, Any] = {
        "src": inside if direction is Direction.OUT else outside,
        "dst": outside if direction is Direction.OUT else inside,
        "sport": 50000,
        "dport": 443,
        "proto": 6,
        "direction": direction,
        "packets": 3,
        "bytes": 180,
        "first_seen": 1_790_000_000.0,
        "last_seen": 1_790_000_001.5,
        "mac": MAC if direction is Direction.OUT else None,
        "list_id": 1,
    }
    return BlockedFlow(**(values | changes))


def test_something_inside_tried_to_reach_a_blocked_address() -> None:
    event = read_block(flow(), None, b"\2\0\x5e\x10\0\1")
    assert (event.function, event.severity) == (Function.DANGEROUS_SITE, Severity.TWO)
    assert (event.direction, event.action) == (Direction.OUT, Action.BLOCKED)
    assert (event.terminal_ip, event.destination, event.remote_ip) == ("192.168.10.11", "203.0.113.99", "203.0.113.99")
    assert (event.remote_port, event.protocol, event.count) == (443, "tcp", 3)
    assert event.at_ms == 1_790_000_001_500
    event.encode()


def test_blocked_address_tried_to_reach_inside() -> None:
    event = read_block(flow(Direction.IN), BLOCKED_LIST, None)
    assert (event.function, event.severity, event.direction) == (Function.IPS, Severity.ONE, Direction.IN)
    assert (event.terminal_ip, event.remote_ip, event.remote_port) == ("192.168.10.11", "203.0.113.99", 50000)


def test_list_says_what_a_match_means() -> None:
    event = read_block(flow(), BLOCKED_LIST, None)
    assert (event.function, event.severity, event.category) == (Function.BEHAVIOUR, Severity.THREE, "c2")
    assert event.rule == "address list c2-addresses"


@pytest.mark.parametrize(
    ("proto", "word", "port"), [(17, "udp", 443), (58, "icmpv6", 0), (1, "icmp", 0), (99, "ip-99", 0)]
)
def test_protocols(proto: int, word: str, port: int) -> None:
    event = read_block(flow(proto=proto, dport=port), None, None)
    assert (event.protocol, event.remote_port) == (word, port or None)
    event.encode()


def make_blocks(gate: SimulatedGate, outbox: MemoryOutbox, clock: ManualClock) -> BlockWorker:
    lists = BlockLists()
    lists.set({1: BLOCKED_LIST})
    return BlockWorker(gate, lists, outbox, clock, folder=Folder())


def test_blocks_are_folded_and_stored() -> None:
    gate, outbox, clock = SimulatedGate(), MemoryOutbox(), ManualClock()
    gate.macs["192.168.10.11"] = MAC
    worker = make_blocks(gate, outbox, clock)
    gate.flows = [flow(), flow(Direction.IN)]
    worker.step(NEVER)
    assert [event.direction for event in outbox.events] == [Direction.OUT, Direction.IN]
    assert {event.terminal_mac for event in outbox.events} == {bytes.fromhex("02005e100001")}
    gate.flows = [flow(packets=5)]
    clock.advance(1)
    worker.step(NEVER)
    assert len(outbox.events) == 2
    clock.advance(60)
    worker.step(NEVER)
    assert [event.count for event in outbox.events] == [3, 3, 5]


def test_number_of_a_list_that_is_gone() -> None:
    gate, outbox = SimulatedGate(), MemoryOutbox()
    gate.flows = [flow(list_id=7, mac="odd")]
    make_blocks(gate, outbox, ManualClock()).step(NEVER)
    assert outbox.events[0].function is Function.DANGEROUS_SITE
    assert outbox.events[0].terminal_mac is None


def test_gate_that_is_not_there_is_no_reason_to_die() -> None:
    gate, outbox = SimulatedGate(), MemoryOutbox()
    gate.is_there = False
    make_blocks(gate, outbox, ManualClock()).step(NEVER)
    assert outbox.events == []


class OpenedGate(SimulatedGate):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_gate_is_opened_when_needed_and_again_after_a_failure() -> None:
    opened: list[OpenedGate] = []
    is_there = False

    def opener() -> OpenedGate:
        if not is_there:
            raise TransientError("no map")
        opened.append(OpenedGate())
        return opened[-1]

    access = GateAccess(opener)  # type: ignore[arg-type]
    with pytest.raises(TransientError):
        access.drain_blocked()
    is_there = True
    assert access.drain_blocked() == []
    assert access.terminal("192.168.10.11") is None
    assert len(opened) == 1
    opened[0].is_there = False
    with pytest.raises(TransientError):
        access.replace_block(list)
    assert opened[0].closed
    assert access.change_block([]) == (0, 0)
    assert len(opened) == 2


# The watch.


class Watched:
    def __init__(self, directory: Path) -> None:
        self.setting = Setting(directory)
        self.setting.clock.monotonic_s = 0.0
        self.processes = directory / "cgroup.procs"
        self.processes.write_text("")
        self.ledger = directory / "uninspected.json"
        self.status = StatusBoard()
        self.watch = self.make()

    def make(self) -> EngineWatch:
        setting = self.setting
        return EngineWatch(
            setting.control,
            processes=self.processes,
            ledger_path=self.ledger,
            outbox=setting.outbox,
            status=self.status,
            clock=setting.clock,
        )

    def look(self, after_s: float) -> None:
        self.setting.clock.advance(after_s)
        self.watch.step()

    def uptime(self, seconds: int) -> None:
        answer = json.dumps({"message": seconds, "return": "OK"}).encode() + b"\n"
        self.setting.engine.answer = lambda command: answer if command == "uptime" else None


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.setting.engine.stop()


def test_states_of_the_engine(watched: Watched) -> None:
    watched.look(1)
    assert watched.status.get().engine is EngineState.DOWN
    watched.processes.write_text("123\n")
    watched.look(1)
    assert watched.status.get().engine is EngineState.STARTING
    watched.setting.engine.start()
    watched.look(1)
    assert watched.status.get().engine is EngineState.INSPECTING
    watched.setting.engine.loaded = 0
    watched.look(1)
    assert watched.status.get().engine is EngineState.STARTING


def test_service_without_a_file_of_processes_is_down(watched: Watched) -> None:
    watched.processes.unlink()
    watched.look(1)
    assert watched.status.get().engine is EngineState.DOWN


def test_time_before_the_first_inspection_counts(watched: Watched) -> None:
    watched.look(20)
    watched.setting.engine.start()
    watched.uptime(3)
    watched.look(10)
    assert watched.status.get().uninspected_s == pytest.approx(26, abs=1)
    watched.uptime(13)
    watched.look(10)
    assert watched.status.get().uninspected_s == pytest.approx(26, abs=1)


def test_restart_between_two_looks_counts(watched: Watched) -> None:
    watched.setting.engine.start()
    watched.uptime(100)
    watched.look(100)
    assert watched.status.get().uninspected_s == 0
    watched.uptime(2)
    watched.look(10)
    assert watched.status.get().uninspected_s == pytest.approx(7, abs=1)


def test_outage_is_told_when_it_begins_and_when_it_ends(watched: Watched) -> None:
    watched.setting.engine.start()
    watched.look(1)
    assert watched.setting.outbox.events == []
    watched.setting.engine.stop()
    watched.look(1)
    watched.look(11)
    watched.setting.engine.start()
    watched.look(1)
    watched.look(1)
    events = watched.setting.outbox.events
    assert [event.kind for event in events] == [EventKind.SYSTEM, EventKind.SYSTEM]
    assert [event.severity for event in events] == [Severity.TWO, Severity.TWO]
    assert events[0].text is not None
    assert events[0].text.startswith("engine down")
    assert events[1].text == "engine up: inspecting again after 12 s"


def test_restart_on_purpose_is_one_star(watched: Watched) -> None:
    watched.setting.engine.start()
    watched.look(1)
    watched.watch.expect_restart()
    watched.setting.engine.stop()
    watched.look(1)
    watched.setting.engine.start()
    watched.look(1)
    assert [event.severity for event in watched.setting.outbox.events] == [Severity.ONE, Severity.ONE]


def test_events_wait_for_an_outbox_that_refuses(watched: Watched) -> None:
    watched.setting.engine.start()
    watched.look(1)
    watched.setting.engine.stop()
    watched.setting.outbox.failures = 2
    for _ in range(3):
        watched.look(1)
    assert len(watched.setting.outbox.events) == 1


def test_account_survives_a_restart_of_the_agent(watched: Watched) -> None:
    watched.look(50)
    watched.watch = watched.make()
    watched.look(10)
    assert watched.status.get().uninspected_s == pytest.approx(60)
    watched.setting.engine.start()
    watched.uptime(1000)
    watched.watch = watched.make()
    watched.look(500)
    assert watched.status.get().uninspected_s == pytest.approx(60)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"uninspected_s":"x","at_s":1}',
        b'{"uninspected_s":-5,"at_s":1}',
        b"x" * 300,
        b'{"uninspected_s":1,"at_s":1e9}',
        b'{"uninspected_s":NaN,"at_s":1}',
        b'{"uninspected_s":1e9,"at_s":1}',
    ],
)
def test_account_that_cannot_be_read_counts_from_power_on(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(content)
    assert load_ledger(path, 100.0) == Ledger(0.0, 0.0)


def test_clock_that_stands_still_costs_nothing() -> None:
    assert Ledger(5.0, 10.0).advance(10.0, Probe(EngineState.DOWN)) == Ledger(5.0, 10.0)


def test_workers_of_the_product(tmp_path: Path) -> None:
    config = box_config(tmp_path)
    feature = engine_package.build(config, MemoryOutbox(), StatusBoard(), ManualClock())
    assert [worker.name for worker in feature.workers] == ["engine-watch", "engine-alerts", "gate-blocks"]
    stop = threading.Event()
    threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in feature.workers]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join(3)
        assert not thread.is_alive()
