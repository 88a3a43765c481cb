"""Writes a feed pack: the same content gives the same bytes.

A ustar archive of plain files, compressed with gzip; `omamori_protocol.feed_pack` is the reader and describes the
format. The headers are written here, field by field, because nothing in them may depend on the machine.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from datetime import datetime

from omamori_protocol.feed_manifest import MANIFEST_NAME, FeedManifest
from omamori_protocol.feed_pack import MAX_PACK_BYTES

from .errors import SourceError

_BLOCK = 512
_LEVEL = 9


def _header(name: str, size: int, time_s: int) -> bytes:
    fields = (
        name.encode().ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        b"%011o\0" % size,
        b"%011o\0" % time_s,
        b" " * 8,  # the checksum counts as spaces while it is computed
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(32 + 32),
        b"0000000\0",
        b"0000000\0",
        bytes(155 + 12),
    )
    block = b"".join(fields)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def write_pack(manifest: FeedManifest, files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of the pack.

    Raises:
        SourceError: It is larger than a box takes.
    """
    time_s = int(datetime.fromisoformat(manifest.created).timestamp())
    members = [(MANIFEST_NAME, manifest.to_json()), *sorted(files.items())]
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0) as archive:
        for name, data in members:
            archive.write(_header(name, len(data), time_s) + data + bytes(-len(data) % _BLOCK))
        archive.write(bytes(2 * _BLOCK))
    pack = out.getvalue()
    if len(pack) > MAX_PACK_BYTES:
        raise SourceError(f"the pack has {len(pack)} bytes, a box takes {MAX_PACK_BYTES}")
    return pack
