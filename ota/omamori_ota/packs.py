"""A feed pack as publishing wants it: its bytes, and the proof that they are a pack."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from pathlib import Path

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_manifest import FeedManifest
from omamori_protocol.feed_pack import MAX_PACK_BYTES, unpack

from .errors import RejectedError
from .files import read_bounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifiedPack:
    """Bytes of a pack that were unpacked once, with every rule of the format checked."""

    data: bytes = dataclasses.field(repr=False)
    manifest: FeedManifest


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
    return VerifiedPack(data=data, manifest=manifest)
