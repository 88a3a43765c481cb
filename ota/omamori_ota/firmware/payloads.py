"""Makes the ways to fetch a bundle: the full payload, and deltas from older releases.

A segment is cut where the kind of bytes changes (an image, a hash tree, the rest), and at a fixed length. Whatever is
made is unpacked again and compared with the bundle before anybody sees it, with the code below and nothing of the
maker's: `unpack_segment` is the reference for what a box does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from backports import zstd

from omamori_ota.errors import RejectedError
from omamori_protocol.hash_tree import BLOCK_BYTES, hash_tree, tree_bytes
from omamori_protocol.segments import MIB, Reference, ReferenceSource, Segment, SegmentIndex, TreePart

from .artifacts import BOOT, ROOT, VERITY, Artifacts
from .bundle import Bundle
from .layout import MappedFile, Stretch, find_image, stored
from .matching import Landmarks, fit

FULL_SEGMENT_BYTES = 2 * MIB  # about a mebibyte to fetch: what a cut may cost
DELTA_SEGMENT_BYTES = 8 * MIB
LEVEL = 19
DELTA_LEVEL = 12  # more saves a few per cent and takes ten times as long with so much to refer to
WINDOW_LOG = 25  # boxes refuse frames that need more
_THREADS = 2
_BOOT_REACH = 6 * MIB  # a boot partition's content moves by less from one release to the next
_SOURCES = {ROOT: ReferenceSource.ROOT, BOOT: ReferenceSource.BOOT}

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Made:
    """A payload: its index, and how many bytes there are to fetch, index included."""

    index: SegmentIndex
    length: int


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A segment to be: bytes of the bundle, and the image they belong to with the offset there."""

    begin: int
    end: int
    image: str = ""
    offset: int = 0
    tree: tuple[tuple[TreePart, ...], bytes] | None = None


def make_payload(
    image: Artifacts, bundle: Bundle, target: Path, progress: Progress, base: Artifacts | None, *, level: int = LEVEL
) -> Made:
    """Write a payload.

    Args:
        image: The image in the bundle.
        bundle: The bundle.
        target: File to write the payload to.
        progress: Told bytes of the bundle that are done, and how many there are.
        base: Image of the older release that runs; None for the full payload.
        level: How hard to compress what refers to nothing, 1 to 19.

    Raises:
        RejectedError: What was made does not unpack to the bundle.
    """
    with ExitStack() as stack:
        data = stack.enter_context(MappedFile(bundle.path))
        new = {name: stack.enter_context(MappedFile(image.file(name))) for name in (BOOT, ROOT, VERITY)}
        places = {name: find_image(data, mapped) for name, mapped in new.items()}
        trees = _trees(image, bundle, data, places)
        pieces = list(_cut(len(data), places, trees, is_delta=base is not None))
        old: dict[ReferenceSource, mmap.mmap] = {}
        choose: Callable[[_Piece], tuple[Reference, ...]] = _nothing
        if base is not None:
            old = {source: stack.enter_context(MappedFile(base.file(name))) for name, source in _SOURCES.items()}
            choose = _Chooser(new, old)
        segments: list[Segment] = []
        with target.open("wb") as out, ThreadPoolExecutor(_THREADS) as workers:
            pack = _Packer(data, old, choose, level)
            for piece, (segment, frame) in zip(pieces, workers.map(pack, pieces), strict=True):
                out.write(frame)
                segments.append(segment)
                progress(piece.end, len(data))
        index = SegmentIndex(
            bundle_length=len(data),
            bundle_sha256=bytes.fromhex(bundle.sha256),
            payload_length=sum(item.packed for item in segments),
            segments=tuple(segments),
            base=base.version if base else "",
            base_roothash=base.roothash if base else None,
        )
        prove_payload(index, target, data, old)
    return Made(index, index.payload_length + len(index.encode()))


def prove_payload(
    index: SegmentIndex, payload: Path, bundle: mmap.mmap, old: Mapping[ReferenceSource, mmap.mmap]
) -> None:
    """Unpack a payload and compare it with the bundle.

    Raises:
        RejectedError: It becomes something else.
    """
    digest = hashlib.sha256()
    with payload.open("rb") as source:
        for place in index.places():
            frame = source.read(place.segment.packed)
            data = unpack_segment(place.segment, frame, old, bundle)
            if not place.segment.matches(data):
                raise RejectedError(f"segment {place.number} of {payload.name} does not become what the index says")
            digest.update(data)
        if source.read(1):
            raise RejectedError(f"{payload.name} is longer than its index says")
    if digest.digest() != index.bundle_sha256 or hashlib.sha256(bundle).digest() != index.bundle_sha256:
        raise RejectedError(f"{payload.name} does not become the bundle")


def unpack_segment(
    segment: Segment, frame: bytes, old: Mapping[ReferenceSource, mmap.mmap], bundle: mmap.mmap | bytes
) -> bytes:
    """Return a segment's bytes; not checked yet.

    Args:
        segment: The segment.
        frame: Its bytes in the payload.
        old: What runs, for a delta.
        bundle: At least everything before the segment.

    Raises:
        RejectedError: It cannot be unpacked.
    """
    if segment.tree_salt is not None:
        return hash_tree(_tree_data(segment.tree_parts, bundle), segment.tree_salt).data
    prefix = b"".join(old[item.source][item.offset : item.offset + item.length] for item in segment.references)
    dictionary = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    options = {int(zstd.DecompressionParameter.window_log_max): WINDOW_LOG}
    try:
        unpacker = zstd.ZstdDecompressor(dictionary, options=options)
        data = unpacker.decompress(frame, segment.length + 1)
    except zstd.ZstdError as err:
        raise RejectedError(f"a segment cannot be unpacked: {err}") from err
    if not unpacker.eof or unpacker.unused_data:
        raise RejectedError("a segment is not one whole frame")
    return data


def _tree_data(parts: Sequence[TreePart], bundle: mmap.mmap | bytes) -> Iterator[bytes]:
    for part in parts:
        for at in range(0, part.length, MIB):
            length = min(MIB, part.length - at)
            yield bytes(length) if part.offset is None else bundle[part.offset + at : part.offset + at + length]


def _nothing(_: _Piece) -> tuple[Reference, ...]:
    return ()


class _Chooser:
    """Says what a piece is compressed against."""

    def __init__(self, new: Mapping[str, mmap.mmap], old: Mapping[ReferenceSource, mmap.mmap]) -> None:
        self._landmarks = Landmarks(new[ROOT], old[ReferenceSource.ROOT])
        self._boot_size = len(old[ReferenceSource.BOOT])

    def __call__(self, piece: _Piece) -> tuple[Reference, ...]:
        if piece.image == ROOT:
            end = piece.offset + piece.end - piece.begin
            source, ranges = ReferenceSource.ROOT, self._landmarks.references(piece.offset, end)
        elif piece.image == BOOT:
            # One file whose parts keep their order, but begin at no block's boundary: there are no landmarks.
            end = piece.offset + piece.end - piece.begin
            around = (piece.offset - _BOOT_REACH, end + _BOOT_REACH)
            source, ranges = ReferenceSource.BOOT, fit([around], self._boot_size)
        else:
            return ()
        return tuple(Reference(source=source, offset=begin, length=end - begin) for begin, end in ranges)


class _Packer:
    """Turns a piece into a segment and its frame; used by several threads."""

    def __init__(
        self,
        data: mmap.mmap,
        old: Mapping[ReferenceSource, mmap.mmap],
        choose: Callable[[_Piece], tuple[Reference, ...]],
        level: int,
    ) -> None:
        self._data = data
        self._old = old
        self._choose = choose
        self._level = level

    def __call__(self, piece: _Piece) -> tuple[Segment, bytes]:
        raw = self._data[piece.begin : piece.end]
        digest = hashlib.sha256(raw).digest()
        if piece.tree is not None:
            parts, salt = piece.tree
            return Segment(length=len(raw), sha256=digest, packed=0, tree_parts=parts, tree_salt=salt), b""
        references = self._choose(piece)
        old = [self._old[item.source][item.offset : item.offset + item.length] for item in references]
        frame = _pack(raw, old, DELTA_LEVEL if old else self._level)
        if old and len(frame) > len(raw) // 8 and len(alone := _pack(raw, [], self._level)) <= len(frame):
            references, frame = (), alone
        return Segment(length=len(raw), sha256=digest, packed=len(frame), references=references), frame


def _pack(raw: bytes, references: list[bytes], level: int) -> bytes:
    parameter = zstd.CompressionParameter
    options = {
        int(parameter.compression_level): level,
        int(parameter.window_log): WINDOW_LOG,
        int(parameter.enable_long_distance_matching): 1,
        int(parameter.dict_id_flag): 0,
        int(parameter.content_size_flag): 1,
    }
    prefix = b"".join(references)
    packer = zstd.ZstdCompressor(
        options=options, zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    )
    packer.set_pledged_input_size(len(raw))
    return packer.compress(raw, mode=zstd.ZstdCompressor.FLUSH_FRAME)


def _trees(
    image: Artifacts, bundle: Bundle, data: mmap.mmap, places: Mapping[str, tuple[Stretch, ...]]
) -> dict[int, tuple[int, tuple[TreePart, ...], bytes]]:
    """Return the hash trees in the bundle: where they begin, where they end, and what they are over."""
    trees: dict[int, tuple[int, tuple[TreePart, ...], bytes]] = {}
    end = bundle.payload_length
    whole = (TreePart(bundle.tree_offset, 0),)
    trees[bundle.tree_offset] = (end, whole, bundle.tree_salt)
    root, verity = places[ROOT], list(stored(places[VERITY]))
    parts = tuple(TreePart(item.length, item.place) for item in root)
    if parts and len(verity) == 1 and all(part.length % BLOCK_BYTES == 0 for part in parts):
        begin, length, _ = verity[0]
        begin, length = begin + BLOCK_BYTES, length - BLOCK_BYTES  # behind veritysetup's own block
        if length == tree_bytes(sum(part.length for part in parts)):
            trees[begin] = (begin + length, parts, image.salt)
    return {
        begin: (end, parts, salt)
        for begin, (end, parts, salt) in trees.items()
        if end > begin and hash_tree(_tree_data(parts, data), salt).data == data[begin:end]
    }


def _cut(
    length: int,
    places: Mapping[str, tuple[Stretch, ...]],
    trees: Mapping[int, tuple[int, tuple[TreePart, ...], bytes]],
    *,
    is_delta: bool,
) -> Iterator[_Piece]:
    """Cut the bundle into pieces."""
    most = DELTA_SEGMENT_BYTES if is_delta else FULL_SEGMENT_BYTES
    known: list[_Piece] = [_Piece(begin, end, tree=(parts, salt)) for begin, (end, parts, salt) in trees.items()]
    known += [
        _Piece(place, place + size, name, offset)
        for name in (BOOT, ROOT)
        for place, size, offset in stored(places[name])
    ]
    at = 0
    for piece in [*sorted(known, key=lambda item: item.begin), _Piece(length, length)]:
        yield from _divide(_Piece(at, piece.begin), most)
        if piece.tree is not None:
            yield piece
        else:
            yield from _divide(piece, most)
        at = piece.end


def _divide(piece: _Piece, most: int) -> Iterator[_Piece]:
    for begin in range(piece.begin, piece.end, most):
        end = min(begin + most, piece.end)
        yield dataclasses.replace(piece, begin=begin, end=end, offset=piece.offset + begin - piece.begin)
