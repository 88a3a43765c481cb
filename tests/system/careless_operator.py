"""An operator with every key and no rules: signs what the product's own commands refuse to publish.

What it makes looks right to TUF, so that what stops it is the box.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Snapshot, TargetFile, Targets, Timestamp

from omamori_lab.products import call
from omamori_ota.firmware.signatures import file_signer
from omamori_ota.metadata import parse, to_bytes
from omamori_protocol.firmware_release import (
    FileDigest,
    FirmwareRelease,
    Importance,
    Payload,
    PayloadKind,
    index_target,
    payload_target,
    release_target,
)
from sim.firmware_release import BOARD, ReleaseSource
from unit.ota.firmware.conftest import content, write_image

_NOTES = {"ja": "# 試験\n", "en": "# Test\n"}
_ANY = FileDigest(sha256="0" * 64, length=1)


class CarelessOperator:
    """Puts anything into a repository.

    Args:
        repository: The repository's directory.
        keys: The directory with all of the operator's keys.
        work: For what is made on the way.
    """

    def __init__(self, repository: Path, keys: Path, work: Path) -> None:
        self._repository = repository
        self._metadata = repository / "metadata"
        self._keys = keys
        self._work = work
        self._strangers: Path | None = None

    def bundle(self, version: str, *, board: str = BOARD, is_strangers: bool = False) -> bytes:
        """Make a small bundle that RAUC reads, signed by the operator or by somebody whom no box knows."""
        name = f"{version}-{board}"
        image = write_image(
            self._work / f"image-{name}", version, content(1, 320 * 4096), content(2, 75 * 4096), board=board
        )
        keys = self._strangers_keys() if is_strangers else self._keys
        words: list[str | Path] = ["--image", image, "--keys", keys, "--out", self._work / name, "--level", "1"]
        for language, text in _NOTES.items():
            notes = self._work / f"notes.{language}.md"
            notes.write_text(text)
            words += [f"--notes-{language}", notes]
        call("omamori-ota", "bundle", *words, timeout_s=300)
        return (self._work / name / "bundle.raucb").read_bytes()

    def publish(
        self, source: ReleaseSource, *, epoch: int = 1, described_board: str | None = None, is_cut: bool = False
    ) -> None:
        """Name a release for boxes of the usual board.

        Args:
            source: Version and bundle.
            epoch: Its security epoch.
            described_board: What the record says the board is.
            is_cut: The web server has lost the second half of the payload.
        """
        index, payload = source.payload(delta=False)
        encoded = index.encode()
        board = described_board or BOARD
        release = FirmwareRelease(
            board=board,
            version=source.version,
            security_epoch=epoch,
            importance=Importance.SCHEDULED,
            min_from="",
            bundle=FileDigest(sha256=source.sha256, length=len(source.bundle)),
            payloads=(
                Payload(
                    kind=PayloadKind.FULL,
                    base="",
                    path=index_target(board, source.version, ""),
                    length=len(encoded) + len(payload),
                ),
            ),
            notes=(("ja", _ANY), ("en", _ANY)),
            sbom=_ANY,
            provenance=_ANY,
            released_s=1_790_000_000,
        )
        files = {
            index_target(BOARD, source.version, ""): encoded,
            payload_target(BOARD, source.version, ""): payload,
            release_target(BOARD, source.version): release.to_json(),
        }
        targets = {path: TargetFile.from_data(path, data, ["sha256"]) for path, data in files.items()}
        targets[release_target(BOARD, source.version)].unrecognized_fields["custom"] = release.to_custom()
        for path, data in files.items():
            folder, _, name = path.rpartition("/")
            place = self._repository / "targets" / folder / f"{targets[path].hashes['sha256']}.{name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data[: len(data) // 2] if is_cut and data is payload else data)
        self._sign(lambda signed: signed.targets.update(targets))

    def expire(self) -> None:
        """Sign what was over long ago."""
        path = self._metadata / "timestamp.json"
        timestamp = parse(Timestamp, path.read_bytes(), "timestamp")
        timestamp.signed.version += 1
        timestamp.signed.expires = datetime(2026, 1, 1, tzinfo=UTC)
        self._write(timestamp, "timestamp.json", "timestamp")

    def _sign(self, change: Callable[[Targets], None]) -> None:
        newest = max(self._metadata.glob("*.firmware.json"), key=lambda path: int(path.name.split(".")[0]))
        role = parse(Targets, newest.read_bytes(), "firmware")
        change(role.signed)
        role.signed.version += 1
        self._write(role, f"{role.signed.version}.firmware.json", "firmware1", "firmware2")
        timestamp = parse(Timestamp, (self._metadata / "timestamp.json").read_bytes(), "timestamp")
        number = timestamp.signed.snapshot_meta.version
        snapshot = parse(Snapshot, (self._metadata / f"{number}.snapshot.json").read_bytes(), "snapshot")
        snapshot.signed.meta["firmware.json"].version = role.signed.version
        snapshot.signed.version = number + 1
        self._write(snapshot, f"{number + 1}.snapshot.json", "snapshot")
        timestamp.signed.snapshot_meta.version = number + 1
        timestamp.signed.version += 1
        self._write(timestamp, "timestamp.json", "timestamp")

    def _write(self, metadata: Metadata[Any], name: str, *keys: str) -> None:
        metadata.signatures.clear()
        for key in keys:
            metadata.sign(file_signer(self._keys / "tuf" / f"{key}.pem"), append=True)
        path = self._metadata / name
        fresh = path.with_name(f"{name}.new")
        fresh.write_bytes(to_bytes(metadata))
        fresh.replace(path)

    def _strangers_keys(self) -> Path:
        if self._strangers is None:
            self._strangers = self._work / "strangers"
            call("omamori-ota", "keys", "init", self._strangers)
        return self._strangers
