"""Firmware releases made in a moment: a bundle of random bytes, its payloads, and the signed metadata about them."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from typing import Any

from backports import zstd
from tuf.api.metadata import TargetFile

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
from omamori_protocol.segments import Reference, ReferenceSource, Segment, SegmentIndex
from sim.repository import RepositorySimulator

BOARD = "x86_64-uefi"
SEGMENT = 64 * 1024
_OPTIONS = {
    int(zstd.CompressionParameter.compression_level): 9,
    int(zstd.CompressionParameter.window_log): 21,
    int(zstd.CompressionParameter.hash_log): 20,
}


def noise(seed: str, length: int) -> bytes:
    """Return bytes that do not get smaller, the same for the same seed."""
    return random.Random(seed).randbytes(length)


@dataclasses.dataclass(kw_only=True)
class ReleaseSource:
    """What a test wants to release; `base` gives a delta, too: version, root bytes and root hash."""

    version: str
    bundle: bytes
    board: str = BOARD
    epoch: int = 3
    importance: Importance = Importance.SCHEDULED
    min_from: str = ""
    base: tuple[str, bytes, bytes] | None = None
    segment_bytes: int = SEGMENT

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.bundle).hexdigest()

    def payload(self, *, delta: bool) -> tuple[SegmentIndex, bytes]:
        """Return index and payload."""
        segments, frames = [], []
        for offset in range(0, len(self.bundle), self.segment_bytes):
            piece = self.bundle[offset : offset + self.segment_bytes]
            references: tuple[Reference, ...] = ()
            prefix = None
            if delta:
                assert self.base is not None
                root = self.base[1]
                half = len(root) // 2
                references = (
                    Reference(source=ReferenceSource.ROOT, offset=half, length=len(root) - half),
                    Reference(source=ReferenceSource.ROOT, offset=0, length=half),
                )
                prefix = zstd.ZstdDict(root[half:] + root[:half], is_raw=True).as_prefix
            frame = zstd.ZstdCompressor(options=_OPTIONS, zstd_dict=prefix).compress(
                piece, zstd.ZstdCompressor.FLUSH_FRAME
            )
            frames.append(frame)
            segments.append(
                Segment(
                    length=len(piece), sha256=hashlib.sha256(piece).digest(), packed=len(frame), references=references
                )
            )
        payload = b"".join(frames)
        index = SegmentIndex(
            bundle_length=len(self.bundle),
            bundle_sha256=bytes.fromhex(self.sha256),
            payload_length=len(payload),
            segments=tuple(segments),
            base=self.base[0] if delta and self.base is not None else "",
            base_roothash=self.base[2] if delta and self.base is not None else None,
        )
        return index, payload

    def publish(self, repo: RepositorySimulator, **changes: Any) -> dict[str, str]:
        """Put everything into a repository; returns where ``full`` and ``delta`` payloads are stored."""
        places, payloads = {}, []
        for name in ["full", "delta"] if self.base is not None else ["full"]:
            base = self.base[0] if name == "delta" and self.base is not None else ""
            index, payload = self.payload(delta=name == "delta")
            encoded = index.encode()
            put(repo, index_target(self.board, self.version, base), encoded)
            places[name] = put(repo, payload_target(self.board, self.version, base), payload)
            payloads.append(
                Payload(
                    kind=PayloadKind.FULL if not base else PayloadKind.DELTA,
                    base=base,
                    path=index_target(self.board, self.version, base),
                    length=len(encoded) + len(payload),
                )
            )
        digest = FileDigest(sha256="0" * 64, length=1)
        release = FirmwareRelease(
            board=self.board,
            version=self.version,
            security_epoch=self.epoch,
            importance=self.importance,
            min_from=self.min_from,
            bundle=FileDigest(sha256=self.sha256, length=len(self.bundle)),
            payloads=tuple(payloads),
            notes=(("ja", digest), ("en", digest)),
            sbom=digest,
            provenance=digest,
            released_s=1_790_000_000,
        )
        custom = release.to_custom() | changes
        put(repo, release_target(self.board, self.version), release.to_json(), custom)
        sign(repo)
        return places


def put(repo: RepositorySimulator, path: str, data: bytes, custom: Any = None) -> str:
    """Name a target in the top role and store it; nothing is signed."""
    target = TargetFile.from_data(path, data, ["sha256"])
    if custom is not None:
        target.unrecognized_fields["custom"] = custom
    repo.targets.targets[path] = target
    folder, _, name = path.rpartition("/")
    place = f"targets/{folder}/{target.hashes['sha256']}.{name}"
    repo.files[place] = data
    return place


def sign(repo: RepositorySimulator) -> None:
    """Publish the top role anew."""
    repo.targets.version += 1
    repo.write(repo.targets, "targets")
    repo.resign()
