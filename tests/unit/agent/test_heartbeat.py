"""A heartbeat tells what others know, at each connect and each minute, whatever is missing."""

import dataclasses
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from omamori_agent.config import SpoolLimits
from omamori_agent.errors import TransientError
from omamori_agent.gate import Count
from omamori_agent.gate.layout import Counter
from omamori_agent.heartbeat import HeartbeatWorker, LateGate
from omamori_agent.spool import Spool
from omamori_agent.status import StatusBoard
from omamori_protocol.messages import Event, Heartbeat
from omamori_protocol.vocabulary import EngineState, EventKind, FeedState, Slot
from sim.box import box_config
from sim.clock import ManualClock


class SimulatedGate:
    """The gate's counters; fails on demand."""

    def __init__(self) -> None:
        self.is_there = True

    def counters(self) -> Mapping[Counter, Count]:
        if not self.is_there:
            raise TransientError("no gate")
        return {Counter.INSPECTED: Count(11, 1), Counter.BYPASSED: Count(22, 2), Counter.BLOCKED: Count(33, 3)}


class Box:
    def __init__(self, root: Path) -> None:
        self.config = dataclasses.replace(box_config(root), heartbeat_s=1000.0)
        self.clock = ManualClock()
        self.spool = Spool(self.config.paths.spool, SpoolLimits(), self.clock)
        self.spool.open()
        self.status = StatusBoard()
        self.gate = SimulatedGate()
        self.sent: list[Heartbeat] = []
        self.worker = HeartbeatWorker(
            config=self.config,
            spool=self.spool,
            status=self.status,
            gate=self.gate,
            clock=self.clock,
            offer=lambda payload: self.sent.append(Heartbeat.decode(payload)),
        )


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_every_field(box: Box) -> None:
    box.spool.put([Event(boot=0, seq=0, at_ms=1, kind=EventKind.SYSTEM)])
    box.status.update(
        engine=EngineState.INSPECTING, feed_serial=9, feed_state=FeedState.ACTIVE, uninspected_s=3.9, connected=True
    )
    assert box.worker.compose() == Heartbeat(
        boot=1_790_000_001,
        seq=1,
        sent_s=1_790_000_000,
        uptime_s=86460,
        firmware="2026.11.1",
        slot=Slot.A,
        feed_serial=9,
        feed_state=FeedState.ACTIVE,
        engine=EngineState.INSPECTING,
        agent_rss_kib=41200,
        memory_available_kib=612344,
        spool_depth=1,
        uninspected_s=3,
        inspected_packets=11,
        bypassed_packets=22,
        blocked_packets=33,
    )
    assert box.worker.compose().seq == 2


def test_without_a_gate_its_counters_are_zero(box: Box) -> None:
    box.gate.is_there = False
    heartbeat = box.worker.compose()
    assert (heartbeat.inspected_packets, heartbeat.bypassed_packets, heartbeat.blocked_packets) == (0, 0, 0)


def test_late_gate_is_opened_when_it_appears_and_again_after_it_failed() -> None:
    gates = [SimulatedGate(), SimulatedGate()]
    available: list[SimulatedGate] = []

    def opener() -> SimulatedGate:
        if not available:
            raise TransientError("no gate")
        return available.pop()

    late = LateGate(opener)
    with pytest.raises(TransientError):
        late.counters()
    available.append(gates[0])
    assert late.counters()[Counter.BLOCKED].packets == 33
    gates[0].is_there = False
    with pytest.raises(TransientError):
        late.counters()
    available.append(gates[1])
    assert late.counters()[Counter.BLOCKED].packets == 33


def test_one_at_connect_and_one_when_the_interval_is_over(box: Box) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=box.worker.run, args=(stop,))
    thread.start()

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 10
        while len(box.sent) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    time.sleep(0.1)
    assert box.sent == []  # nobody would hear it
    box.status.update(connected=True)
    wait_for(1)
    box.status.update(feed_serial=5)  # no new connection, no heartbeat
    box.clock.advance(box.config.heartbeat_s + 1)
    wait_for(2)
    box.status.update(connected=False)
    box.status.update(connected=True)
    wait_for(3)
    stop.set()
    thread.join(2)
    assert not thread.is_alive()
    assert [item.seq for item in box.sent] == [1, 2, 3]


def test_processor_time_since_the_heartbeat_before(box: Box) -> None:
    stat = box.config.paths.proc / "stat"
    stat.parent.mkdir(parents=True, exist_ok=True)
    for line, expected in [
        ("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\n", 200),
        ("cpu  190 0 100 710 100 0 0 0 50 0\n", 900),
        ("cpu  190 0 100 710 100 0 0 0 50 0\n", 0),  # no time has passed
        ("cpu  1 0 0 1 0 0 0 0 0 0\n", 0),  # went backwards
        ("cpu  1 x\n", 0),
        ("", 0),
    ]:
        stat.write_text(line)
        assert box.worker.compose().busy_permille == expected
