"""The console says when the box protects and what became of a feed, each once."""

import dataclasses
import os
import threading
from pathlib import Path

import pytest

from omamori_agent.config import Paths
from omamori_agent.console import ConsoleReporter
from omamori_agent.health import HealthWorker, is_protecting, is_wire_present
from omamori_agent.status import Status, StatusBoard
from omamori_protocol.vocabulary import EngineState, FeedState
from sim.box import box_config

GOOD = Status(engine=EngineState.INSPECTING, feed_serial=3, feed_state=FeedState.ACTIVE)


class Box:
    def __init__(self, root: Path) -> None:
        self.has_wire = True
        self.lines: list[str] = []
        self.status = StatusBoard()
        config = dataclasses.replace(box_config(root), health_s=0.01)
        self.worker = HealthWorker(
            config=config, status=self.status, report=self.lines.append, has_wire=lambda _paths: self.has_wire
        )

    def step(self, **changes: object) -> list[str]:
        """Change the status, look once, return the new lines."""
        self.status.update(**changes)
        self.lines.clear()
        self.worker.step()
        return list(self.lines)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.mark.parametrize(
    ("changes", "wire", "protects"),
    [
        ({}, True, True),
        ({"feed_state": FeedState.STALE}, True, True),
        ({"feed_state": FeedState.REFUSED}, True, True),  # the previous feed is still loaded
        ({}, False, False),
        ({"engine": EngineState.STARTING}, True, False),
        ({"engine": EngineState.DOWN}, True, False),
        ({"feed_serial": 0}, True, False),
    ],
)
def test_what_protecting_means(changes: dict[str, object], wire: bool, protects: bool) -> None:
    assert is_protecting(dataclasses.replace(GOOD, **changes), wire=wire) is protects  # type: ignore[arg-type]


def test_protecting_is_said_each_time_it_becomes_true(box: Box) -> None:
    protecting = "protecting feed=3 uptime=86460"
    assert box.step() == []
    assert box.step(feed_serial=3) == []
    assert box.step(engine=EngineState.INSPECTING) == [protecting]
    assert box.step() == []
    assert box.step(engine=EngineState.DOWN) == []
    assert box.step(engine=EngineState.INSPECTING) == [protecting]
    box.has_wire = False
    assert box.step() == []
    box.has_wire = True
    assert box.step() == [protecting]


def test_feed_lines(box: Box) -> None:
    assert box.step(feed_serial=3, feed_state=FeedState.ACTIVE) == ["feed serial=3 state=active reason=-"]
    assert box.step() == []
    refused = box.step(feed_state=FeedState.REFUSED, feed_reason="serial 4: digest differs")
    assert refused == ["feed serial=3 state=refused reason=serial 4: digest differs"]
    assert box.step(feed_serial=5, feed_state=FeedState.ROLLED_BACK, feed_reason="") == [
        "feed serial=5 state=rolled-back reason=-"
    ]


def test_wire_is_bridge_and_gate(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert not is_wire_present(paths)
    paths.bridge.mkdir(parents=True)
    assert not is_wire_present(paths)
    paths.bpf.mkdir(parents=True)
    (paths.bpf / "config").touch()
    assert is_wire_present(paths)


def test_worker_reacts_to_changes_and_ends_when_told(box: Box) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=box.worker.run, args=(stop,))
    thread.start()
    box.status.update(engine=EngineState.INSPECTING, feed_serial=3)
    for _ in range(1000):
        if box.lines:
            break
        stop.wait(0.01)
    stop.set()
    thread.join(2)
    assert box.lines == ["protecting feed=3 uptime=86460"]


def test_console_lines_have_the_prefix_and_stay_one_line(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.touch()
    reporter = ConsoleReporter(console)
    reporter.line("feed serial=1\nomamori: forged\x1b[2J")
    reporter.line("x" * 1000)
    lines = console.read_text().splitlines()
    assert lines[0] == "omamori: feed serial=1 omamori: forged [2J"
    assert len(lines) == 2
    assert len(lines[1]) < 320


def test_without_a_console_lines_go_to_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ConsoleReporter(tmp_path / "absent").line("enrolled device=ZA35-000001")
    assert capfd.readouterr().out == "omamori: enrolled device=ZA35-000001\n"


def test_stuck_console_costs_the_line_only(tmp_path: Path) -> None:
    fifo = tmp_path / "console"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    reporter = ConsoleReporter(fifo)
    for _ in range(1000):  # far more than a pipe holds
        reporter.line("x" * 250)
    os.close(reader)
