"""A feed increment: what changes from one feed pack to a later one.

A zlib stream (RFC 1950) of frames. A frame is a length of four bytes (big endian) and a CBOR map in canonical form
(`omamori.cddl`, feed-increment): one head, then pieces. The head carries the later pack's manifest, which says what
must come out; the pieces say how, in ascending order of the files' paths:

* a list: places of removed lines in the old list (gaps as LEB128), then added lines as text;
* anything else, and a list that changed altogether: its whole content.

A file without pieces is as it was. Lines are plain text because zlib does as well on them as on anything cleverer
(docs/adr/0024). This module reads and writes frames and bounds every one of them; `feed_chain` turns files into files.
"""

from __future__ import annotations

import dataclasses
import enum
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from . import cbor
from .errors import MalformedError, OversizeError, PackRejectedError, UnknownVersionError
from .feed_lines import Blocks
from .feed_manifest import MAX_ENTRIES, MAX_FILES, MAX_MANIFEST_BYTES, MAX_TOTAL_BYTES, FeedManifest, parse_manifest

FORMAT = 1
MAX_INCREMENT_BYTES = 32 * 1024 * 1024
MAX_PIECE_BYTES = 32 * 1024
MAX_REMOVAL_BYTES = 256 * 1024  # of one list: read as a whole, and a chain has many lists open
_MAX_UNPACKED_BYTES = MAX_TOTAL_BYTES + 8 * 1024 * 1024
_MAX_HEAD_BYTES = MAX_MANIFEST_BYTES + 1024
_MAX_FRAME_BYTES = MAX_PIECE_BYTES + 64
_MAX_FRAMES = _MAX_UNPACKED_BYTES // (MAX_PIECE_BYTES // 2) + 3 * MAX_FILES
_LENGTH_BYTES = 4
_CHUNK = 16 * 1024
_LEVEL = 9
_DIGEST_BYTES = 32
_MAX_SERIAL = 2**31 - 1


class PieceKind(enum.IntEnum):
    """What the bytes of a piece are."""

    WHOLE = 1
    REMOVALS = 2
    ADDITIONS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class IncrementHead:
    """First frame.

    Attributes:
        start: Serial of the pack that is changed.
        goal: Serial of the pack that comes out.
        base_sha256: SHA-256 of the manifest of `start`, 32 bytes.
        manifest: Bytes of the manifest of `goal`.
    """

    start: int
    goal: int
    base_sha256: bytes
    manifest: bytes


class IncrementWriter:
    """Writes frames; the caller keeps the order.

    Args:
        out: Where to.
        head: First frame.
    """

    def __init__(self, out: BinaryIO, head: IncrementHead) -> None:
        self._out = out
        self._packer = zlib.compressobj(_LEVEL)
        self._frame({0: FORMAT, 1: head.start, 2: head.goal, 3: head.base_sha256, 4: head.manifest})

    def whole(self, index: int, content: BinaryIO) -> None:
        """Write the whole content of a file; `index` is its place among the manifest's paths in order."""
        is_empty = True
        while data := content.read(MAX_PIECE_BYTES):
            self._piece(PieceKind.WHOLE, index, data)
            is_empty = False
        if is_empty:
            self._piece(PieceKind.WHOLE, index, b"")

    def changes(self, index: int, removals: Iterable[int], additions: Iterable[bytes]) -> None:
        """Write the changes of a list: ascending places, then ascending lines without their ends."""
        pending = bytearray()
        last = -1
        for place in removals:
            pending += _leb128(place - last - 1)
            last = place
            if len(pending) > MAX_PIECE_BYTES - 8:
                self._piece(PieceKind.REMOVALS, index, bytes(pending))
                pending.clear()
        if pending:
            self._piece(PieceKind.REMOVALS, index, bytes(pending))
            pending.clear()
        for line in additions:
            if len(pending) + len(line) + 1 > MAX_PIECE_BYTES:
                self._piece(PieceKind.ADDITIONS, index, bytes(pending))
                pending.clear()
            pending += line + b"\n"
        if pending:
            self._piece(PieceKind.ADDITIONS, index, bytes(pending))

    def close(self) -> None:
        """Write what is left."""
        self._out.write(self._packer.flush())

    def _piece(self, kind: PieceKind, index: int, data: bytes) -> None:
        self._frame({0: int(kind), 1: index, 2: data})

    def _frame(self, body: dict[int, Any]) -> None:
        data = cbor.encode(body)
        self._out.write(self._packer.compress(len(data).to_bytes(_LENGTH_BYTES, "big") + data))


@dataclasses.dataclass(frozen=True)
class _Piece:
    kind: PieceKind
    index: int
    data: bytes


@dataclasses.dataclass(frozen=True)
class Whole:
    """A file is replaced; `content` can be read once, before the next file is asked for."""

    content: Iterator[bytes]


@dataclasses.dataclass(frozen=True)
class Changes:
    """A list is changed; `additions` can be read once, before the next file is asked for."""

    removals: Iterator[int]
    additions: Blocks


class IncrementReader:
    """Reads an increment from its beginning to its end; its memory does not depend on the increment's size.

    Args:
        source: The increment.

    Attributes:
        head: First frame.
        manifest: The later pack's manifest.

    Raises:
        OversizeError: A bound is exceeded.
        UnknownVersionError: Another format.
        PackRejectedError: Anything else that is not as it must be.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._unpacker = zlib.decompressobj()
        self._buffer = bytearray()
        self._packed_bytes = 0
        self._unpacked_bytes = 0
        self._frames = 0
        self.head = _head(self._expect(_MAX_HEAD_BYTES))
        self.manifest: FeedManifest = parse_manifest(self.head.manifest)
        if self.manifest.serial != self.head.goal:
            raise PackRejectedError("increment: the manifest is of another serial")
        self._indexes = {path: index for index, path in enumerate(sorted(item.path for item in self.manifest.files))}
        self._next: _Piece | None = self._read_piece()

    def take(self, path: str) -> Whole | Changes | None:
        """Return what happens to a file of the manifest, None for nothing; ask in the order of the paths."""
        index = self._indexes[path]
        while self._next is not None and self._next.index < index:
            self._advance()
        if self._next is None or self._next.index != index:
            return None
        if self._next.kind is PieceKind.WHOLE:
            return Whole(self._content(index, PieceKind.WHOLE))
        removals = bytearray()
        for data in self._content(index, PieceKind.REMOVALS):
            removals += data
            if len(removals) > MAX_REMOVAL_BYTES:
                raise OversizeError(f"{path}: more removals than {MAX_REMOVAL_BYTES} bytes", limit=MAX_REMOVAL_BYTES)
        return Changes(_places(bytes(removals)), self._lines(index))

    def finish(self) -> None:
        """Read what is left, so that all of it has been checked."""
        while self._next is not None:
            self._advance()

    def _content(self, index: int, kind: PieceKind) -> Iterator[bytes]:
        while (piece := self._next) is not None and piece.index == index and piece.kind is kind:
            self._advance()
            yield piece.data

    def _lines(self, index: int) -> Blocks:
        for data in self._content(index, PieceKind.ADDITIONS):
            lines = data.split(b"\n")
            if len(lines) < 2 or lines.pop():
                raise PackRejectedError("increment: a piece of lines that does not end with one")
            yield lines

    def _advance(self) -> None:
        last = self._next
        self._next = piece = self._read_piece()
        if last is not None and piece is not None and _order(piece) < _order(last):
            raise PackRejectedError("increment: pieces are not in order")

    def _read_piece(self) -> _Piece | None:
        frame = self._frame(_MAX_FRAME_BYTES)
        return None if frame is None else _piece(frame, len(self._indexes))

    def _expect(self, max_bytes: int) -> bytes:
        frame = self._frame(max_bytes)
        if frame is None:
            raise PackRejectedError("increment is empty")
        return frame

    def _frame(self, max_bytes: int) -> bytes | None:
        """Return the next frame, or None at the end."""
        length = self._exactly(_LENGTH_BYTES, is_end_allowed=True)
        if length is None:
            return None
        self._frames += 1
        if self._frames > _MAX_FRAMES:
            raise OversizeError(f"increment of more than {_MAX_FRAMES} frames", limit=_MAX_FRAMES)
        size = int.from_bytes(length, "big")
        if size > max_bytes:
            raise OversizeError(f"increment: frame of {size} bytes, allowed {max_bytes}", limit=max_bytes)
        return self._exactly(size)

    def _exactly(self, size: int, *, is_end_allowed: bool = False) -> bytes | None:
        while len(self._buffer) < size:
            data = self._unpack()
            if not data:
                if is_end_allowed and not self._buffer:
                    return None
                raise PackRejectedError("increment is truncated")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _unpack(self) -> bytes:
        """Return a few more bytes; none at the end."""
        data = b""
        try:
            while not data and not self._unpacker.eof:
                packed = self._unpacker.unconsumed_tail or self._read()
                if not packed:
                    raise PackRejectedError("increment is truncated")
                data = self._unpacker.decompress(packed, _CHUNK)
        except zlib.error as err:
            raise PackRejectedError(f"increment is not intact: {str(err)[:80]}") from err
        if not data and (self._unpacker.unused_data or self._read()):
            raise PackRejectedError("something follows the end of the increment")
        self._unpacked_bytes += len(data)
        if self._unpacked_bytes > _MAX_UNPACKED_BYTES:
            raise OversizeError(f"increment unpacks to more than {_MAX_UNPACKED_BYTES}", limit=_MAX_UNPACKED_BYTES)
        return data

    def _read(self) -> bytes:
        data = self._source.read(_CHUNK)
        self._packed_bytes += len(data)
        if self._packed_bytes > MAX_INCREMENT_BYTES:
            raise OversizeError(f"increment of more than {MAX_INCREMENT_BYTES} bytes", limit=MAX_INCREMENT_BYTES)
        return data


def _order(piece: _Piece) -> tuple[int, int]:
    return piece.index, piece.kind


def _decode(frame: bytes, keys: int, what: str) -> dict[int, Any]:
    try:
        body = cbor.decode(frame, max_bytes=len(frame))
    except MalformedError as err:
        raise PackRejectedError(f"increment: {what}: {err}") from err
    if not isinstance(body, dict) or set(body) != set(range(keys)):
        raise PackRejectedError(f"increment: {what} has other keys than it must have")
    return body


def _number(value: Any, low: int, high: int, what: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise PackRejectedError(f"increment: {what} is outside {low}..{high}")
    return value


def _octets(value: Any, what: str, length: int | None = None) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise PackRejectedError(f"increment: {what} is not bytes of its length")
    return value


def _head(frame: bytes) -> IncrementHead:
    body = _decode(frame, 5, "head")
    if body[0] != FORMAT:
        raise UnknownVersionError("feed increment", body[0])
    start = _number(body[1], 1, _MAX_SERIAL, "start")
    return IncrementHead(
        start=start,
        goal=_number(body[2], start + 1, _MAX_SERIAL, "goal"),
        base_sha256=_octets(body[3], "digest", _DIGEST_BYTES),
        manifest=_octets(body[4], "manifest"),
    )


def _piece(frame: bytes, files: int) -> _Piece:
    body = _decode(frame, 3, "piece")
    kind = PieceKind(_number(body[0], 1, len(PieceKind), "kind"))
    return _Piece(kind, _number(body[1], 0, min(files, MAX_FILES) - 1, "file"), _octets(body[2], "piece"))


def _leb128(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _places(gaps: bytes) -> Iterator[int]:
    """Yield the places that gaps stand for."""
    place = -1
    octets = iter(gaps)
    for first in octets:
        gap, shift, octet = first & 0x7F, 7, first
        while octet & 0x80:
            octet = next(octets, 0x80)
            if shift > 21:
                raise PackRejectedError("increment: a gap between removals that is none")
            gap |= (octet & 0x7F) << shift
            shift += 7
        place += gap + 1
        if place > MAX_ENTRIES:
            raise PackRejectedError("increment: a removal beyond any list")
        yield place
