"""What a box finds on its data partition after a power cut: the file system as its start repairs it, and files of it.

The disk is not touched: repair is played on a copy, with the very command that the initrd gives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

from omamori_firmware.files import copy_sparse
from omamori_firmware.gpt import Partition
from omamori_lab import run

_TIMEOUT_S = 120.0
_PLACE = "/lib/omamori"
# The bundle and the feeds' lists stay where they are: no state is in them.
_DIRECTORIES = ("boot", "desired", "identity", "spool", "migration", "address")
_FILES = ("firmware/state.json", "firmware/floor.json", "feed/state.json")
_REPAIRED = 1  # e2fsck's status when all is well, possibly after a repair


@dataclasses.dataclass(frozen=True)
class DataState:
    """What is there.

    Attributes:
        files: Path below ``/var/lib/omamori`` to content.
        faults: What is not as it must be.
    """

    files: dict[str, bytes]
    faults: tuple[str, ...]


class DataPartition:
    """Looks at the data partition of a disk.

    Args:
        disk: The disk.
        partition: Which it is.
        work: A directory for copies.
    """

    def __init__(self, disk: Path, partition: Partition, work: Path) -> None:
        self._disk = disk
        self._partition = partition
        self._work = work

    def look(self) -> DataState:
        """Play what a start does with it and read the files."""
        copy, files = self._work / "data.raw", self._work / "files"
        shutil.rmtree(files, ignore_errors=True)
        copy.unlink(missing_ok=True)
        self._copy(copy)
        try:
            checked = run.run(["e2fsck", "-p", copy], timeout_s=_TIMEOUT_S, check=False)
            faults = []
            if checked.exit_code is None or checked.exit_code > _REPAIRED:
                faults.append(f"e2fsck -p ended with {checked.exit_code}: {checked.output.strip()[-200:]}")
            self._extract(copy, files)
            faults += _faults(files)
        finally:
            copy.unlink(missing_ok=True)
        found = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        return DataState(found, tuple(faults))

    def _copy(self, target: Path) -> None:
        copy_sparse(self._disk, target, part=(self._partition.start, self._partition.size))

    @staticmethod
    def _extract(copy: Path, target: Path) -> None:
        lines = [f"rdump {_PLACE}/{name} {target}" for name in _DIRECTORIES]
        for name in _FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            lines.append(f"dump {_PLACE}/{name} {target / name}")
        run.run(["debugfs", "-f", "-", copy], stdin="\n".join(lines) + "\n", timeout_s=_TIMEOUT_S)
        for name in _FILES:  # of a file that is not there, debugfs makes an empty one or none
            path = target / name
            if path.exists() and not path.stat().st_size and not _exists(copy, name):
                path.unlink()


def _exists(copy: Path, name: str) -> bool:
    told = run.run(["debugfs", "-R", f"stat {_PLACE}/{name}", copy], timeout_s=_TIMEOUT_S)
    return "Inode:" in told.output


def _faults(files: Path) -> list[str]:
    """Look into everything that must be whole whatever happens."""
    faults = []
    for path in sorted(files.rglob("*.json")):
        if path.name.startswith("."):
            continue  # the next content being prepared
        try:
            json.loads(path.read_bytes())
        except ValueError as err:
            faults.append(f"{path.relative_to(files)} is broken: {err}")
    spool = files / "spool/spool.db"
    if spool.exists():
        try:
            with contextlib.closing(sqlite3.connect(spool)) as connection:
                told = connection.execute("PRAGMA integrity_check").fetchall()
        except sqlite3.DatabaseError as err:
            told = [(str(err),)]
        if told != [("ok",)]:
            faults.append(f"the spool is broken: {told[:3]}")
    return faults


def require_tools() -> None:
    """Check that the programs are there.

    Raises:
        SetupError: One is not.
    """
    run.require("e2fsck", "debugfs")
