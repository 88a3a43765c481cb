"""A release on the operator's disk: everything that is published of it, and what later deltas start from.

    DIR/release.json                   the record (`omamori_protocol.firmware_release`)
    DIR/bundle.raucb
    DIR/full.{index,payload}, DIR/from-<version>.{index,payload}
    DIR/notes.{ja,en}.md, DIR/sbom.json, DIR/provenance.json
    DIR/base/                          the image's own files, for deltas to later releases; not published

It appears whole. A delta added later is written first and named in the record afterwards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from datetime import datetime
from pathlib import Path

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import new_directory, read_bounded, write_atomic
from omamori_protocol.errors import ProtocolError
from omamori_protocol.firmware_release import (
    MAX_ATTACHMENT_BYTES,
    MAX_PAYLOADS,
    MAX_RECORD_BYTES,
    NOTE_LANGUAGES,
    FileDigest,
    FirmwareRelease,
    Importance,
    Payload,
    PayloadKind,
    index_target,
    parse_release,
)
from omamori_protocol.firmware_version import check_firmware_version, version_key
from omamori_protocol.segments import MAX_INDEX_BYTES, SegmentIndex

from .artifacts import BOOT, MANIFEST, PACKAGES, ROOT, VERITY, Artifacts, read_artifacts, sha256_file
from .bundle import BUNDLE, Bundle, make_bundle, prove_bundle
from .layout import MappedFile
from .notes import note_name, read_notes
from .payloads import LEVEL, Made, Progress, make_payload, prove_payload
from .programs import Programs
from .provenance import render_statement
from .sbom import read_wheels, render_sbom
from .signing import BundleSigner

RECORD = "release.json"
SBOM = "sbom.json"
PROVENANCE = "provenance.json"
BASE = "base"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """What a release shall be.

    Attributes:
        importance: Whether owners may refuse it.
        min_from: Oldest version that may go to it directly, or empty.
        notes: Language to file.
        wheels: Hash lock of the image's Python packages.
        trust: What images carry to check bundles.
        revision: Revision of the sources, or empty.
        now: When it is made.
        level: How hard its full payload is compressed, 1 to 19; more takes longer and saves bytes of the boxes' lines.
    """

    importance: Importance
    min_from: str
    notes: dict[str, Path]
    wheels: Path
    trust: Path
    revision: str
    now: datetime
    level: int = LEVEL


class ReleaseDirectory:
    """A release on disk, its record read and checked.

    Args:
        path: The directory.

    Raises:
        SetupError: It is not one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / RECORD).is_file():
            raise SetupError(f"{path} is not a release's directory", hint="make one: omamori-ota bundle")
        try:
            self.release = parse_release(read_bounded(path / RECORD, MAX_RECORD_BYTES))
        except ProtocolError as err:
            raise SetupError(f"{path / RECORD} is damaged: {err}") from err

    def file(self, target: str) -> Path:
        """Return the file of a TUF target's path."""
        return self.path / target.rsplit("/", 1)[-1]

    def image(self) -> Artifacts:
        """Return the image that the bundle was made from, checked."""
        return read_artifacts(self.path / BASE)

    def index(self, payload: Payload) -> SegmentIndex:
        """Return a payload's index; raises `SetupError` if it is damaged or belongs to something else."""
        data = read_bounded(self.file(payload.path), MAX_INDEX_BYTES)
        try:
            index = SegmentIndex.decode(data)
        except ProtocolError as err:
            raise SetupError(f"{self.file(payload.path)} is damaged: {err}") from err
        bundle = self.release.bundle
        described = (index.base, index.bundle_sha256.hex(), index.bundle_length, len(data) + index.payload_length)
        if described != (payload.base, bundle.sha256, bundle.length, payload.length):
            raise SetupError(f"{self.file(payload.path)} is not the index of this release", hint="make it again")
        return index

    def check(self) -> None:
        """Check everything that is going to be published against the record; the full payload is unpacked.

        Raises:
            SetupError: Something is missing, or is not what the record says.
            RejectedError: A payload does not become the bundle.
        """
        release = self.release
        digests = {BUNDLE: release.bundle, SBOM: release.sbom, PROVENANCE: release.provenance}
        digests |= {note_name(language): digest for language, digest in release.notes}
        for name, digest in digests.items():
            path = self.path / name
            if sha256_file(path) != digest.sha256 or path.stat().st_size != digest.length:
                raise SetupError(f"{path} is not what the record says", hint="make the release again")
        for payload in release.payloads:
            index = self.index(payload)
            packed = self.payload_file(payload)
            if not packed.is_file() or packed.stat().st_size != index.payload_length:
                raise SetupError(f"{packed} is not what its index says", hint="make it again")
        with MappedFile(self.path / BUNDLE) as bundle:
            prove_payload(self.index(release.full), self.payload_file(release.full), bundle, {})

    def payload_file(self, payload: Payload) -> Path:
        """Return a payload's file."""
        return self.file(payload.path).with_suffix(".payload")

    def _bundle(self) -> Bundle:
        bundle = Bundle.read(self.path / BUNDLE)
        if bundle.sha256 != self.release.bundle.sha256:
            raise SetupError(f"{bundle.path} is not what the record says", hint="make the release again")
        return bundle

    def add_delta(self, base: ReleaseDirectory, progress: Progress) -> Payload:
        """Make the delta from another release to this one and name it in the record.

        Raises:
            RejectedError: It would lead from a release that may not go to this one, or saves nothing.
        """
        old, new = base.release, self.release
        if old.board != new.board:
            raise RejectedError(f"{old.version} is for the board {old.board}, not {new.board}")
        if version_key(old.version) >= version_key(new.version):
            raise RejectedError(f"{old.version} is not older than {new.version}; boxes do not go back")
        if not new.is_reachable_from(old.version):
            raise RejectedError(f"the way from {old.version} to {new.version} leads over {new.min_from}")
        others = [item for item in new.payloads if item.base != old.version]
        if len(others) >= MAX_PAYLOADS:
            raise RejectedError(f"a release has at most {MAX_PAYLOADS} payloads")
        path = index_target(new.board, new.version, old.version)
        target = self.file(path).with_suffix(".payload")
        made = make_payload(self.image(), self._bundle(), target, progress, base.image())
        if made.length >= new.full.length:
            target.unlink()
            raise RejectedError(f"the delta has {made.length} bytes, the full payload {new.full.length}")
        write_atomic(self.file(path), made.index.encode())
        payload = Payload(kind=PayloadKind.DELTA, base=old.version, path=path, length=made.length)
        deltas = sorted([*others[1:], payload], key=lambda item: version_key(item.base), reverse=True)
        self.release = dataclasses.replace(new, payloads=(new.full, *deltas))
        write_atomic(self.path / RECORD, self.release.to_json())
        return payload


def make_release(
    artifacts: Path, out: Path, request: ReleaseRequest, signer: BundleSigner, programs: Programs, progress: Progress
) -> ReleaseDirectory:
    """Make a release from an image's directory.

    Args:
        artifacts: The image's directory.
        out: Directory to make.
        request: What it shall be.
        signer: Signs bundle and provenance.
        programs: Supplies mksquashfs and rauc.
        progress: Told how far the full payload is.

    Raises:
        SetupError: Something is missing, or `out` is occupied.
        RejectedError: A rule forbids the release, or RAUC refuses the bundle.
        ProgramError: A program failed.
    """
    image = read_artifacts(artifacts)
    if request.min_from and version_key(check_firmware_version(request.min_from)) >= version_key(image.version):
        raise RejectedError(f"{request.min_from} is not older than {image.version}")
    notes = {language: read_notes(request.notes[language], language) for language in NOTE_LANGUAGES}
    sbom = render_sbom(image, image.packages(), read_wheels(request.wheels))
    with new_directory(out, mode=0o755) as work:
        bundle = make_bundle(image, work / BUNDLE, signer, programs)
        prove_bundle(bundle.path, image, request.trust, programs)
        made = _make_full(image, bundle, work, progress, request.level)
        files = {note_name(language): data for language, data in notes.items()} | {SBOM: sbom}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        statement = render_statement(image, bundle, digests, request.now, request.revision)
        files[PROVENANCE] = signer.envelope(statement)
        for name, data in files.items():
            write_atomic(work / name, data)
        release = FirmwareRelease(
            board=image.board,
            version=image.version,
            security_epoch=image.security_epoch,
            importance=request.importance,
            min_from=request.min_from,
            bundle=FileDigest(sha256=bundle.sha256, length=bundle.length),
            payloads=(_full_payload(image, made),),
            notes=tuple((language, _digest(files[note_name(language)])) for language in NOTE_LANGUAGES),
            sbom=_digest(sbom),
            provenance=_digest(files[PROVENANCE]),
            released_s=int(request.now.timestamp()),
        )
        (work / BASE).mkdir(mode=0o755)
        for name in (MANIFEST, ROOT, VERITY, BOOT, PACKAGES):
            shutil.copyfile(image.file(name), work / BASE / name)
        write_atomic(work / RECORD, release.to_json())
    return ReleaseDirectory(out)


def _make_full(image: Artifacts, bundle: Bundle, work: Path, progress: Progress, level: int) -> Made:
    made = make_payload(image, bundle, work / "full.payload", progress, None, level=level)
    write_atomic(work / "full.index", made.index.encode())
    return made


def _full_payload(image: Artifacts, made: Made) -> Payload:
    path = index_target(image.board, image.version)
    return Payload(kind=PayloadKind.FULL, base="", path=path, length=made.length)


def _digest(data: bytes) -> FileDigest:
    if len(data) > MAX_ATTACHMENT_BYTES:
        raise SetupError(f"an attachment of {len(data)} bytes")
    return FileDigest(sha256=hashlib.sha256(data).hexdigest(), length=len(data))
