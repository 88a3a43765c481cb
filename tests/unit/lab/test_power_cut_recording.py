"""Recordings: which copies and logs there are, and how the two logs stand to each other."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from omamori_lab.errors import LabError
from omamori_lab.power_cut import Clock, Recorder, Recording
from omamori_lab.power_cut import recording as module
from omamori_lab.power_cut.timeline import Timeline
from omamori_lab.waiting import wait_for
from sim.power_cut_world import LogFile


class Pair:
    """Both logs of a recording, looked at when a test says so."""

    def __init__(self, top: Path) -> None:
        self.recording = Recording(top)
        self.disk = LogFile(self.recording.disk_log)
        self.vars = LogFile(self.recording.vars_log)
        self.clock = Clock()

    def look(self) -> None:
        self.clock.look(self.recording.disk_log, self.recording.vars_log)

    def write(self, where: LogFile) -> None:
        where.add(0, bytes(512))

    def flush(self) -> None:
        self.disk.add(0, b"", 1)

    def timeline(self) -> Timeline:
        self.clock.write(self.recording.directory)
        return Timeline(self.recording)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_write_to_the_variables_is_between_the_flushes_where_it_was_seen(pair: Pair) -> None:
    for _ in range(3):
        pair.write(pair.disk)
        pair.flush()
        pair.look()
        pair.write(pair.vars)
        pair.look()
    timeline = pair.timeline()
    assert (timeline.boundaries, timeline.writes) == (3, 3)
    assert [[moment.writes for moment in timeline.moments(at)] for at in range(4)] == [[0], [0, 1], [1, 2], [2, 3]]
    for at in range(4):
        for seed in range(10):
            moment = timeline.drawn(at, seed)
            assert moment.cut.boundary == at
            assert max(0, at - 1) <= moment.writes <= at
            assert moment == timeline.drawn(at, seed)


def test_where_nobody_looked_every_order_is_possible(pair: Pair) -> None:
    pair.look()
    for _ in range(2):
        pair.write(pair.disk)
        pair.flush()
        pair.write(pair.vars)
    pair.look()
    timeline = pair.timeline()
    assert [[moment.writes for moment in timeline.moments(at)] for at in range(3)] == [[0, 1, 2]] * 3


def test_boundaries_near_writes_to_the_variables_are_all_in_a_sample(pair: Pair) -> None:
    for number in range(100):
        pair.flush()
        pair.look()
        if number == 60:
            pair.write(pair.vars)
            pair.look()
    timeline = pair.timeline()
    sample = timeline.spread(10, 5)
    assert {59, 60, 61, 62, 63} <= set(sample)
    assert len(sample) == 10
    assert min(sample) >= 10
    assert timeline.boundary_at(0) == 0
    assert timeline.boundary_at(pair.recording.disk_log.stat().st_size) == 100


def test_a_recording_without_its_clock_is_told(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no clock"):
        pair.recording.clock()
    (tmp_path / "clock").write_bytes(struct.pack("<Q", 1))
    with pytest.raises(LabError, match="no clock"):
        pair.recording.clock()


def test_more_looks_than_a_clock_takes_are_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOOKS", 2)
    for _ in range(2):
        pair.flush()
        pair.look()
        pair.look()
    pair.flush()
    with pytest.raises(LabError, match="more than 2 looks"):
        pair.look()


def test_a_recorder_keeps_the_last_recording_and_those_it_was_told_to(tmp_path: Path) -> None:
    disk, variables = tmp_path / "disk", tmp_path / "vars"
    disk.write_bytes(b"first")
    variables.write_bytes(b"variables")
    recorder = Recorder(tmp_path / "recordings")
    with pytest.raises(LabError, match="nothing"):
        recorder.keep()
    recorder.prepare(disk, variables)
    recorder.begin()
    kept = recorder.keep()
    log = LogFile(kept.disk_log)
    LogFile(kept.vars_log).add(0, bytes(512))
    log.add(0, b"", 1)
    disk.write_bytes(b"second")
    recorder.prepare(disk, variables)
    assert kept.disk.read_bytes() == b"first"
    assert wait_for(lambda: Timeline(kept).writes, "the clock", timeout_s=5) == 1
    third = recorder.prepare(disk, variables)
    assert sorted(path.name for path in (tmp_path / "recordings").iterdir()) == ["1", "3"]
    assert third.disk.read_bytes() == b"second"
    recorder.end()
