"""Real starts after power cuts: the box gets the disk and the variables of a recorded moment, and is switched on.

What a start comes to has been judged before without one; here the box itself has to come to the same, and to go on to
an end that it tells.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from omamori_firmware.recipe import source_tree
from omamori_hw.board import load_board
from omamori_lab import products
from omamori_lab.box import RELEASE
from omamori_lab.errors import BoxError, LabError, NotReadyError

from .judge import Judge, Judgement, Report, Update
from .next_start import Chooser
from .recording import Recording
from .slot_content import PARTS
from .timeline import Moment

if TYPE_CHECKING:
    from omamori_lab.lab import Lab

_START_TIMEOUT_S = 240.0
_END_TIMEOUT_S = 600.0
_TOLD = "until test -e /run/omamori/firmware/boot.json; do sleep 0.2; done; cat /run/omamori/firmware/boot.json"
_ENDS = ("committed", "rolled-back", "failed")


@dataclasses.dataclass(frozen=True)
class RecordedUpdate:
    """An update that the lab's box has made while it was recorded.

    Attributes:
        recording: From the power-on before it.
        update: What it was.
        begin: Length of the disk's log when it began.
    """

    recording: Recording
    update: Update
    begin: int

    def judge(self, work: Path) -> Judge:
        """Return a judge that works in a directory, made when absent."""
        work.mkdir(parents=True, exist_ok=True)
        chooser = Chooser.build(source_tree().slots, self.update.board.disk, work)
        return Judge(self.recording, self.update, chooser, work)

    def variables(self, writes: int) -> bytes:
        """Return the firmware's variables after so many writes."""
        flash = bytearray(self.recording.variables.read_bytes())
        log = self.recording.logs()[1]
        for entry in log.entries():
            if entry.changes and writes > 0:
                flash[entry.offset : entry.offset + entry.length] = log.read(entry)
                writes -= 1
        return bytes(flash)


def disk_log_length(lab: Lab) -> int:
    """Return how long the log of the box's disk is now; it is kept from now on.

    Raises:
        LabError: The lab does not record.
    """
    if lab.recorder is None:
        raise LabError("this lab records nothing")
    return lab.recorder.keep().disk_log.stat().st_size


def keep_update(lab: Lab, begin: int) -> RecordedUpdate:
    """Keep the recording of an update that has just been made, with copies of both firmwares.

    Args:
        lab: It records, and has published one firmware.
        begin: What `disk_log_length` was before.

    Raises:
        LabError: The lab does not record.
    """
    if lab.recorder is None:
        raise LabError("this lab records nothing")
    recording = lab.recorder.keep()
    image = lab.settings.image
    releases, versions = {}, {}
    for letter, source in {"A": image, "B": image.with_name(f"{image.name}-next")}.items():
        releases[letter] = recording.directory / letter
        releases[letter].mkdir(exist_ok=True)
        for name in PARTS.values():
            shutil.copyfile(source / name, releases[letter] / name)
        versions[letter] = str(products.read_manifest(source)["version"])
    board = load_board(source_tree().boards / str(products.read_manifest(image)["board"]))
    return RecordedUpdate(recording, Update(board, releases, versions), begin)


def choose(report: Report, count: int, first: int) -> list[Moment]:
    """Return moments to be started, in their order: one of each outcome, rare outcomes first, then more of them.

    Args:
        report: With examples.
        count: So many at most.
        first: None before this boundary.
    """
    examples = {
        outcome: [moment for moment in moments if moment.cut.boundary >= first]
        for outcome, moments in report.examples.items()
    }
    chosen: list[Moment] = []
    for turn in range(count):
        for outcome in sorted(examples, key=lambda outcome: (report.outcomes[outcome], outcome)):
            moments = examples[outcome]
            if turn < len(moments) and len(chosen) < count:
                chosen.append(moments[-1 - turn])
    return sorted(chosen, key=lambda moment: (moment.cut.boundary, moment.writes))


def rehearse(lab: Lab, recorded: RecordedUpdate, judge: Judge, moment: Moment) -> str:
    """Start the box at a moment, and wait for an end of the update; the box stays on.

    Args:
        lab: Its box may be on; then its power is cut.
        recorded: What the moment is of.
        judge: Has not been at a later moment.
        moment: Of the power cut.

    Returns:
        The state in which the update ended, as the console tells it.

    Raises:
        LabError: The box has done something else than was judged, or did not come to an end.
    """
    judgement = judge.look_at(moment)
    variables = recorded.variables(moment.writes)
    try:
        return _start(lab, judge.disk, variables, judgement)
    except (BoxError, NotReadyError) as err:
        if not lab.box.emulator_failed():
            raise LabError(f"{moment} ({judgement.outcome}): {err}") from err
    return _start(lab, judge.disk, variables, judgement)


def _start(lab: Lab, disk: Path, variables: bytes, judgement: Judgement) -> str:
    if judgement.start is None:
        raise LabError("there is no start to be expected")
    box = lab.box
    box.cut_power()
    box.insert(disk, variables)
    mark = box.console.mark()
    box.power_on()
    release = box.await_line(RELEASE, timeout_s=_START_TIMEOUT_S)
    # At once: a box whose next step is a restart does not wait for anything.
    told = json.loads(box.shell(_TOLD, timeout_s=_START_TIMEOUT_S).output)
    if told != judgement.start.told or release["slot"] != judgement.start.slot:
        raise LabError(f"judged: {judgement.start.told}, seen: {told} in slot {release['slot']}")
    return await_end(lab, since=mark)


def await_end(lab: Lab, version: str | None = None, *, since: int | None = None) -> str:
    """Wait until the box tells that an update has ended; return the state.

    Args:
        lab: Its box is on.
        version: The update to a version; None for any.
        since: A mark of the console; None for the last power-on.
    """
    name = r"\S+" if version is None else re.escape(version)
    line = rf"omamori: firmware version={name} state=(?P<state>{'|'.join(_ENDS)}) "
    return lab.box.await_line(line, timeout_s=_END_TIMEOUT_S, since=since)["state"]
