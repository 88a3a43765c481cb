"""Files of the update on the data partition.

    state.json            the record
    floor.json            what was committed
    bundle.raucb          the bundle, growing segment by segment until it is whole
    download/index        index of the payload that is being fetched
    download/packed       bytes of the payload from the first segment that the bundle lacks
    download/source.json  what the three above belong to
    metadata/, stick-metadata/   TUF metadata last seen, from the repository and from a stick

Whatever moment the power is cut at, the record is the old or the new one; the bundle is believed only by its hash.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from omamori_agent.errors import SetupError, TransientError
from omamori_agent.files import read_bounded, sync_directory, write_atomic
from omamori_agent.text import clean_text
from omamori_protocol.vocabulary import FirmwareReason

from .answer import BUNDLE_NAME, DOWNLOAD_NAME
from .errors import UpdateWaitsError
from .floor import Floor, load_floor, save_floor
from .record import MAX_BYTES, Record, parse_record

logger = logging.getLogger(__name__)

RECORD_NAME = "state.json"
_MIB = 1024 * 1024


class FirmwareStore:
    """Everything below one directory; one thread uses it.

    Args:
        directory: Where it is; its parent exists.
        reserve_bytes: What must stay free on the data partition.
    """

    def __init__(self, directory: Path, *, reserve_bytes: int) -> None:
        self.directory = directory
        self._reserve_bytes = reserve_bytes
        self._record = Record()
        self._floor = Floor()

    @property
    def record(self) -> Record:
        """What is remembered."""
        return self._record

    @property
    def floor(self) -> Floor:
        """What was committed."""
        return self._floor

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.directory / BUNDLE_NAME

    @property
    def download(self) -> Path:
        """Directory of what is on its way."""
        return self.directory / DOWNLOAD_NAME

    def load(self) -> None:
        """Make the directories and read what is there. A record that cannot be read counts as none.

        Raises:
            SetupError: The data partition cannot be used.
        """
        try:
            self.directory.mkdir(mode=0o755, exist_ok=True)
            self.download.mkdir(mode=0o700, exist_ok=True)
        except OSError as err:
            raise SetupError(f"firmware store: {err}", hint="is the data partition writable?") from err
        self._floor = load_floor(self.directory / "floor.json")
        path = self.directory / RECORD_NAME
        try:
            self._record = parse_record(read_bounded(path, MAX_BYTES))
        except FileNotFoundError:
            self._record = Record()
        except (SetupError, ValueError) as err:
            logger.warning("%s is not usable: %s", path, clean_text(str(err), 120))
            self._record = Record()

    def remember(self, record: Record) -> None:
        """Replace the record, durably.

        Raises:
            TransientError: It could not be written; nothing changed.
        """
        if record == self._record:
            return
        try:
            write_atomic(self.directory / RECORD_NAME, record.to_json())
        except OSError as err:
            raise TransientError(f"the update's state is not written: {err.strerror or err}") from err
        self._record = record

    def raise_floor(self, version: str, epoch: int) -> None:
        """Write down what was committed, if it is higher than before.

        Raises:
            TransientError: It could not be written.
        """
        floor = self._floor.raised(version, epoch)
        if floor == self._floor:
            return
        try:
            save_floor(self.directory / "floor.json", floor)
        except OSError as err:
            raise TransientError(f"the floor is not written: {err.strerror or err}") from err
        self._floor = floor

    def check_space(self, needed_bytes: int) -> None:
        """Raise `UpdateWaitsError` unless so many bytes and the reserve are free."""
        facts = os.statvfs(self.directory)
        free = facts.f_bavail * facts.f_frsize
        if free < needed_bytes + self._reserve_bytes:
            text = f"{needed_bytes // _MIB + 1} MiB are needed on the data partition, {free // _MIB} are free"
            raise UpdateWaitsError(FirmwareReason.NO_SPACE, text)

    def discard_download(self) -> None:
        """Remove what is on its way; the bundle stays. What cannot be removed is told and left."""
        try:
            shutil.rmtree(self.download, ignore_errors=True)
            self.download.mkdir(mode=0o700, exist_ok=True)
        except OSError as err:
            logger.warning("%s not emptied: %s", self.download, err)

    def discard(self) -> None:
        """Remove bundle and download."""
        self.discard_download()
        try:
            self.bundle.unlink(missing_ok=True)
            sync_directory(self.directory)
        except OSError as err:
            logger.warning("%s not removed: %s", self.bundle, err)
