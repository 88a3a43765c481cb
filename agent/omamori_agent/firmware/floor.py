"""What a box never goes below: the highest version and the highest security epoch that it has committed.

The way back from a bad release is its old content under a higher version. The floor is kept beside the record, in a
file of its own, so that a lost record does not lower it; the running image counts even if the file is lost. RAUC's own
bound (`min-bundle-version` of the image) stands behind this one.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded, write_atomic
from omamori_protocol.errors import MalformedError
from omamori_protocol.firmware_release import FirmwareRelease
from omamori_protocol.firmware_version import VersionKey, check_firmware_version, version_key
from omamori_protocol.vocabulary import FirmwareReason

from .errors import UpdateRefusedError

logger = logging.getLogger(__name__)

FORMAT = 1
_MAX_BYTES = 1024
_LOWEST: VersionKey = (0, 0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Floor:
    """The highest that was ever committed on this box."""

    version: str = ""
    epoch: int = 0

    def raised(self, version: str, epoch: int) -> Floor:
        """Return the floor after this was committed."""
        higher = version if key_or_lowest(version) > key_or_lowest(self.version) else self.version
        return Floor(higher, max(self.epoch, epoch))


def key_or_lowest(version: str) -> VersionKey:
    """Return what a version is compared by; a text that is none comes before all others."""
    try:
        return version_key(version)
    except MalformedError:
        return _LOWEST


def judge_release(release: FirmwareRelease, *, board: str, running: str, floor: Floor) -> None:
    """Check that this box may go to a release.

    Raises:
        UpdateRefusedError: It is for another board, not newer, of too low an epoch, or too far away.
    """
    if release.board != board:
        raise UpdateRefusedError(FirmwareReason.WRONG_BOARD, f"it is for board {release.board}, this is {board}")
    if release.security_epoch < floor.epoch:
        text = f"security epoch {release.security_epoch} is lower than {floor.epoch}, which this box has committed"
        raise UpdateRefusedError(FirmwareReason.EPOCH_TOO_LOW, text)
    for bound in (running, floor.version):
        if version_key(release.version) <= key_or_lowest(bound):
            raise UpdateRefusedError(FirmwareReason.OLDER_VERSION, f"{release.version} is not newer than {bound}")
    if release.min_from and key_or_lowest(running) < version_key(release.min_from):
        text = f"{release.version} needs {release.min_from} first, this box runs {running}"
        raise UpdateRefusedError(FirmwareReason.NEEDS_STEP_BETWEEN, text)


def load_floor(path: Path) -> Floor:
    """Read the floor; one that is lost or damaged is no floor, and the running image's counts alone."""
    try:
        return _parse(json.loads(read_bounded(path, _MAX_BYTES)))
    except FileNotFoundError:
        return Floor()
    except (SetupError, ValueError, KeyError, TypeError, RecursionError, MalformedError) as err:
        logger.warning("%s is not usable: %s", path, err)
        return Floor()


def _parse(body: Any) -> Floor:
    if body["format"] != FORMAT or type(body["epoch"]) is not int or not 0 <= body["epoch"] < 2**31:
        raise ValueError("unknown format")
    return Floor(check_firmware_version(body["version"]) if body["version"] else "", body["epoch"])


def save_floor(path: Path, floor: Floor) -> None:
    """Write the floor, durably; raises `OSError`."""
    body = {"format": FORMAT, "version": floor.version, "epoch": floor.epoch}
    write_atomic(path, (json.dumps(body, sort_keys=True, separators=(",", ":")) + "\n").encode())
