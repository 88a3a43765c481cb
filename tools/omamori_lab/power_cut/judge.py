"""Judges every power cut of a recorded update, without starting the box.

At each moment that the recording's timeline knows, the disk and the variables are made as the cut leaves them, and:

- the partition tables are untouched, and the data partition is repaired by what the initrd calls for it;
- every state file of the box is one that was written, never half of one, and the spool of events is whole;
- the slot that the machine's firmware starts is whole to the last byte, and so is the one that comes after a trial;
- the image's own boot chooser and the agent's own reading of its record come to a state that has a name, and there is
  a way on from it to the new version.

What it cannot see is whether the slot's content works when it runs; for that, some of the moments are started.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from omamori_agent.firmware.machine import AttemptEnd, BootFacts, Step, next_step, observe
from omamori_agent.firmware.record import Record, parse_record
from omamori_firmware import disk
from omamori_firmware.files import copy_sparse
from omamori_hw.board import Board
from omamori_lab.errors import LabError
from omamori_protocol.desired import FirmwareSettings, FirmwareWindow, Metered
from omamori_protocol.vocabulary import FirmwareState, Slot

from .data_partition import DataPartition, DataState
from .next_start import Chooser, Start
from .recording import Recording
from .replay import Replay
from .slot_content import SlotContent
from .timeline import Moment, Timeline
from .variables import VariableStore, read_variables

MAX_FAULTS = 50
_TRIALS = 3
_TABLES = 1 << 20  # bytes at the beginning and at the end of a disk that belong to no partition
_BACK = {FirmwareState.FAILED, FirmwareState.ROLLED_BACK}


@dataclasses.dataclass(frozen=True)
class Update:
    """What was recorded.

    Attributes:
        board: Of the box.
        releases: Slot letter to the artifact directory of what the slot holds after the update.
        versions: Slot letter to that version; the update goes from A to B.
    """

    board: Board
    releases: dict[str, Path]
    versions: dict[str, str]


@dataclasses.dataclass
class Report:
    """What was looked at and found.

    Attributes:
        boundaries: Moments just after a flush of the disk.
        subsets: Moments at which some of the writes on their way had arrived.
        writes: States of the firmware's variables.
        repairs: How often the data partition was repaired and read.
        starts: How often a start was played.
        outcomes: What a start comes to, in words, and how often.
        examples: Moments of each outcome: the first, and those at which the disk kept some of what was on its way.
        faults: Moment, and what is wrong there.
    """

    boundaries: int = 0
    subsets: int = 0
    writes: int = 0
    repairs: int = 0
    starts: int = 0
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    examples: dict[str, list[Moment]] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        cuts = f"{self.boundaries} with what was flushed, {self.subsets} with some of what was on its way"
        lines = [
            f"power cuts judged: {self.boundaries + self.subsets} ({cuts})",
            f"states of the firmware's variables: {self.writes}",
            f"data partitions repaired and read: {self.repairs}, starts played: {self.starts}",
        ]
        lines += [f"  {count:6} x {outcome}" for outcome, count in sorted(self.outcomes.items())]
        return "\n".join([*lines, *(f"FAULT {fault}" for fault in self.faults)])


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a moment comes to.

    Attributes:
        outcome: In words.
        faults: What is wrong.
        start: The start after the cut; None when there is none.
    """

    outcome: str
    faults: tuple[str, ...]
    start: Start | None = None


class Judge:
    """Walks through a recording once, forwards.

    Args:
        recording: Of the update; it has ended.
        update: What it was.
        chooser: Plays starts.
        work: Directory for the disk that is moved through the recording.
    """

    def __init__(self, recording: Recording, update: Update, chooser: Chooser, work: Path) -> None:
        self.timeline = Timeline(recording)
        self.disk = work / "disk.raw"
        self.disk.unlink(missing_ok=True)
        copy_sparse(recording.disk, self.disk)
        self._update = update
        self._chooser = chooser
        sizes = update.board.disk
        self._content = SlotContent(self.disk, sizes, update.releases)
        self._data_place = disk.find(sizes, "data")
        self._data = DataPartition(self.disk, self._data_place, work)
        self._tables = self._read_tables()
        self._are_tables_touched = self._is_data_touched = False
        self._replay = Replay(self.disk, recording.logs()[0], changed=self._changed)
        self.report = Report()
        self._stores = self._read_stores(recording)
        self._state: DataState | None = None
        self._known: dict[tuple[int, tuple[bool, ...], int], Judgement] = {}
        self._version = 0

    def run(self, boundaries: Iterable[int], seeds: Sequence[int]) -> Report:
        """Judge boundaries, in their order, and a drawn moment behind each for each seed."""
        for boundary in boundaries:
            for moment in self.timeline.moments(boundary):
                self._judge(moment)
                self.report.boundaries += 1
            for seed in seeds:
                self._judge(self.timeline.drawn(boundary, seed))
                self.report.subsets += 1
            if len(self.report.faults) > MAX_FAULTS:
                break
        return self.report

    def look_at(self, moment: Moment) -> Judgement:
        """Make the disk what it was, not earlier than the last one, and say what the moment comes to."""
        self._replay.move_to(moment.cut)
        return self._look(moment)

    def _read_stores(self, recording: Recording) -> list[VariableStore]:
        """Read what the firmware would find after each single write to its variables."""
        flash = bytearray(recording.variables.read_bytes())
        log = recording.logs()[1]
        stores = [read_variables(flash)]
        for entry in log.entries():
            if not entry.changes:
                continue
            flash[entry.offset : entry.offset + entry.length] = log.read(entry)
            self.report.writes += 1
            try:
                store = read_variables(flash)
            except LabError as err:
                self.report.faults.append(f"write {self.report.writes} to the variables: {err}")
                store = stores[-1]
            stores.append(stores[-1] if store == stores[-1] else store)
        return stores

    def _changed(self, offset: int, length: int) -> None:
        self._content.changed(offset, length)
        place = self._data_place
        if offset < place.start + place.size and place.start < offset + length:
            self._is_data_touched = True
            self._version += 1
        size = self.disk.stat().st_size
        if offset < _TABLES or offset + length > size - _TABLES:
            self._are_tables_touched = True

    def _read_tables(self) -> tuple[bytes, bytes]:
        with self.disk.open("rb") as stream:
            head = stream.read(_TABLES)
            stream.seek(-_TABLES, 2)
            return head, stream.read(_TABLES)

    def _look(self, moment: Moment) -> Judgement:
        if self._state is None or self._is_data_touched:
            self._state = self._data.look()
            self._is_data_touched = False
            self.report.repairs += 1
        store = self._stores[moment.writes]
        whole = tuple(self._content.is_whole(letter) for letter in "AB")
        key = (self._version, whole, id(store))
        judgement = self._known.get(key)
        if judgement is None:
            self._known = {}  # a replay does not come back to an earlier state of the data partition
            judgement = self._known[key] = self._play(store, self._state)
        if self._are_tables_touched and self._read_tables() != self._tables:
            wrong = (*judgement.faults, "the partition tables have changed")
            return dataclasses.replace(judgement, faults=wrong)
        return judgement

    def _judge(self, moment: Moment) -> None:
        judgement = self.look_at(moment)
        report = self.report
        report.faults += [f"{moment}: {fault} ({judgement.outcome})" for fault in judgement.faults]
        if not report.outcomes[judgement.outcome] or moment.cut.seed is not None:
            report.examples.setdefault(judgement.outcome, []).append(moment)
        report.outcomes[judgement.outcome] += 1

    def _play(self, store: VariableStore, state: DataState) -> Judgement:
        self.report.starts += 1
        superblocks = {letter: self._chooser.superblock(self.disk, letter) for letter in "AB"}
        faults = list(state.faults)
        try:
            self._chooser.place(store, state.files, superblocks)
            first = self._chooser.start()
            second = self._chooser.start()
        except LabError as err:
            return Judgement("no start", (*faults, str(err)))
        faults += self._faults_of_starts(first, second)
        word, more = self._agent(first, state.files)
        return Judgement(
            f"slot {first.slot} {self._update.versions[first.slot]}, {first.told['reason']}: {word}",
            (*faults, *more),
            first,
        )

    def _faults_of_starts(self, first: Start, second: Start) -> list[str]:
        committed = str(first.told["committed"])
        faults = [
            f"slot {letter} would be started, {self._content.wrong_blocks(letter)} blocks are wrong"
            for letter in sorted({first.slot, committed})
            if not self._content.is_whole(letter)
        ]
        is_trial = first.slot != committed
        if first.told["reason"] != ("trial" if is_trial else "normal") or first.told["is_trial"] is not is_trial:
            faults.append(f"the start is not understood: {first.told}")
        if first.exit_codes != (0, 0) or second.exit_codes != (0, 0):
            faults.append(f"the boot chooser ended with {first.exit_codes}, then {second.exit_codes}")
        if (second.slot, second.told["reason"]) != (committed, "normal"):
            faults.append(f"the start after it is not of slot {committed}: {second.told}")
        return faults

    def _agent(self, start: Start, files: dict[str, bytes]) -> tuple[str, list[str]]:
        """Let the agent read what it wrote; return what it makes of it."""
        running = self._update.versions[start.slot]
        wanted = self._update.versions["B"]
        try:
            record = parse_record(files["firmware/state.json"])
        except KeyError:
            record = Record()  # before the first update
        except ValueError as err:
            return "no record", [f"the agent's record is broken: {err}"]
        attempt = start.told["attempt"]
        facts = BootFacts(
            slot=Slot[start.slot],
            is_trial=start.told["is_trial"],
            attempt=None if attempt is None else AttemptEnd(attempt["end"]),
            boot_id="the next",
            version=running,
        )
        found = observe(record, facts)
        step = next_step(found, _wish(wanted), running, _TRIALS)
        word = f"{found.state.word}{f' ({found.reason.word})' if found.state in _BACK else ''}, next: {step.value}"
        faults = []
        if facts.is_trial and step is not Step.JUDGE:
            faults.append("a trial that the agent does not judge")
        elif not facts.is_trial and running == wanted and found.state is not FirmwareState.COMMITTED:
            faults.append("the new version runs and is not known as committed")
        elif not facts.is_trial and running != wanted and step is Step.REST:
            faults.append("the old version runs and has no way to the new one")
        return word, faults


def _wish(version: str) -> FirmwareSettings:
    """Return what the operator wants during the whole update."""
    window = FirmwareWindow(days=127, start_min=0, length_min=1440, zone="UTC")
    return FirmwareSettings(
        version=version,
        window=window,
        max_wait_s=0,
        metered=Metered.NEVER,
        rate_kbps=0,
        owner_refuses_scheduled=False,
    )
