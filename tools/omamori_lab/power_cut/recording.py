"""A box's disk and firmware variables from a power-on on, and everything that was written to both since.

QEMU logs the two into files of their own, and neither log knows of the other. A thread looks at the lengths of both
files all the time, so that afterwards it can be said between which requests to the disk a write to the variables came.
Emulated, the machine does next to nothing from one look to the next.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import dataclasses
import os
import shutil
import threading
from pathlib import Path

from omamori_firmware.files import copy_sparse
from omamori_lab.errors import LabError

from .write_log import WriteLog

_LOOK_S = 0.001
_CLOCK = "clock"
_COLUMNS = 3
MAX_LOOKS = 10_000_000


@dataclasses.dataclass(frozen=True)
class Recording:
    """Files of a recording, in one directory.

    Attributes:
        directory: Where they are.
    """

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk at power-on."""
        return self.directory / "disk.raw"

    @property
    def variables(self) -> Path:
        """The firmware's variables at power-on."""
        return self.directory / "vars.fd"

    @property
    def disk_log(self) -> Path:
        """Every write to the disk since."""
        return self.directory / "disk.log"

    @property
    def vars_log(self) -> Path:
        """Every write to the variables since."""
        return self.directory / "vars.log"

    def clock(self) -> Clock:
        """Return how the two logs stand to each other.

        Raises:
            LabError: It was not written.
        """
        try:
            return Clock.read(self.directory / _CLOCK)
        except (OSError, ValueError) as err:
            raise LabError(f"the recording in {self.directory.name} has no clock: {err}") from err

    def logs(self) -> tuple[WriteLog, WriteLog]:
        """Return the logs of disk and variables."""
        return WriteLog(self.disk_log), WriteLog(self.vars_log)


class Clock:
    """Lengths of both logs, look by look.

    A look takes the disk's log first, then the variables', then the disk's again: whatever the variables' log had by
    then was written before the second length, and what it did not have came after the first.
    """

    def __init__(self) -> None:
        self._looks = array.array("Q")

    def look(self, disk_log: Path, vars_log: Path) -> None:
        """Take note of both, if one has grown.

        Raises:
            LabError: There are more than `MAX_LOOKS`.
        """
        row = (disk_log.stat().st_size, vars_log.stat().st_size, disk_log.stat().st_size)
        if row[1:] == tuple(self._looks[-2:]) and row[0] == row[2]:
            return
        if len(self._looks) >= MAX_LOOKS * _COLUMNS:
            raise LabError(f"a recording has more than {MAX_LOOKS} looks")
        self._looks.extend(row)

    def write(self, directory: Path) -> None:
        """Keep it beside a recording."""
        (directory / _CLOCK).write_bytes(self._looks.tobytes())

    @classmethod
    def read(cls, path: Path) -> Clock:
        """Return what was kept."""
        clock = cls()
        clock._looks.frombytes(path.read_bytes())
        if len(clock._looks) % _COLUMNS:
            raise ValueError("it is cut off")
        return clock

    def disk_around(self, vars_end: int) -> tuple[int, int]:
        """Return between which lengths of the disk's log the variables' log grew to a length.

        Args:
            vars_end: Where in the variables' log the end of the write is.

        Returns:
            What the disk's log surely had before, and what it had at most when the write was done.
        """
        rows = range(len(self._looks) // _COLUMNS)
        row = bisect.bisect_left(rows, vars_end, key=lambda at: self._looks[at * _COLUMNS + 1])
        # The look before did not have the write; the disk's length at its beginning is therefore older than it.
        earliest = self._looks[(row - 1) * _COLUMNS] if row else 0
        latest = self._looks[row * _COLUMNS + 2] if row < len(rows) else 1 << 63
        return earliest, latest


class Recorder:
    """Makes recordings of a box, a new one at each power-on; only the last one is there, and those that were kept.

    Args:
        directory: Where they go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._clock = Clock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._kept: set[Path] = set()
        self.present: Recording | None = None

    def prepare(self, disk: Path, variables: Path) -> Recording:
        """Copy disk and variables of a box that is about to be switched on."""
        self.end()
        if self.present is not None and self.present.directory not in self._kept:
            shutil.rmtree(self.present.directory, ignore_errors=True)
        self._number += 1
        self.present = Recording(self._directory / str(self._number))
        self.present.directory.mkdir(parents=True)
        copy_sparse(disk, self.present.disk)
        shutil.copyfile(variables, self.present.variables)
        for log in (self.present.disk_log, self.present.vars_log):
            log.touch()
        return self.present

    def begin(self) -> None:
        """Look at the logs from now on."""
        assert self.present is not None
        self._clock, self._ended = Clock(), threading.Event()
        words = (self._clock, self._ended, self.present)
        self._thread = threading.Thread(target=self._watch, args=words, name="recorder", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no longer; what was seen is kept beside the logs."""
        thread, self._thread = self._thread, None
        if thread is None or self.present is None:
            return
        self._ended.set()
        thread.join()
        self._clock.write(self.present.directory)

    def keep(self) -> Recording:
        """Return the present recording, which stays when the box is switched on again.

        Raises:
            LabError: There is none.
        """
        if self.present is None:
            raise LabError("nothing is being recorded")
        self._kept.add(self.present.directory)
        return self.present

    @staticmethod
    def _watch(clock: Clock, ended: threading.Event, recording: Recording) -> None:
        # On a machine that is busy it must not come late: a look that is missed leaves two orders possible.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(1))
        with contextlib.suppress(LabError):
            while not ended.wait(_LOOK_S):
                clock.look(recording.disk_log, recording.vars_log)
        clock.look(recording.disk_log, recording.vars_log)
