"""What the repository may make us believe: the one place where TUF is used.

The trust anchor is the root metadata in the verified image. The client's own rules (python-tuf) do the deciding;
this module gives them tight limits, the right clock and our fetcher, and turns their verdicts into our errors with a
reason an operator understands. Packs are not opened here, and nothing here remembers a serial.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
from pathlib import Path

from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded
from omamori_agent.ports import Clock
from omamori_protocol.errors import MalformedError
from omamori_protocol.feed_offer import FeedOffer, OfferedIncrement, increment_target, parse_offer
from omamori_protocol.feed_pack import MAX_PACK_BYTES
from omamori_protocol.rings import is_reached
from omamori_protocol.topics import candidate_target, feed_target

from .errors import FeedRefusedError, MetadataExpiredError, RepositoryUnavailableError
from .metadata_directory import renewed_s, sync_metadata

logger = logging.getLogger(__name__)

MAX_ROOT_BYTES = 64 * 1024
MAX_TIMESTAMP_BYTES = 8 * 1024
MAX_SNAPSHOT_BYTES = 64 * 1024
MAX_TARGETS_BYTES = 256 * 1024
MAX_ROOT_ROTATIONS = 32
MAX_DELEGATIONS = 8
_ROLES = ("root", "timestamp", "snapshot", "targets", "feed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrustLimits:
    """How much of everything the client looks at; the defaults are those of the product."""

    root_bytes: int = MAX_ROOT_BYTES
    timestamp_bytes: int = MAX_TIMESTAMP_BYTES
    snapshot_bytes: int = MAX_SNAPSHOT_BYTES
    targets_bytes: int = MAX_TARGETS_BYTES
    root_rotations: int = MAX_ROOT_ROTATIONS
    delegations: int = MAX_DELEGATIONS


def make_updater(
    metadata_dir: Path, metadata_url: str, root: bytes, fetcher: FetcherInterface, limits: TrustLimits
) -> Updater:
    """Return python-tuf's client, bounded, with `root` as its anchor.

    Raises:
        tuf.api.exceptions.RepositoryError: `root` is no root.
        OSError: The directory cannot be used.
    """
    config = UpdaterConfig(
        max_root_rotations=limits.root_rotations,
        max_delegations=limits.delegations,
        root_max_length=limits.root_bytes,
        timestamp_max_length=limits.timestamp_bytes,
        snapshot_max_length=limits.snapshot_bytes,
        targets_max_length=limits.targets_bytes,
    )
    return Updater(
        metadata_dir=str(metadata_dir),
        metadata_base_url=metadata_url,
        fetcher=fetcher,
        config=config,
        bootstrap=root,
    )


@dataclasses.dataclass(frozen=True)
class FeedTarget:
    """The pack that the repository names for this box, as signed: offer, size in bytes, SHA-256.

    `newest` is the newest serial it names in our channel; a candidate of it may be for other boxes only.
    """

    offer: FeedOffer
    size: int
    sha256: str
    newest: int

    @property
    def serial(self) -> int:
        """Its serial."""
        return self.offer.serial


class FeedRepository:
    """The TUF repository, seen by one box.

    Args:
        base_url: Address of the repository, without a trailing slash.
        device: The box, which decides with the channel whether a candidate is meant for it.
        channel: Feed channel of the box.
        root_file: Root metadata of the image.
        metadata_dir: Where the newest verified metadata is kept; made when missing.
        fetcher: Downloads.
        clock: Time; never before the image was built.
    """

    def __init__(
        self,
        *,
        base_url: str,
        device: str,
        channel: str,
        root_file: Path,
        metadata_dir: Path,
        fetcher: FetcherInterface,
        clock: Clock,
    ) -> None:
        self._base_url = base_url
        self._device = device
        self._channel = channel
        self._target_path = feed_target(channel)
        self._root_file = root_file
        self._metadata_dir = metadata_dir
        self._fetcher = fetcher
        self._clock = clock
        self._updater: Updater | None = None
        self._target: TargetFile | None = None

    def follow(self, channel: str) -> None:
        """Ask for another channel from the next `refresh` on."""
        self._channel = channel
        self._target_path = feed_target(channel)

    def refresh(self) -> FeedTarget:
        """Fetch and verify the newest metadata and return what it names.

        Raises:
            RepositoryUnavailableError: It could not be asked to the end, or has no pack for our channel.
            MetadataExpiredError: Its newest metadata is too old.
            FeedRefusedError: Something is not signed as it must be, older than what we have seen, or too large.
        """
        self._updater = self._target = None
        before = renewed_s(self._metadata_dir)
        updater = self._client()
        try:
            updater.refresh()
            target = updater.get_targetinfo(self._target_path)
            candidate = updater.get_targetinfo(candidate_target(self._channel))
        except (exceptions.RepositoryError, exceptions.DownloadError, OSError) as err:
            raise _refusal(err, "metadata", _expired_role(updater)) from err
        finally:
            if renewed_s(self._metadata_dir) != before:
                sync_metadata(self._metadata_dir)
        if target is None:
            raise RepositoryUnavailableError("the repository has no feed for this channel")
        found = _read_target(target)
        if candidate is not None:
            tried = _read_candidate(candidate)
            if tried is not None and tried.serial > found.serial:
                found = dataclasses.replace(found, newest=tried.serial)
                if is_reached(self._device, self._channel, tried.offer.permille):
                    target, found = candidate, tried
        self._updater, self._target = updater, target
        return found

    def download(self, path: Path) -> None:
        """Download what the last `refresh` named and verify it.

        Raises:
            RepositoryUnavailableError: It did not arrive.
            FeedRefusedError: It is not what was signed; nothing is at `path`.
        """
        if self._updater is None or self._target is None:
            raise RepositoryUnavailableError("nothing was named yet")
        try:
            self._updater.download_target(self._target, str(path), f"{self._base_url}/targets")
        except (exceptions.RepositoryError, exceptions.DownloadError, OSError) as err:
            path.unlink(missing_ok=True)
            raise _refusal(err, "pack", None) from err

    def download_increment(self, increment: OfferedIncrement, path: Path) -> None:
        """Download one of the increments that the last `refresh` named and verify it.

        Raises:
            RepositoryUnavailableError: It did not arrive, or is not there any more.
            FeedRefusedError: It is not what was signed; nothing is at `path`.
        """
        if self._updater is None:
            raise RepositoryUnavailableError("nothing was named yet")
        what = f"increment {increment.start}-{increment.goal}"
        try:
            target = self._updater.get_targetinfo(increment_target(self._channel, increment.start, increment.goal))
            if target is None:
                raise RepositoryUnavailableError(f"{what} is not in the repository")
            if target.length != increment.size:
                raise FeedRefusedError(f"{what} has {target.length} bytes, the offer says {increment.size}")
            self._updater.download_target(target, str(path), f"{self._base_url}/targets")
        except (exceptions.RepositoryError, exceptions.DownloadError, OSError) as err:
            path.unlink(missing_ok=True)
            raise _refusal(err, what, None) from err

    def expired(self) -> str | None:
        """Return the reason if the newest metadata we have has expired by now, without asking anybody."""
        try:
            body = json.loads(read_bounded(self._metadata_dir / "timestamp.json", MAX_TIMESTAMP_BYTES))
            expires = dt.datetime.strptime(body["signed"]["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
        except (FileNotFoundError, SetupError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return _expired_text("timestamp", expires) if expires <= self._now() else None

    def _client(self) -> Updater:
        try:
            self._metadata_dir.mkdir(mode=0o755, exist_ok=True)
            root = read_bounded(self._root_file, MAX_ROOT_BYTES)
        except OSError as err:
            raise RepositoryUnavailableError(f"{err.filename}: {err.strerror}") from err
        try:
            updater = make_updater(self._metadata_dir, f"{self._base_url}/metadata", root, self._fetcher, TrustLimits())
        except exceptions.RepositoryError as err:
            raise SetupError(f"{self._root_file}: {err}", hint="the image was built with a broken trust root") from err
        except OSError as err:
            raise RepositoryUnavailableError(f"metadata directory: {err.strerror}") from err
        # python-tuf asks the system's clock, which a dead battery puts back to before the metadata was made.
        updater._trusted_set.reference_time = self._now()  # noqa: SLF001 - it has no public way to give the time
        return updater

    def _now(self) -> dt.datetime:
        """Return the time: never before the image was built, nor before we last accepted new metadata."""
        return dt.datetime.fromtimestamp(max(self._clock.now(), renewed_s(self._metadata_dir)), dt.UTC)


def _read_target(target: TargetFile) -> FeedTarget:
    try:
        offer = parse_offer(target.unrecognized_fields.get("custom"))
    except MalformedError as err:
        raise FeedRefusedError(f"signed target that offers no feed: {err}") from err
    serial = offer.serial
    if target.length > MAX_PACK_BYTES:
        raise FeedRefusedError(f"serial {serial}: pack of {target.length} bytes, allowed {MAX_PACK_BYTES}")
    sha256 = target.hashes.get("sha256")
    if sha256 is None:
        raise FeedRefusedError(f"serial {serial}: signed without a SHA-256")
    return FeedTarget(offer, target.length, sha256, newest=serial)


def _read_candidate(target: TargetFile) -> FeedTarget | None:
    try:
        return _read_target(target)
    except FeedRefusedError as err:  # the channel's own pack is as good as before
        logger.warning("candidate passed over: %s", err)
        return None


def _expired_role(updater: Updater) -> str | None:
    """Return which of the roles loaded so far has expired, with its time."""
    trusted = updater._trusted_set  # noqa: SLF001 - the error does not say which role, nor when
    for role in _ROLES:
        signed = trusted.get(role)
        if signed is not None and signed.is_expired(trusted.reference_time):
            return _expired_text(role, signed.expires)
    return None


def _expired_text(role: str, expires: dt.datetime) -> str:
    return f"expired metadata: {role} expired {expires:%Y-%m-%dT%H:%MZ}"


def _refusal(  # noqa: PLR0911 - one line for each verdict
    err: Exception, what: str, expired: str | None
) -> FeedRefusedError | RepositoryUnavailableError:
    """Return our error for one of TUF's; `what` was being fetched."""
    match err:
        case exceptions.DownloadLengthMismatchError():
            return FeedRefusedError(f"oversize {what}: {err}")
        case exceptions.SlowRetrievalError():
            return RepositoryUnavailableError(f"{what}: download too slow")
        case exceptions.DownloadError():
            return RepositoryUnavailableError(f"{what}: {err}")
        case exceptions.ExpiredMetadataError():
            return MetadataExpiredError(expired or f"expired metadata: {err}")
        case exceptions.BadVersionNumberError():
            return FeedRefusedError(f"rollback: {err}")
        case exceptions.RepositoryError():
            return FeedRefusedError(f"tampered {what}: {err}")
        case _:
            return RepositoryUnavailableError(f"{what}: {getattr(err, 'strerror', None) or err}")
