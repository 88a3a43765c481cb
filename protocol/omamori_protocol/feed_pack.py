"""Reads a feed pack into an empty directory, believing nothing.

A pack is a gzip-compressed ustar archive of plain files: ``manifest.json`` first, then exactly the files that it
names. Everything else that tar can hold (directories, links, devices, sparse files, extended headers) is refused by
an own header reader of a few lines, because an archive library would interpret those before we could look.

It verifies the pack against itself. Whether the pack is the one that was signed is TUF's part, not this module's.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import OversizeError, PackRejectedError
from .feed_manifest import (
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_TOTAL_BYTES,
    FeedManifest,
    PackFile,
    parse_manifest,
)

MAX_PACK_BYTES = 64 * 1024 * 1024
_BLOCK = 512
_CHUNK = 64 * 1024
_MAX_BLOCKS_BYTES = MAX_TOTAL_BYTES + MAX_MANIFEST_BYTES + 1024 * _BLOCK


class _Limited(io.RawIOBase):
    """The packed bytes, counted: what unpacks to nothing could go on for ever."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._left = MAX_PACK_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(min(len(buffer), self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise OversizeError(f"pack of more than {MAX_PACK_BYTES} bytes", limit=MAX_PACK_BYTES)
        buffer[: len(data)] = data
        return len(data)


class _Reader:
    """Decompressed bytes of the pack, counted."""

    def __init__(self, source: BinaryIO) -> None:
        self._gzip = gzip.GzipFile(fileobj=io.BufferedReader(_Limited(source), _CHUNK), mode="rb")
        self._seen = 0

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes or raise."""
        self._seen += size
        if self._seen > _MAX_BLOCKS_BYTES:
            raise OversizeError(f"pack unpacks to more than {_MAX_BLOCKS_BYTES} bytes", limit=_MAX_BLOCKS_BYTES)
        try:
            data = self._gzip.read(size)
        except (OSError, EOFError, zlib.error) as err:
            raise PackRejectedError(f"pack is not intact gzip: {str(err)[:80]}") from err
        if len(data) != size:
            raise PackRejectedError("pack is truncated")
        return data

    def expect_end(self) -> None:
        """Check that only a few blocks of zeros follow."""
        try:
            tail = self._gzip.read(64 * _BLOCK + 1)
        except (OSError, EOFError, zlib.error) as err:
            raise PackRejectedError(f"pack is not intact gzip: {str(err)[:80]}") from err
        if len(tail) > 64 * _BLOCK or tail.strip(b"\0"):
            raise PackRejectedError("something follows the end of the pack")


def _octal(field: bytes, what: str) -> int:
    digits = field.rstrip(b"\0 ")
    if not digits or any(byte not in b"01234567" for byte in digits):
        raise PackRejectedError(f"archive header: bad {what}")
    return int(digits, 8)


def _header(block: bytes) -> tuple[str, int] | None:
    """Return name and size of the member that `block` announces, or None at the end of the archive."""
    if not block.strip(b"\0"):
        return None
    checksum = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
    if _octal(block[148:156], "checksum") != checksum:
        raise PackRejectedError("archive header: wrong checksum")
    name = block[:100].rstrip(b"\0").decode("ascii", "replace")
    if block[156:157] not in (b"0", b"\0"):
        raise PackRejectedError(f"{name[:60]!r} is not a plain file (type {block[156:157]!r})")
    if block[345:500].strip(b"\0") or block[157:257].strip(b"\0"):
        raise PackRejectedError(f"{name[:60]!r}: links and long names are not allowed")
    return name, _octal(block[124:136], "size")


def _member(reader: _Reader) -> tuple[str, int] | None:
    return _header(reader.exactly(_BLOCK))


def _copy(reader: _Reader, item: PackFile, target: Path) -> None:
    digest = hashlib.sha256()
    left = item.size
    with target.open("xb") as out:
        while left:
            chunk = reader.exactly(min(left, _CHUNK))
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != item.sha256:
        raise PackRejectedError(f"{item.path}: content does not have the digest that the manifest states")
    _skip_padding(reader, item.size)


def _skip_padding(reader: _Reader, size: int) -> None:
    padding = -size % _BLOCK
    if padding and reader.exactly(padding).strip(b"\0"):
        raise PackRejectedError("archive padding is not empty")


def unpack(source: BinaryIO, directory: Path, *, admit: Callable[[FeedManifest], None] | None = None) -> FeedManifest:
    """Unpack a feed pack.

    Args:
        source: The pack, at its beginning; at most `MAX_PACK_BYTES` of it are looked at.
        directory: An existing, empty directory. On an error the caller removes it: what is in it then is undefined.
        admit: Called with the manifest before anything is written; what it raises ends the unpacking.

    Returns:
        The manifest, whose files now stand below `directory`, each synced to disk.

    Raises:
        OversizeError: A bound is exceeded (packed or unpacked bytes, files, items).
        PackRejectedError: Anything is not exactly as the format says.
    """
    if any(directory.iterdir()):
        raise PackRejectedError("the directory to unpack into is not empty")
    reader = _Reader(source)
    first = _member(reader)
    if first is None or first[0] != MANIFEST_NAME:
        raise PackRejectedError(f"the pack does not begin with {MANIFEST_NAME}")
    if first[1] > MAX_MANIFEST_BYTES:
        raise OversizeError(f"manifest of {first[1]} bytes, allowed {MAX_MANIFEST_BYTES}", limit=MAX_MANIFEST_BYTES)
    data = reader.exactly(first[1])
    _skip_padding(reader, first[1])
    manifest = parse_manifest(data)
    if admit is not None:
        admit(manifest)
    (directory / MANIFEST_NAME).write_bytes(data)
    expected = {item.path: item for item in manifest.files}
    while (member := _member(reader)) is not None:
        name, size = member
        item = expected.pop(name, None)
        if item is None:
            raise PackRejectedError(f"{name[:80]!r} is not in the manifest, or is there twice")
        if size != item.size or size > MAX_FILE_BYTES:
            raise PackRejectedError(f"{name}: {size} bytes, the manifest says {item.size}")
        target = directory / name
        target.parent.mkdir(exist_ok=True)
        _copy(reader, item, target)
    if expected:
        raise PackRejectedError(f"missing from the pack: {', '.join(sorted(expected))[:120]}")
    reader.expect_end()
    return manifest
