"""What a firmware release says about itself: the signed description by which a box chooses and checks.

The record is the content of the TUF target `release_target` and, once more, that target's custom data. JSON in
canonical form, every part bounded, nothing unknown accepted: a box acts on it. Paths are not free text; they follow
from board and version. Pure values; fetching and deciding are the box's part, signing is the operator's.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from .errors import MalformedError, OversizeError, UnknownVersionError
from .firmware_version import check_firmware_version, version_key

FORMAT = 1
MAX_RECORD_BYTES = 32 * 1024
MAX_BUNDLE_BYTES = 2**30
MAX_PAYLOAD_BYTES = 2**30
MAX_ATTACHMENT_BYTES = 4 * 1024 * 1024
MAX_NOTES_BYTES = 16 * 1024
MAX_PAYLOADS = 16
MAX_EPOCH = 2**31 - 1
MAX_TIME_S = 2**40
NOTE_LANGUAGES = ("ja", "en")

E = TypeVar("E", bound=StrEnum)

_BOARD = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Importance(StrEnum):
    """What an owner may decide: an important update is installed, a scheduled one may be refused."""

    IMPORTANT = "important"
    SCHEDULED = "scheduled"


class PayloadKind(StrEnum):
    """What a payload needs: nothing, or the root file system and boot partition of an older release."""

    FULL = "full"
    DELTA = "delta"


def check_board(board: str) -> str:
    """Return `board` if it can be a board's name; raises `MalformedError` otherwise."""
    if not isinstance(board, str) or not _BOARD.fullmatch(board):
        raise MalformedError(f"not a board: {str(board)[:40]!r}", hint="for example x86_64-uefi")
    return board


def compatible(board: str) -> str:
    """Return the name by which RAUC tells whether a bundle is for a board."""
    return f"omamori-{check_board(board)}"


def release_target(board: str, version: str) -> str:
    """Return the TUF target path of a release's record."""
    return f"firmware/{check_board(board)}/{check_firmware_version(version)}/release.json"


def index_target(board: str, version: str, base: str = "") -> str:
    """Return the TUF target path of a payload's index; `base` is the version a delta starts from."""
    return f"{_payload_stem(board, version, base)}.index"


def payload_target(board: str, version: str, base: str = "") -> str:
    """Return the TUF target path of a payload; `base` is the version a delta starts from."""
    return f"{_payload_stem(board, version, base)}.payload"


def attachment_target(board: str, version: str, name: str) -> str:
    """Return the TUF target path of something that goes with a release: ``notes.ja.md`` or ``sbom.json``."""
    return f"firmware/{check_board(board)}/{check_firmware_version(version)}/{name}"


def _payload_stem(board: str, version: str, base: str) -> str:
    name = f"from-{check_firmware_version(base)}" if base else "full"
    return f"firmware/{check_board(board)}/{check_firmware_version(version)}/{name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileDigest:
    """A file by its content; `length` in bytes, `sha256` in hexadecimal."""

    sha256: str
    length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Payload:
    """One way to get the bundle.

    Attributes:
        kind: What it needs.
        base: Version that must be running for a delta; empty for the full one.
        path: TUF target path of its index.
        length: Bytes to fetch, index and payload together.
    """

    kind: PayloadKind
    base: str
    path: str
    length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirmwareRelease:
    """A release.

    Attributes:
        board: Board it is for.
        version: Its version.
        security_epoch: A box that has committed a higher one refuses it for good.
        importance: Whether an owner may refuse it.
        min_from: Oldest version that may go to it directly; empty when every one may.
        bundle: What must lie there before RAUC is told.
        payloads: The full one first, then deltas.
        notes: Language to the owners' release notes.
        sbom: Parts list (CycloneDX).
        provenance: How it was made (in-toto statement in a DSSE envelope).
        released_s: When, in seconds since 1970 UTC.
    """

    board: str
    version: str
    security_epoch: int
    importance: Importance
    min_from: str
    bundle: FileDigest
    payloads: tuple[Payload, ...]
    notes: tuple[tuple[str, FileDigest], ...]
    sbom: FileDigest
    provenance: FileDigest
    released_s: int

    @property
    def full(self) -> Payload:
        """The payload that needs nothing."""
        return self.payloads[0]

    def delta_from(self, version: str) -> Payload | None:
        """Return the delta for a box that runs `version`, or None."""
        return next((item for item in self.payloads if item.kind is PayloadKind.DELTA and item.base == version), None)

    def is_reachable_from(self, version: str) -> bool:
        """Tell whether a box that runs `version` may go to this release directly (floors are its own matter)."""
        return not self.min_from or version_key(version) >= version_key(self.min_from)

    def to_custom(self) -> dict[str, Any]:
        """Return the record as it stands in the target's custom data.

        Raises:
            MalformedError: It is not a valid record.
        """
        custom: dict[str, Any] = {
            "format": FORMAT,
            "board": self.board,
            "version": self.version,
            "security_epoch": self.security_epoch,
            "importance": str(self.importance),
            "min_from": self.min_from,
            "bundle": dataclasses.asdict(self.bundle),
            "payloads": [
                {"kind": str(item.kind), "from": item.base, "path": item.path, "length": item.length}
                for item in self.payloads
            ],
            "notes": {language: dataclasses.asdict(digest) for language, digest in self.notes},
            "sbom": dataclasses.asdict(self.sbom),
            "provenance": dataclasses.asdict(self.provenance),
            "released_s": self.released_s,
        }
        if parse_custom(custom) != self:
            raise MalformedError("the record is not in its canonical order")
        return custom

    def to_json(self) -> bytes:
        """Return the canonical bytes: sorted keys, no superfluous white space, a final newline."""
        return _canonical(self.to_custom())


def parse_release(data: bytes) -> FirmwareRelease:
    """Read the content of a release's target.

    Raises:
        OversizeError: It is larger than `MAX_RECORD_BYTES`, or a part of it exceeds its bound.
        UnknownVersionError: It has another format.
        MalformedError: It is not such a record, or not in canonical form.
    """
    if len(data) > MAX_RECORD_BYTES:
        raise OversizeError(f"release record of {len(data)} bytes", limit=MAX_RECORD_BYTES)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise MalformedError("the release record is not JSON") from err
    release = parse_custom(body)
    if _canonical(body) != data:
        raise MalformedError("the release record is not in canonical form")
    return release


def parse_custom(body: Any) -> FirmwareRelease:
    """Read a release's record from decoded JSON, for example a target's custom data.

    Raises:
        OversizeError: A part of it exceeds its bound.
        UnknownVersionError: It has another format.
        MalformedError: It is not such a record.
    """
    if not isinstance(body, dict):
        raise MalformedError("no release record")
    if type(body.get("format")) is not int or body["format"] != FORMAT:
        raise UnknownVersionError("release record", body.get("format"))
    _keys(body, {"format", *(field.name for field in dataclasses.fields(FirmwareRelease))}, "release record")
    board, version = check_board(body["board"]), check_firmware_version(body["version"])
    min_from = body["min_from"]
    if min_from != "" and version_key(min_from) >= version_key(version):
        raise MalformedError("min_from is not older than the version")
    return FirmwareRelease(
        board=board,
        version=version,
        security_epoch=_number(body["security_epoch"], 0, MAX_EPOCH, "security_epoch"),
        importance=_word(Importance, body["importance"]),
        min_from=min_from,
        bundle=_digest(body["bundle"], MAX_BUNDLE_BYTES, "bundle"),
        payloads=_payloads(body["payloads"], board, version),
        notes=_notes(body["notes"]),
        sbom=_digest(body["sbom"], MAX_ATTACHMENT_BYTES, "sbom"),
        provenance=_digest(body["provenance"], MAX_ATTACHMENT_BYTES, "provenance"),
        released_s=_number(body["released_s"], 0, MAX_TIME_S, "released_s"),
    )


def _canonical(body: Any) -> bytes:
    return (json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n").encode()


def _keys(body: Any, expected: set[str], what: str) -> Mapping[str, Any]:
    if not isinstance(body, dict) or set(body) != expected:
        raise MalformedError(f"{what}: expected exactly the keys {', '.join(sorted(expected))}")
    return body


def _number(value: Any, low: int, high: int, what: str) -> int:
    if type(value) is not int or value < low:
        raise MalformedError(f"{what}: not a number from {low} to {high}")
    if value > high:
        raise OversizeError(f"{what}: {str(value)[:40]} is more than {high}", limit=high)
    return value


def _word(kind: type[E], value: Any) -> E:
    try:
        return kind(value)
    except ValueError as err:
        raise MalformedError(f"{str(value)[:40]!r} is not one of {', '.join(kind)}") from err


def _digest(body: Any, maximum: int, what: str) -> FileDigest:
    body = _keys(body, {"sha256", "length"}, what)
    digest = body["sha256"]
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise MalformedError(f"{what}: not a SHA-256 in hexadecimal")
    return FileDigest(sha256=digest, length=_number(body["length"], 1, maximum, what))


def _payloads(items: Any, board: str, version: str) -> tuple[Payload, ...]:
    if not isinstance(items, list) or not items:
        raise MalformedError("payloads: expected a list")
    if len(items) > MAX_PAYLOADS:
        raise OversizeError(f"{len(items)} payloads, allowed {MAX_PAYLOADS}", limit=MAX_PAYLOADS)
    payloads = tuple(_payload(item, board, version) for item in items)
    if payloads[0].kind is not PayloadKind.FULL or any(item.kind is PayloadKind.FULL for item in payloads[1:]):
        raise MalformedError("payloads: exactly one full payload, and it comes first")
    bases = [item.base for item in payloads]
    if len(set(bases)) != len(bases):
        raise MalformedError("payloads: two deltas start from the same version")
    return payloads


def _payload(item: Any, board: str, version: str) -> Payload:
    item = _keys(item, {"kind", "from", "path", "length"}, "payload")
    kind, base = _word(PayloadKind, item["kind"]), item["from"]
    if kind is PayloadKind.FULL and base != "":
        raise MalformedError("payload: a full one starts from nothing")
    if kind is PayloadKind.DELTA and version_key(base) == version_key(version):
        raise MalformedError("payload: a delta from the release to itself")
    if item["path"] != index_target(board, version, base):
        raise MalformedError("payload: the path does not follow from board and version")
    length = _number(item["length"], 1, MAX_PAYLOAD_BYTES, "payload")
    return Payload(kind=kind, base=base, path=item["path"], length=length)


def _notes(body: Any) -> tuple[tuple[str, FileDigest], ...]:
    body = _keys(body, set(NOTE_LANGUAGES), "notes")
    return tuple((language, _digest(body[language], MAX_NOTES_BYTES, "notes")) for language in NOTE_LANGUAGES)
