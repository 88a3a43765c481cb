"""A copy of some paths of the data, as they were at one version.

A copy is complete when its record is there; the record is written last. Links are copied as links and never followed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omamori_agent.files import read_bounded
from omamori_protocol.durable import sync_directory, temporary_beside, write_atomic

from .errors import MigrationError

_MAX_RECORD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Record:
    """What a copy holds.

    Attributes:
        before: Version of the data when it was made.
        after: Version that they were about to get.
        present: Paths that are in the copy.
        absent: Paths that did not exist.
    """

    before: int
    after: int
    present: tuple[str, ...]
    absent: tuple[str, ...]


class Snapshot:
    """The one copy that a box keeps.

    Args:
        state: The state directory whose paths are copied.
        place: Directory of the copy; its parent must exist.
    """

    def __init__(self, state: Path, place: Path) -> None:
        self._state = state
        self._place = place

    def record(self) -> Record | None:
        """Return what a complete copy holds; None when there is none.

        Raises:
            MigrationError: The record cannot be understood.
        """
        try:
            value = json.loads(read_bounded(self._place / "record.json", _MAX_RECORD_BYTES))
            record = Record(value["before"], value["after"], tuple(value["present"]), tuple(value["absent"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as err:
            raise MigrationError(f"{self._place / 'record.json'} is no record ({err})") from err
        texts = (*record.present, *record.absent)
        if type(record.before) is not int or type(record.after) is not int or any(type(x) is not str for x in texts):
            raise MigrationError(f"{self._place / 'record.json'} is no record")
        return record

    def make(self, before: int, after: int, paths: Sequence[str]) -> None:
        """Copy paths, in place of an older copy.

        Raises:
            OSError: There is no space, or something cannot be read; there is no complete copy then.
        """
        self.remove()
        self._place.mkdir(mode=0o700)
        present = [path for path in paths if _exists(self._state / path)]
        for path in present:
            target = self._place / "files" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(self._state / path, target)
        os.sync()
        record = Record(before, after, tuple(present), tuple(sorted(set(paths) - set(present))))
        write_atomic(self._place / "record.json", json.dumps(asdict(record)).encode(), mode=0o600)
        sync_directory(self._place.parent)

    def put_back(self) -> None:
        """Make the paths what they were. May be repeated after it was interrupted.

        Raises:
            MigrationError: There is no complete copy.
            OSError: Something cannot be written; some paths may be back already.
        """
        record = self.record()
        if record is None:
            raise MigrationError(f"there is no copy in {self._place}")
        for path in record.absent:
            _remove(self._state / path)
        for path in record.present:
            target = self._state / path
            fresh = temporary_beside(target)
            _remove(fresh)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(self._place / "files" / path, fresh)
            _remove(target)
            fresh.rename(target)
        os.sync()

    def remove(self) -> None:
        """Remove the copy, its record first."""
        (self._place / "record.json").unlink(missing_ok=True)
        _remove(self._place)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(mode):
        target.mkdir(mode=0o700)
        for path in sorted(source.iterdir()):
            _copy(path, target / path.name)
        target.chmod(stat.S_IMODE(mode))
    elif stat.S_ISREG(mode):
        shutil.copyfile(source, target, follow_symlinks=False)
        target.chmod(stat.S_IMODE(mode))
