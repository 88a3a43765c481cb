"""Gets a bundle: bytes of a payload in batches, each unpacked before the next is fetched.

What came is kept, to the byte: after a cut, a stop or a restart the next request begins where the last bytes lie, and
the bundle grows by whole segments only. A segment that does not become what the index says is fetched again, a few
times. After a power cut every segment is looked at once more. Only a bundle with the release's own digest is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from omamori_agent import run as process
from omamori_agent.errors import SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_protocol.desired import Metered
from omamori_protocol.firmware_release import FirmwareRelease, Payload, PayloadKind
from omamori_protocol.segments import MAX_INDEX_BYTES, MAX_PACKED_BYTES, Place
from omamori_protocol.vocabulary import FirmwareReason

from .answer import INDEX_NAME, PACKED_PREFIX, Answer, parse_answer
from .errors import UpdateInterruptedError, UpdateRefusedError, UpdateWaitsError
from .limits import FirmwareLimits
from .release import PayloadTarget
from .store import FirmwareStore
from .stream import PayloadStream, RateCap

logger = logging.getLogger(__name__)

_SYNC_BYTES = 1024 * 1024
_MIB = 1024 * 1024
_MODULE = "omamori_agent.firmware.apply"

Runner = Callable[[Sequence[str], threading.Event], process.CommandResult]


def choose_payload(
    release: FirmwareRelease, *, running: str, metered: Metered, can_use_delta: bool, is_free: bool
) -> Payload:
    """Return which payload to fetch.

    Args:
        release: The release.
        running: Version of the running image.
        metered: What the desired state says about fetching a whole firmware.
        can_use_delta: False when the difference has already turned out not to fit.
        is_free: Whether fetching costs nothing (a stick).

    Raises:
        UpdateWaitsError: Only the whole firmware would do, and nobody has allowed that.
    """
    delta = release.delta_from(running) if can_use_delta else None
    if delta is not None and delta.length < release.full.length:
        return delta
    if metered is Metered.ALLOW or is_free:
        return release.full
    size = f"a whole firmware of {release.full.length // _MIB + 1} MiB"
    text = f"{size} would have to be fetched; that is never allowed here"
    if metered is Metered.ASK:
        text = f"{size} has to be fetched; somebody has to allow that"
    raise UpdateWaitsError(FirmwareReason.NEEDS_PERMISSION, text)


class DeltaUnusableError(TransientError):
    """The difference does not fit what this box runs; the whole firmware may."""


class BundleFetcher:
    """Makes the bundle in the store; one thread uses it.

    Args:
        store: Where it grows.
        devices: Root file system and boot partition of the running slot, to which a difference refers.
        limits: Bounds.
        run: Starts that process; a parameter for tests.
    """

    def __init__(
        self,
        store: FirmwareStore,
        devices: tuple[Path, Path],
        limits: FirmwareLimits,
        *,
        run: Runner | None = None,
    ) -> None:
        self._store = store
        self._devices = devices
        self._limits = limits
        self._run = run or self._start
        self._scanned = b""

    def obtain(
        self, target: PayloadTarget, payload: Payload, stream: PayloadStream, cap: RateCap, stop: threading.Event
    ) -> None:
        """Make the bundle whole.

        Args:
            target: What was signed about the payload.
            payload: Which one it is.
            stream: Reads it.
            cap: Holds it back, and ends it when something else is wanted.
            stop: Ends a process that unpacks.

        Raises:
            UpdateWaitsError: It did not come to the end; what came stays.
            DeltaUnusableError: The difference does not fit; what it made of the bundle is discarded.
            UpdateRefusedError: The whole payload does not become what was signed; everything is discarded.
            UpdateInterruptedError: The work shall end.
        """
        self._prepare(target, stop)
        tries: dict[int, int] = {}
        answer = self._apply(stop, "unpack")
        while not answer.is_whole:
            if answer.bad is None:
                self._fetch_batch(target, stream, cap, answer.have)
            else:
                tries[answer.bad] = tries.get(answer.bad, 0) + 1
                logger.warning("firmware: %s", answer.error)
                is_computed = target.index.segments[answer.bad].is_computed  # from what was checked: no use to repeat
                if is_computed or tries[answer.bad] >= self._limits.segment_tries:
                    self._give_up(payload, answer.error)
                self._fetch_again(target, stream, cap, answer.bad)
            answer = self._apply(stop, "unpack")
        self._drop_packed()
        self._check_whole(target, payload, stop)

    def can_refer(self) -> bool:
        """Tell whether what runs can be read, which a difference needs."""
        return all(os.access(device, os.R_OK) for device in self._devices)

    def is_whole(self, sha256: str, length: int, stop: threading.Event) -> bool:
        """Tell whether the bundle that lies there is this one."""
        return self._apply(stop, "verify", sha256, str(length)).is_whole

    def _prepare(self, target: PayloadTarget, stop: threading.Event) -> None:
        """Begin anew unless what lies there belongs to this index; look at all of it once in each run of the agent."""
        path = self._store.download / INDEX_NAME
        try:
            present = read_bounded(path, MAX_INDEX_BYTES)
        except (FileNotFoundError, SetupError):
            present = b""
        if present != target.index_bytes:
            self._store.discard()
        have = self._store.bundle.stat().st_size if self._store.bundle.exists() else 0
        self._store.check_space(target.index.bundle_length - have + self._limits.batch_bytes + MAX_PACKED_BYTES)
        if present != target.index_bytes:
            try:
                write_atomic(path, target.index_bytes)
            except OSError as err:
                raise UpdateWaitsError(FirmwareReason.NO_SPACE, f"index not written: {err.strerror or err}") from err
        digest = hashlib.sha256(target.index_bytes).digest()
        if digest != self._scanned:
            self._apply(stop, "scan")
            self._scanned = digest

    def _check_whole(self, target: PayloadTarget, payload: Payload, stop: threading.Event) -> None:
        if self.is_whole(target.index.bundle_sha256.hex(), target.index.bundle_length, stop):
            return
        self._scanned = b""
        if not self._apply(stop, "scan").is_whole:
            raise UpdateWaitsError(
                FirmwareReason.PAYLOAD_REFUSED, "the disk does not keep the bundle as it was written"
            )
        self._give_up(payload, "the segments do not make up the signed bundle")

    def _give_up(self, payload: Payload, text: str) -> None:
        self._store.discard()
        if payload.kind is PayloadKind.DELTA:
            raise DeltaUnusableError(text)
        raise UpdateRefusedError(FirmwareReason.PAYLOAD_REFUSED, text)

    def _fetch_batch(self, target: PayloadTarget, stream: PayloadStream, cap: RateCap, have: int) -> None:
        """Fetch until a batch of whole segments lies there."""
        place = target.index.resume(have)
        assert place is not None
        path = self._packed_path(place)
        at = place.payload_offset + (path.stat().st_size if path.exists() else 0)
        end = self._batch_end(target, place)
        if at >= end:  # whole segments would have been unpacked by now: whatever this is, it is not the payload
            path.unlink(missing_ok=True)
            at = place.payload_offset
        with _told_as_waiting(), path.open("ab") as file:
            _copy(stream.read(target.url, at, end, target.length), file, cap)

    def _fetch_again(self, target: PayloadTarget, stream: PayloadStream, cap: RateCap, number: int) -> None:
        """Replace the bytes of one segment among those that lie there."""
        place = target.index.places()[number]
        path = next(self._store.download.glob(f"{PACKED_PREFIX}*"))
        end = place.payload_offset + place.segment.packed
        with _told_as_waiting(), path.open("r+b") as file:
            file.seek(place.payload_offset - int(path.name.removeprefix(PACKED_PREFIX)))
            _copy(stream.read(target.url, place.payload_offset, end, target.length), file, cap)

    def _batch_end(self, target: PayloadTarget, first: Place) -> int:
        end = first.payload_offset
        for place in target.index.places()[first.number :]:
            end = place.payload_offset + place.segment.packed
            if end - first.payload_offset >= self._limits.batch_bytes:
                break
        return end

    def _packed_path(self, place: Place) -> Path:
        """Return the file for bytes from this segment on; one that begins elsewhere is of no use any more."""
        path = self._store.download / f"{PACKED_PREFIX}{place.payload_offset}"
        for other in self._store.download.glob(f"{PACKED_PREFIX}*"):
            if other == path:
                continue
            start = int(other.name.removeprefix(PACKED_PREFIX))
            if start < place.payload_offset < start + other.stat().st_size:
                _keep_tail(other, path, place.payload_offset - start)  # the beginning is in the bundle by now
            other.unlink()
        return path

    def _drop_packed(self) -> None:
        for path in self._store.download.glob(f"{PACKED_PREFIX}*"):
            path.unlink()

    def _apply(self, stop: threading.Event, *command: str) -> Answer:
        line = [sys.executable, "-IOO", "-m", _MODULE, str(self._store.directory)]
        line += [*map(str, self._devices), *command]
        try:
            result = self._run(line, stop)
            lines = result.output.strip().splitlines()
            answer = parse_answer(lines[-1] if lines else "")
        except process.CommandInterruptedError as err:
            raise UpdateInterruptedError("the agent is stopping") from err
        except (process.CommandError, ValueError) as err:
            raise UpdateWaitsError(FirmwareReason.PAYLOAD_REFUSED, f"unpacking: {err}") from err
        if result.exit_code != 0:
            raise UpdateWaitsError(FirmwareReason.PAYLOAD_REFUSED, f"unpacking ended with {result.exit_code}")
        if answer.error and answer.bad is None and command[0] != "verify":
            raise UpdateWaitsError(FirmwareReason.PAYLOAD_REFUSED, f"unpacking: {answer.error}")
        return answer

    def _start(self, line: Sequence[str], stop: threading.Event) -> process.CommandResult:
        return process.run(line, timeout_s=self._limits.apply_timeout_s, stop=stop, is_first_to_go=True)


@contextlib.contextmanager
def _told_as_waiting() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise UpdateWaitsError(FirmwareReason.NO_SPACE, f"payload not written: {err.strerror or err}") from err


def _copy(chunks: Iterable[bytes], file: BinaryIO, cap: RateCap) -> None:
    """Write what comes; what came is on the disk, also when it ends early."""
    unsynced = 0
    try:
        for chunk in chunks:
            file.write(chunk)
            unsynced += len(chunk)
            if unsynced >= _SYNC_BYTES:
                file.flush()
                os.fdatasync(file.fileno())
                unsynced = 0
            cap.spend(len(chunk))
    finally:
        file.flush()
        os.fdatasync(file.fileno())


def _keep_tail(source: Path, target: Path, offset: int) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        old.seek(offset)
        while chunk := old.read(_SYNC_BYTES):
            new.write(chunk)
