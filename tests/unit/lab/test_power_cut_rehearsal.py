"""Starts after power cuts, on a box that plays its part: what it is given, and what it must say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from omamori_firmware import installer
from omamori_firmware.recipe import source_tree
from omamori_lab.errors import LabError, NotReadyError
from omamori_lab.lab import Lab
from omamori_lab.power_cut import Recorder
from omamori_lab.power_cut.judge import Judge
from omamori_lab.power_cut.rehearsal import RecordedUpdate, await_end, disk_log_length, keep_update, rehearse
from omamori_lab.power_cut.slot_content import PARTS
from omamori_lab.power_cut.timeline import Moment
from omamori_lab.power_cut.variables import read_variables
from sim.power_cut_world import LogFile, World

RELEASE = "omamori: release version=1.1.0 flavour=dev slot=B board=x"
COMMITTED = "omamori: firmware version=1.1.0 state=committed slot=B reason=-"


class PlayedBox:
    """Says `lines` on its console, and of itself what it is told to say."""

    def __init__(self, told: Any, lines: list[str], faults: int = 0) -> None:
        self.told, self.lines, self.faults = told, lines, faults
        self.starts = 0
        self.variables = b""
        self.console = SimpleNamespace(mark=lambda: 0)

    def cut_power(self) -> None:
        pass

    def insert(self, disk: Path, variables: bytes) -> None:
        assert disk.exists()
        self.variables = variables

    def power_on(self) -> None:
        self.starts += 1

    def emulator_failed(self) -> bool:
        return 0 < self.starts <= self.faults

    def await_line(self, pattern: str, *, timeout_s: float, since: int | None = None) -> re.Match[str]:
        match = next((found for line in self.lines if (found := re.search(pattern, line))), None)
        if match is None or self.emulator_failed():
            raise NotReadyError(pattern, timeout_s)
        return match

    def shell(self, _command: str, *, timeout_s: float) -> SimpleNamespace:
        return SimpleNamespace(output=json.dumps(self.told))


def lab_with(box: PlayedBox) -> Lab:
    return cast("Lab", SimpleNamespace(box=box))


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[RecordedUpdate, Judge, Moment, Any]:
    """A recorded update, a judge of it, the moment behind its activation, and what the box must say then."""
    top = tmp_path_factory.mktemp("world")
    installer.build_chooser(top, source=source_tree().slots)
    world = World(top, top / installer.CHOOSER)
    world.install()
    world.keep({"firmware/state.json": world.record(state=4), "boot/attempt": b"B set\n"})
    world.flush()
    world.boot_next("B")
    judge = world.judge()
    moment = list(judge.timeline.moments(1))[-1]
    judgement = judge.look_at(moment)
    assert not judgement.faults
    assert judgement.start is not None
    return RecordedUpdate(world.recording, judge._update, 0), judge, moment, judgement.start.told


def test_box_gets_the_moments_variables_and_its_end_is_returned(trial: Any) -> None:
    recorded, judge, moment, told = trial
    box = PlayedBox(told, [RELEASE, COMMITTED])
    assert rehearse(lab_with(box), recorded, judge, moment) == "committed"
    assert (read_variables(box.variables).boot_next(), box.starts) == (1, 1)
    assert read_variables(recorded.variables(0)).boot_next() is None


def test_box_that_says_something_else_is_told(trial: Any) -> None:
    recorded, judge, moment, told = trial
    with pytest.raises(LabError, match="judged"):
        rehearse(lab_with(PlayedBox(told | {"reason": "restored"}, [RELEASE, COMMITTED])), recorded, judge, moment)
    lines = [RELEASE.replace("slot=B", "slot=A"), COMMITTED]
    with pytest.raises(LabError, match="in slot A"):
        rehearse(lab_with(PlayedBox(told, lines)), recorded, judge, moment)


def test_box_that_does_not_come_to_an_end_is_told(trial: Any) -> None:
    recorded, judge, moment, told = trial
    with pytest.raises(LabError, match="trial: trying"):
        rehearse(lab_with(PlayedBox(told, [RELEASE])), recorded, judge, moment)


def test_fault_of_the_emulator_is_tried_once_more(trial: Any) -> None:
    recorded, judge, moment, told = trial
    box = PlayedBox(told, [RELEASE, COMMITTED], faults=1)
    assert rehearse(lab_with(box), recorded, judge, moment) == "committed"
    assert box.starts == 2


def test_end_of_a_certain_update(trial: Any) -> None:
    lines = [COMMITTED, COMMITTED.replace("1.1.0", "1.2.0").replace("committed", "failed")]
    assert await_end(lab_with(PlayedBox({}, lines)), "1.2.0") == "failed"
    assert await_end(lab_with(PlayedBox({}, lines))) == "committed"


def test_recording_is_kept_with_both_firmwares(tmp_path: Path) -> None:
    for name, version in (("dev", "1.0.0"), ("dev-next", "1.1.0")):
        image = tmp_path / name
        image.mkdir()
        (image / "manifest.json").write_text(json.dumps({"version": version, "board": "x86_64-uefi"}))
        for file in PARTS.values():
            (image / file).write_text(f"{name} {file}")
    recorder = Recorder(tmp_path / "recordings")
    lab = cast("Lab", SimpleNamespace(recorder=recorder, settings=SimpleNamespace(image=tmp_path / "dev")))
    (tmp_path / "disk").write_bytes(b"")
    recording = recorder.prepare(tmp_path / "disk", tmp_path / "disk")
    LogFile(recording.disk_log)
    begin = disk_log_length(lab)
    assert begin == 512
    update = keep_update(lab, begin)
    shutil.rmtree(tmp_path / "dev-next")
    assert update.update.versions == {"A": "1.0.0", "B": "1.1.0"}
    assert (update.update.releases["B"] / "root.erofs").read_text() == "dev-next root.erofs"
    recorder.prepare(tmp_path / "disk", tmp_path / "disk")
    assert update.recording.disk_log.exists()


def test_lab_that_does_not_record_is_told() -> None:
    lab = cast("Lab", SimpleNamespace(recorder=None))
    with pytest.raises(LabError, match="records nothing"):
        disk_log_length(lab)
    with pytest.raises(LabError, match="records nothing"):
        keep_update(lab, 0)
