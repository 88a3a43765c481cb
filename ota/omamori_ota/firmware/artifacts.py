"""What the image build hands over: a directory with a manifest, read and checked before anything is made from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import read_bounded
from omamori_protocol.firmware_release import MAX_EPOCH, MAX_TIME_S, check_board
from omamori_protocol.firmware_version import check_firmware_version

MANIFEST = "manifest.json"
ROOT, VERITY, BOOT, PACKAGES = "root.erofs", "root.verity", "boot.vfat", "packages.json"
_FORMAT = 1
_MAX_MANIFEST_BYTES = 256 * 1024
_MAX_PACKAGES_BYTES = 4 * 1024 * 1024
_CHUNK = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artifacts:
    """An image's directory.

    Attributes:
        path: The directory.
        board: Board it is for.
        version: Its version.
        flavour: ``release`` or ``dev``.
        security_epoch: What boxes never go below once they have committed it.
        build_time: Time stamp of everything in it, in seconds since 1970 UTC.
        roothash: Root hash of the root file system, 32 bytes.
        salt: Salt of its hash tree, 32 bytes.
        manifest: The whole manifest, for the provenance.
        manifest_sha256: Digest of its bytes.
    """

    path: Path
    board: str
    version: str
    flavour: str
    security_epoch: int
    build_time: int
    roothash: bytes
    salt: bytes
    manifest: dict[str, Any]
    manifest_sha256: str

    def file(self, name: str) -> Path:
        """Return where an artifact is."""
        return self.path / name

    def packages(self) -> list[dict[str, str]]:
        """Return the Debian packages in the image: name, version, arch, sha256.

        Raises:
            SetupError: The list is damaged.
        """
        rows = _decode(read_bounded(self.file(PACKAGES), _MAX_PACKAGES_BYTES), PACKAGES)
        keys = {"name", "version", "arch", "sha256"}
        if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) == keys for row in rows):
            raise SetupError(f"{PACKAGES} is not a list of packages")
        return rows


def read_artifacts(path: Path) -> Artifacts:
    """Read an image's directory and check the files that a bundle is made from against their digests.

    Raises:
        SetupError: It is not one, or was changed after it was built.
        RejectedError: Its version cannot be released.
    """
    data = read_bounded(path / MANIFEST, _MAX_MANIFEST_BYTES)
    manifest = _decode(data, MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise SetupError(f"{path} is not an image's directory", hint="make one: omamori-image build")
    try:
        found = Artifacts(
            path=path,
            board=check_board(manifest["board"]),
            version=check_firmware_version(manifest["version"]),
            flavour=_text(manifest["flavour"]),
            security_epoch=_number(manifest["security_epoch"], MAX_EPOCH),
            build_time=_number(manifest["build_time"], MAX_TIME_S),
            roothash=_octets(manifest["roothash"]),
            salt=_octets(manifest["salt"]),
            manifest=manifest,
            manifest_sha256=hashlib.sha256(data).hexdigest(),
        )
        files = {name: manifest["files"][name]["sha256"] for name in (ROOT, VERITY, BOOT, PACKAGES)}
    except (KeyError, TypeError, ValueError) as err:
        raise SetupError(f"{path / MANIFEST} lacks {err}", hint="build the image again: omamori-image build") from err
    if found.flavour != "release" and "-dev." not in found.version:
        raise RejectedError(
            f"a {found.flavour} image cannot be released as {found.version}",
            hint="build it with a version like 1.4.0-dev.1, or take the release image",
        )
    for name, digest in files.items():
        if sha256_file(found.file(name)) != digest:
            raise SetupError(f"{found.file(name)} is not what was built", hint="build the image again")
    return found


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises `SetupError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
    except OSError as err:
        raise SetupError(f"cannot read {path}: {err.strerror}") from err
    return digest.hexdigest()


def _decode(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as err:
        raise SetupError(f"{name} is not JSON") from err


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError(repr(value)[:60])
    return value


def _number(value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise ValueError(repr(value)[:60])
    return value


def _octets(value: Any) -> bytes:
    octets = bytes.fromhex(_text(value))
    if len(octets) != 32:
        raise ValueError(repr(value)[:60])
    return octets
