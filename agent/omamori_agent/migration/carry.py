"""Carry data to the version of the image that runs: the order of things, and what a power cut leaves.

Files in the directory `migration`:

    version         number of the data; 1 when the file is absent
    journal.json    there while something is going on: its stage
    snapshot/       the copy from before the last steps; kept for an older version that may run again

Stages, each written before it begins:

    copying     nothing has changed yet; the copy may be half                  -> begin again
    changing    the copy is whole, the data are something in between           -> put back, begin again
    restoring   the data are being put back                                    -> put back again
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from omamori_agent.files import read_bounded
from omamori_protocol.durable import sync_directory, write_atomic

from .errors import MigrationError, NoWayBackError, StepFailedError
from .snapshot import Snapshot
from .step import Step, check_order

_MAX_BYTES = 4096
_MAX_VERSION = 9999

logger = logging.getLogger(__name__)


class Stage(StrEnum):
    """What is going on."""

    COPYING = "copying"
    CHANGING = "changing"
    RESTORING = "restoring"


class Carrier:
    """Brings the data below a state directory to one version.

    Args:
        state: The state directory; its subdirectory `migration` must exist.
        steps: Every step this image knows.

    Raises:
        MigrationError: The steps are not in order.
    """

    def __init__(self, state: Path, steps: Sequence[Step]) -> None:
        check_order(steps)
        self._state = state
        self._steps = steps
        self._place = state / "migration"
        self._snapshot = Snapshot(state, self._place / "snapshot")
        self.wanted = len(steps) + 1

    def version(self) -> int:
        """Return the version of the data.

        Raises:
            MigrationError: The file holds no version.
        """
        try:
            text = read_bounded(self._place / "version", _MAX_BYTES).decode("ascii", errors="replace").strip()
        except FileNotFoundError:
            return 1
        if not text.isdecimal() or not 1 <= int(text) <= _MAX_VERSION:
            raise MigrationError(f"{self._place / 'version'} holds no version")
        return int(text)

    def carry(self) -> bool:
        """Bring the data to this image's version; say whether anything had to be done.

        Raises:
            StepFailedError: A step did not work, or there is no space for the copy. The data are as before.
            NoWayBackError: The data are newer, and there is no copy from before.
            MigrationError: The bookkeeping cannot be understood; nothing was changed.
            OSError: The data partition does not take what is written; the next start goes on.
        """
        acted = self._finish()
        present = self.version()
        if present > self.wanted:
            present = self._go_back(present)
            acted = True
        if present < self.wanted:
            self._go_on(present)
            acted = True
        return acted

    def _finish(self) -> bool:
        stage = self._stage()
        if stage is None:
            return False
        logger.warning("found a migration that was interrupted while %s", stage)
        if stage is Stage.COPYING:
            self._snapshot.remove()
            self._clear()
        else:
            self._put_back()
        return True

    def _go_back(self, present: int) -> int:
        record = self._snapshot.record()
        if record is None or record.after != present or record.before > self.wanted:
            raise NoWayBackError(f"the data are of version {present}, this image reads {self.wanted}")
        self._put_back()
        logger.info("data put back from version %d to %d", present, record.before)
        return record.before

    def _go_on(self, present: int) -> None:
        todo = self._steps[present - 1 :]
        paths = sorted({path for step in todo for path in step.paths})
        self._enter(Stage.COPYING)
        try:
            self._snapshot.make(present, self.wanted, paths)
        except OSError as err:
            self._snapshot.remove()
            self._clear()
            raise StepFailedError(f"the data cannot be copied ({err.strerror or err})") from err
        self._enter(Stage.CHANGING)
        for step in todo:
            try:
                step.apply(self._state)
            except Exception as err:  # whatever it is, the data go back to what they were
                self._put_back()
                raise StepFailedError(f"step {step.number} failed: {err}") from err
        os.sync()
        self._write_version(self.wanted)
        self._clear()
        logger.info("data carried from version %d to %d", present, self.wanted)

    def _put_back(self) -> None:
        record = self._snapshot.record()
        if record is None:
            raise MigrationError("the copy of the data is gone")
        self._enter(Stage.RESTORING)
        self._snapshot.put_back()
        self._write_version(record.before)
        self._clear()

    def _stage(self) -> Stage | None:
        try:
            return Stage(json.loads(read_bounded(self._place / "journal.json", _MAX_BYTES))["stage"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as err:
            raise MigrationError(f"{self._place / 'journal.json'} cannot be understood") from err

    def _enter(self, stage: Stage) -> None:
        write_atomic(self._place / "journal.json", json.dumps({"stage": stage}).encode(), mode=0o600)

    def _clear(self) -> None:
        (self._place / "journal.json").unlink()
        sync_directory(self._place)

    def _write_version(self, version: int) -> None:
        # Root's boot chooser reads it too.
        write_atomic(self._place / "version", f"{version}\n".encode(), mode=0o644)
