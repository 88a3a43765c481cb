"""Feed packs and increments as publishing wants them: their bytes, and the proof that they are what they say."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tempfile
from pathlib import Path

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_chain import apply_chain
from omamori_protocol.feed_increment import MAX_INCREMENT_BYTES, IncrementReader
from omamori_protocol.feed_manifest import MANIFEST_NAME, FeedManifest
from omamori_protocol.feed_pack import MAX_PACK_BYTES, unpack

from .errors import RejectedError
from .files import read_bounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifiedPack:
    """Bytes of a pack that were unpacked once, with every rule of the format checked.

    `manifest_sha256` is the digest of its manifest as it stands in the pack, in hexadecimal.
    """

    data: bytes = dataclasses.field(repr=False)
    manifest: FeedManifest
    manifest_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadIncrement:
    """Bytes of an increment and what they say; `prove` tells whether it is true."""

    data: bytes = dataclasses.field(repr=False)
    start: int
    goal: int


def read_pack(path: Path) -> VerifiedPack:
    """Read and check a pack exactly as a box will.

    Raises:
        SetupError: The file cannot be read or is too large.
        RejectedError: It is not a pack that a box would take.
    """
    data = read_bounded(path, MAX_PACK_BYTES)
    with tempfile.TemporaryDirectory(prefix="omamori-pack-") as work:
        try:
            manifest = unpack(io.BytesIO(data), Path(work))
        except ProtocolError as err:
            raise RejectedError(f"{path} is not a feed pack: {err}", hint=err.hint or "omamori-feed check it") from err
        digest = hashlib.sha256((Path(work) / MANIFEST_NAME).read_bytes()).hexdigest()
    return VerifiedPack(data=data, manifest=manifest, manifest_sha256=digest)


def read_increment(path: Path) -> ReadIncrement:
    """Read an increment and check its frames.

    Raises:
        SetupError: The file cannot be read or is too large.
        RejectedError: It is no increment.
    """
    data = read_bounded(path, MAX_INCREMENT_BYTES)
    try:
        reader = IncrementReader(io.BytesIO(data))
        reader.finish()
    except ProtocolError as err:
        raise RejectedError(f"{path} is not an increment: {err}", hint="omamori-feed increment OLD NEW") from err
    return ReadIncrement(data=data, start=reader.head.start, goal=reader.head.goal)


def prove(old_pack: bytes, increment: ReadIncrement, new_pack: VerifiedPack) -> None:
    """Apply an increment as a box will.

    Raises:
        RejectedError: It does not lead from the one pack to the other.
    """
    with tempfile.TemporaryDirectory(prefix="omamori-increment-") as work:
        old, made, new = Path(work) / "old", Path(work) / "increment", Path(work) / "new"
        old.mkdir()
        new.mkdir()
        made.write_bytes(increment.data)
        try:
            unpack(io.BytesIO(old_pack), old)
            apply_chain(old, [made], new, manifest_sha256=new_pack.manifest_sha256)
        except ProtocolError as err:
            raise RejectedError(
                f"the increment does not lead to serial {new_pack.manifest.serial}: {err}",
                hint="make it again between the published pack and the new one: omamori-feed increment OLD NEW",
            ) from err
