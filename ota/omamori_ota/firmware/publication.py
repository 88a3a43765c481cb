"""Publishes releases under the firmware role, which no single person and no online machine can sign for.

1. `stage` (publisher): checks a release and writes what shall be signed: the next version of the role, unsigned.
2. `sign` (each key's owner, on a machine of their own): shows what it is, adds one signature to that file.
3. `release` (publisher): checks that it is what was staged and that enough owners have signed, puts the files into the
   repository, then signs snapshot and timestamp, which makes it visible.

Refused: a version that is not higher than what is published for the board, a lower security epoch, other bytes under a
published version, and metadata that was staged from an older state of the role.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, TargetFile, Targets

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import make_public_directory, read_bounded, write_atomic
from omamori_ota.metadata import parse, to_bytes
from omamori_ota.repository import MAX_METADATA_BYTES, Current, Published, Repository
from omamori_ota.roles import FIRMWARE, TARGETS
from omamori_protocol.durable import sync_directory, temporary_beside
from omamori_protocol.errors import ProtocolError
from omamori_protocol.firmware_release import (
    FirmwareRelease,
    Payload,
    attachment_target,
    parse_custom,
    release_target,
)
from omamori_protocol.firmware_version import version_key

from .notes import note_name
from .release_directory import PROVENANCE, RECORD, SBOM, ReleaseDirectory
from .signatures import load_public_key

KEPT_RELEASES = 8  # per board; older ones leave the repository, unless a newer one can only be reached over them
_CHUNK = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged:
    """What waits for signatures.

    Attributes:
        version: Version of the firmware role.
        expires: When it ends.
        releases: All releases that it names.
        signed: Key ids that have signed.
        threshold: How many must.
    """

    version: int
    expires: str
    releases: tuple[FirmwareRelease, ...]
    signed: tuple[str, ...]
    threshold: int


class FirmwareRepository(Repository):
    """A repository into which releases are published."""

    def releases(self) -> tuple[FirmwareRelease, ...]:
        """Return what is published, by board and version.

        Raises:
            SetupError: The repository is not one, or not signed by these keys.
        """
        return releases_of(self._load().delegated[FIRMWARE].signed)

    def stage(self, directory: ReleaseDirectory, out: Path) -> Staged:
        """Check a release and write what its owners have to sign.

        Args:
            directory: The release.
            out: File to write.

        Raises:
            RejectedError: A rule of the module forbids it.
            SetupError: The release or the repository is damaged.
            TransientError: Another publisher is at work.
        """
        directory.check()
        with self.changing() as current:
            metadata = self._next(current, directory)
            write_atomic(out, to_bytes(metadata))
            return self._describe(current, metadata)

    def release(self, directory: ReleaseDirectory, signed: Path) -> Published:
        """Make a staged and signed release visible.

        Args:
            directory: The release.
            signed: The staged file with its signatures.

        Raises:
            RejectedError: Too few have signed, something else was signed, or the repository has moved on.
            SetupError: The release or the repository is damaged.
            TransientError: Another publisher is at work.
        """
        metadata = parse(Targets, read_bounded(signed, MAX_METADATA_BYTES), str(signed))
        directory.check()
        with self.changing() as current:
            expected = self._next(current, directory)
            expected.signed.expires = metadata.signed.expires
            if metadata.signed != expected.signed:
                raise RejectedError(
                    "what was signed is not what would be published now",
                    hint="the repository or the release has changed: stage it again, and have it signed again",
                )
            self._check_expiry(metadata.signed)
            self._check_threshold(current, metadata)
            for path, source in self._files(directory):
                self._store(metadata.signed.targets[path], source)
            current.delegated[FIRMWARE] = metadata
            write_atomic(self._metadata / f"{metadata.signed.version}.{FIRMWARE}.json", to_bytes(metadata))
            current.snapshot.signed.meta[f"{FIRMWARE}.json"].version = metadata.signed.version
            versions = {FIRMWARE: metadata.signed.version} | self.sign_delegated(current, [])
            self._prune(metadata.signed)
        return Published(versions=versions)

    def describe(self, staged: Path) -> Staged:
        """Return what waits in a staged file.

        Raises:
            SetupError: It is not one.
        """
        with self.changing() as current:
            return self._describe(current, parse(Targets, read_bounded(staged, MAX_METADATA_BYTES), str(staged)))

    def add_owner(self, key_file: Path) -> Published:
        """Let one more key sign firmware; the threshold stays.

        Raises:
            RejectedError: It may already.
            SetupError: It is not a public key, or the repository is damaged.
        """
        key = load_public_key(key_file)
        with self.changing() as current:
            if key.keyid in self._keyids(current.targets.signed, FIRMWARE):
                raise RejectedError("that key may sign firmware already")
            current.targets.signed.add_key(key, FIRMWARE)
            version = self._sign_versioned(current, TARGETS, current.targets)
            current.snapshot.signed.meta[f"{TARGETS}.json"].version = version
            return Published(versions={TARGETS: version} | self.sign_delegated(current, []))

    def _next(self, current: Current, directory: ReleaseDirectory) -> Metadata[Targets]:
        """Return the role's next version with a release in it, unsigned."""
        release = directory.release
        before = current.delegated[FIRMWARE].signed
        published = [item for item in releases_of(before) if item.board == release.board]
        _check_order(release, published)
        self._check_delegation(current, release)
        version = before.version + 1
        while (self._metadata / f"{version}.{FIRMWARE}.json").exists():  # left by a cut
            version += 1
        targets = {path: target for path, target in before.targets.items() if not _is_dropped(path, release, published)}
        for path, source in self._files(directory):
            targets[path] = TargetFile.from_file(path, str(source), ["sha256"])
        targets[release_target(release.board, release.version)].unrecognized_fields["custom"] = release.to_custom()
        expires = self._clock() + self._lifetimes.of(FIRMWARE)
        return Metadata(Targets(version=version, expires=expires, targets=targets))

    @staticmethod
    def _files(directory: ReleaseDirectory) -> list[tuple[str, Path]]:
        """Return target paths and their files; the record comes last."""
        release = directory.release
        board, version = release.board, release.version
        names = [note_name(language) for language, _ in release.notes] + [SBOM, PROVENANCE]
        files = [(attachment_target(board, version, name), directory.path / name) for name in names]
        for payload in release.payloads:
            files.append((payload.path, directory.file(payload.path)))
            files.append((payload_path(payload), directory.payload_file(payload)))
        return [*files, (release_target(board, version), directory.path / RECORD)]

    def _store(self, target: TargetFile, source: Path) -> None:
        """Copy a target's bytes into the repository under the name that its digest gives."""
        place = self.place(target)
        make_public_directory(place.parent)
        temporary = temporary_beside(place)
        with source.open("rb") as stream, temporary.open("wb") as out:
            os.fchmod(out.fileno(), 0o644)
            shutil.copyfileobj(stream, out, _CHUNK)
            out.flush()
            os.fsync(out.fileno())
        with temporary.open("rb") as stream:  # it may have been changed since it was staged
            try:
                target.verify_length_and_hashes(stream)
            except RepositoryError as err:
                temporary.unlink()
                raise RejectedError(f"{source} has changed") from err
        temporary.replace(place)
        sync_directory(place.parent)

    def _check_delegation(self, current: Current, release: FirmwareRelease) -> None:
        delegations = current.targets.signed.delegations
        role = delegations.roles[FIRMWARE] if delegations and delegations.roles else None
        if role is None or not role.is_delegated_path(release_target(release.board, release.version)):
            raise SetupError(
                "the repository was made before firmware could be published into it",
                hint="omamori-ota refresh --offline KEYS REPO",
            )

    def _check_expiry(self, signed: Targets) -> None:
        latest = self._clock() + self._lifetimes.of(FIRMWARE)
        if not self._clock() < signed.expires <= latest:
            raise RejectedError("what was signed has expired, or is valid for too long", hint="stage it again")

    def _check_threshold(self, current: Current, metadata: Metadata[Targets]) -> None:
        try:
            current.targets.signed.verify_delegate(FIRMWARE, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as err:
            done = self._describe(current, metadata)
            raise RejectedError(
                f"{len(done.signed)} of {done.threshold} signatures",
                hint="omamori-ota firmware sign, by another person with another key",
            ) from err

    def _describe(self, current: Current, metadata: Metadata[Targets]) -> Staged:
        result = current.targets.signed.get_verification_result(FIRMWARE, metadata.signed_bytes, metadata.signatures)
        return Staged(
            version=metadata.signed.version,
            expires=metadata.signed.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            releases=releases_of(metadata.signed),
            signed=tuple(sorted(result.signed)),
            threshold=result.threshold,
        )

    def _prune(self, signed: Targets) -> None:
        """Remove the files of releases that are not published any more."""
        used = {self.place(target) for target in signed.targets.values()}
        for path in sorted((self._targets / FIRMWARE).rglob("*"), reverse=True):
            if path.is_file() and path not in used:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def add_signature(staged: Path, signer: Signer) -> FirmwareRelease | None:
    """Add one signature to a staged file.

    It needs nothing but the file and the key, so that it can be done on a machine without a network.

    Returns:
        The newest release in it, or None when there is none.

    Raises:
        RejectedError: This key has signed it already, or cannot sign.
        SetupError: It is not a staged file.
    """
    metadata = parse(Targets, read_bounded(staged, MAX_METADATA_BYTES), str(staged))
    if signer.public_key.keyid in metadata.signatures:
        raise RejectedError("this key has signed it already", hint="another person has to, with another key")
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as err:
        raise RejectedError(f"this key cannot sign: {err}") from err
    write_atomic(staged, to_bytes(metadata))
    found = releases_of(metadata.signed)
    return max(found, key=lambda item: item.released_s, default=None)


def staged_releases(staged: Path) -> tuple[FirmwareRelease, ...]:
    """Return the releases that a staged file names; raises `SetupError` if it is not one."""
    return releases_of(parse(Targets, read_bounded(staged, MAX_METADATA_BYTES), str(staged)).signed)


def releases_of(signed: Targets) -> tuple[FirmwareRelease, ...]:
    """Return the releases that metadata names, by board and version.

    Raises:
        SetupError: A record in it is damaged, or stands at another release's place.
    """
    found = []
    for path, target in signed.targets.items():
        if not path.endswith(f"/{RECORD}"):
            continue
        try:
            release = parse_custom(target.unrecognized_fields.get("custom"))
            if path != release_target(release.board, release.version):
                raise SetupError(f"{path} describes {release.board} {release.version}")
        except ProtocolError as err:
            raise SetupError(f"{path} is not described as a release: {err}") from err
        found.append(release)
    return tuple(sorted(found, key=lambda item: (item.board, version_key(item.version))))


def payload_path(payload: Payload) -> str:
    """Return the TUF target path of a payload, from its index's."""
    return payload.path.removesuffix(".index") + ".payload"


def _check_order(release: FirmwareRelease, published: Sequence[FirmwareRelease]) -> None:
    for other in published:
        if other.version == release.version:
            is_same = other == release
            raise RejectedError(
                f"{release.version} is published already, {'the same' if is_same else 'with other bytes'}",
                hint="nothing to do" if is_same else "a version is never used again: build it with the next one",
            )
        if version_key(other.version) > version_key(release.version):
            raise RejectedError(
                f"{release.version} is lower than the published {other.version}",
                hint="to go back, release the old content under a higher version",
            )
        if other.security_epoch > release.security_epoch:
            raise RejectedError(
                f"security epoch {release.security_epoch} is lower than {other.security_epoch} of {other.version}",
                hint="boxes that have seen the higher one would refuse it for good",
            )


def _is_dropped(path: str, release: FirmwareRelease, published: Sequence[FirmwareRelease]) -> bool:
    """Tell whether a target belongs to a release that is too old to be kept beside a new one."""
    newest = sorted(published, key=lambda item: version_key(item.version), reverse=True)
    kept = {item.version for item in newest[: KEPT_RELEASES - 1]}
    needed = {item.min_from for item in (release, *newest[: KEPT_RELEASES - 1])}
    return _release_of(path) in {(item.board, item.version) for item in newest if item.version not in kept | needed}


def _release_of(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return (parts[1], parts[2]) if len(parts) == 4 else ("", "")
