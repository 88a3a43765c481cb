"""What the signed metadata says about the wanted firmware; from the repository or from a stick, with the same checks.

The path of a release follows from board and version, so the desired state names what to look for and the offline-signed
metadata says whether there is such a thing: both are needed. TUF's own rules decide (`omamori_agent.feed.trust`); here
its verdicts become reasons. What a release's fields mean for this box, `floor` judges.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from pathlib import Path

from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from omamori_agent.errors import SetupError
from omamori_agent.feed.metadata_directory import renewed_s, sync_metadata
from omamori_agent.feed.trust import MAX_ROOT_BYTES, TrustLimits, make_updater
from omamori_agent.files import read_bounded
from omamori_agent.ports import Clock
from omamori_protocol.errors import ProtocolError
from omamori_protocol.firmware_release import (
    FirmwareRelease,
    Payload,
    index_target,
    parse_custom,
    payload_target,
    release_target,
)
from omamori_protocol.segments import MAX_INDEX_BYTES, SegmentIndex
from omamori_protocol.vocabulary import FirmwareReason

from .errors import UpdateRefusedError, UpdateWaitsError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PayloadTarget:
    """A payload as signed: where it is, its index, its length in bytes."""

    url: str
    index: SegmentIndex
    index_bytes: bytes
    length: int


class FirmwareRepository:
    """One place where releases come from, seen by one box.

    Args:
        base_url: Address of the repository, without a trailing slash.
        board: The box's board.
        root_file: Root metadata of the image.
        metadata_dir: Where the newest verified metadata is kept; made when missing.
        fetcher: Downloads metadata and indexes.
        clock: Time; never before the image was built.
    """

    def __init__(
        self,
        *,
        base_url: str,
        board: str,
        root_file: Path,
        metadata_dir: Path,
        fetcher: FetcherInterface,
        clock: Clock,
    ) -> None:
        self._base_url = base_url
        self._board = board
        self._root_file = root_file
        self._metadata_dir = metadata_dir
        self._fetcher = fetcher
        self._clock = clock
        self._updater: Updater | None = None

    def release(self, version: str) -> FirmwareRelease:
        """Fetch and verify the newest metadata and return what it says about a version.

        Raises:
            UpdateWaitsError: It could not be asked to the end, or its metadata has expired.
            UpdateRefusedError: Something is not signed as it must be, or there is no such release.
        """
        self._updater = None
        updater = self._client()
        try:
            updater.refresh()
            target = updater.get_targetinfo(release_target(self._board, version))
        except (exceptions.RepositoryError, exceptions.DownloadError, OSError) as err:
            raise _verdict(err, "metadata") from err
        finally:
            sync_metadata(self._metadata_dir)
        if target is None:
            raise UpdateRefusedError(FirmwareReason.NOT_RELEASED, f"{version} is not released for {self._board}")
        self._updater = updater
        try:
            release = parse_custom(target.unrecognized_fields.get("custom"))
        except ProtocolError as err:
            raise UpdateRefusedError(FirmwareReason.METADATA_REFUSED, f"signed target of no release: {err}") from err
        if release.version != version:
            text = f"the target of {version} describes {release.version}"
            raise UpdateRefusedError(FirmwareReason.METADATA_REFUSED, text)
        return release

    def payload(self, release: FirmwareRelease, payload: Payload) -> PayloadTarget:
        """Download a payload's index, verify it, and return where the payload is.

        Raises:
            UpdateWaitsError: It did not arrive.
            UpdateRefusedError: It is not what was signed, or does not belong to this release.
        """
        index_file = self._target(index_target(release.board, release.version, payload.base))
        payload_file = self._target(payload_target(release.board, release.version, payload.base))
        data = self._read(index_file)
        try:
            index = SegmentIndex.decode(data)
        except ProtocolError as err:
            raise _refused(f"index of {release.version}: {err}") from err
        if (index.bundle_sha256.hex(), index.bundle_length) != (release.bundle.sha256, release.bundle.length):
            raise _refused("the index leads to another bundle")
        if index.base != payload.base:
            raise _refused("the index refers to another firmware")
        if index.payload_length != payload_file.length or len(data) + payload_file.length != payload.length:
            raise _refused("the lengths of index, payload and release do not agree")
        folder, _, name = payload_file.path.rpartition("/")
        url = f"{self._base_url}/targets/{folder}/{payload_file.hashes['sha256']}.{name}"
        return PayloadTarget(url, index, data, payload_file.length)

    def _target(self, path: str) -> TargetFile:
        if self._updater is None:
            raise UpdateWaitsError(FirmwareReason.UNREACHABLE, "nothing was asked yet")
        try:
            target = self._updater.get_targetinfo(path)
        except (exceptions.RepositoryError, exceptions.DownloadError, OSError) as err:
            raise _verdict(err, "metadata") from err
        if target is None:
            raise UpdateWaitsError(FirmwareReason.NOT_RELEASED, f"{path} is not in the repository")
        if "sha256" not in target.hashes:
            raise _refused(f"{path} is signed without a SHA-256")
        return target

    def _read(self, target: TargetFile) -> bytes:
        if self._updater is None or target.length > MAX_INDEX_BYTES:
            raise _refused(f"{target.path} has {target.length} bytes")
        path = self._metadata_dir / ".index"  # no role's name: python-tuf does not look at it
        try:
            self._updater.download_target(target, str(path), f"{self._base_url}/targets")
            return read_bounded(path, MAX_INDEX_BYTES)
        except (exceptions.RepositoryError, exceptions.DownloadError, OSError, SetupError) as err:
            raise _verdict(err, "index") from err
        finally:
            path.unlink(missing_ok=True)

    def _client(self) -> Updater:
        try:
            self._metadata_dir.mkdir(mode=0o755, exist_ok=True)
            root = read_bounded(self._root_file, MAX_ROOT_BYTES)
            updater = make_updater(self._metadata_dir, f"{self._base_url}/metadata", root, self._fetcher, TrustLimits())
        except exceptions.RepositoryError as err:
            raise SetupError(f"{self._root_file}: {err}", hint="the image was built with a broken trust root") from err
        except OSError as err:
            raise UpdateWaitsError(FirmwareReason.UNREACHABLE, f"metadata directory: {err.strerror}") from err
        # Never before the image was built, nor before we last accepted new metadata: a dead battery says 1970.
        now_s = max(self._clock.now(), renewed_s(self._metadata_dir))
        updater._trusted_set.reference_time = dt.datetime.fromtimestamp(now_s, dt.UTC)  # noqa: SLF001 - no public way
        return updater


def _refused(text: str) -> UpdateRefusedError:
    return UpdateRefusedError(FirmwareReason.METADATA_REFUSED, text)


def _verdict(err: Exception, what: str) -> UpdateWaitsError | UpdateRefusedError:
    """Return our error for one of TUF's; `what` was being fetched."""
    match err:
        case exceptions.DownloadLengthMismatchError():
            return _refused(f"oversize {what}: {err}")
        case exceptions.DownloadError():
            return UpdateWaitsError(FirmwareReason.UNREACHABLE, f"{what}: {err}")
        case exceptions.ExpiredMetadataError():
            return UpdateWaitsError(FirmwareReason.METADATA_EXPIRED, f"expired metadata: {err}")
        case exceptions.RepositoryError():
            return _refused(f"tampered {what}: {err}")
    return UpdateWaitsError(FirmwareReason.UNREACHABLE, f"{what}: {getattr(err, 'strerror', None) or err}")
