"""Unpacks what was fetched, in a process of its own that is over in seconds.

    python -m omamori_agent.firmware.apply DIRECTORY ROOT BOOT unpack|scan|verify [SHA256 LENGTH]

* `unpack` appends every segment that lies whole in ``download/packed.<offset>`` to the bundle, or that can be computed
  from what the bundle has, each checked by its hash before the next begins.
* `scan` checks the bundle's segments from the beginning and cuts it off before the first that is wrong: after a power
  cut nobody knows what reached the disk.
* `verify` checks the hash of the whole bundle.

The answer is one line of JSON on standard output. Nothing but the index is believed, and that is signed. A segment's
references, what it unpacks to and its packed bytes are never in memory together: at most `MAX_REFERENCE_BYTES` twice
while they are read, then once beside the decompressor's window. References are only read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from backports import zstd

from omamori_protocol.errors import ProtocolError
from omamori_protocol.hash_tree import hash_tree
from omamori_protocol.segments import MAX_INDEX_BYTES, Place, ReferenceSource, SegmentIndex, TreePart

from .answer import BUNDLE_NAME, DOWNLOAD_NAME, INDEX_NAME, PACKED_PREFIX, Answer

_CHUNK = 256 * 1024
_WINDOW_LOG = 25  # frames that need more than 32 MiB are refused; a segment has at most half of that


class BadSegmentError(Exception):
    """A segment does not become what the index says."""


def unpack(directory: Path, devices: Mapping[ReferenceSource, Path]) -> Answer:
    """Append what was fetched to the bundle; see the module."""
    index = _read_index(directory)
    path = directory / BUNDLE_NAME
    path.touch(mode=0o644)
    with path.open("r+b") as bundle, _packed(directory) as (packed, start):
        place = index.resume(bundle.seek(0, os.SEEK_END))
        if place is None:
            return Answer(have=index.bundle_length, is_whole=True)
        have = place.bundle_offset
        available = start + packed.seek(0, os.SEEK_END)
        for item in index.places()[place.number :]:
            is_there = start <= item.payload_offset and item.payload_offset + item.segment.packed <= available
            if not is_there and not item.segment.is_computed:
                break
            bundle.truncate(have)
            packed.seek(max(0, item.payload_offset - start))
            try:
                _make_segment(item, packed, bundle, devices)
            except (BadSegmentError, zstd.ZstdError) as err:
                bundle.truncate(have)
                return _ended(bundle, Answer(have=have, bad=item.number, error=str(err)))
            have += item.segment.length
        bundle.truncate(have)
        return _ended(bundle, Answer(have=have, is_whole=have == index.bundle_length))


def _ended(bundle: BinaryIO, answer: Answer) -> Answer:
    bundle.flush()
    os.fsync(bundle.fileno())
    return answer


def scan(directory: Path) -> Answer:
    """Cut the bundle off before its first wrong segment; see the module."""
    index = _read_index(directory)
    path = directory / BUNDLE_NAME
    path.touch(mode=0o644)
    have = 0
    with path.open("r+b") as bundle:
        for place in index.places():
            left, digest = place.segment.length, hashlib.sha256()
            while left and (chunk := bundle.read(min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
            if left or digest.digest() != place.segment.sha256:
                break
            have += place.segment.length
        bundle.truncate(have)
        return _ended(bundle, Answer(have=have, is_whole=have == index.bundle_length))


def verify(directory: Path, sha256: str, length: int) -> Answer:
    """Compare the whole bundle with the release's digest."""
    digest, have = hashlib.sha256(), 0
    try:
        with (directory / BUNDLE_NAME).open("rb") as bundle:
            while have <= length and (chunk := bundle.read(_CHUNK)):
                digest.update(chunk)
                have += len(chunk)
    except FileNotFoundError:
        return Answer(error="there is no bundle")
    is_whole = have == length and digest.hexdigest() == sha256
    return Answer(have=have, is_whole=is_whole, error="" if is_whole else "the bundle is not what was signed")


def _read_index(directory: Path) -> SegmentIndex:
    with (directory / DOWNLOAD_NAME / INDEX_NAME).open("rb") as file:
        return SegmentIndex.decode(file.read(MAX_INDEX_BYTES + 1))


@contextlib.contextmanager
def _packed(directory: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open what was fetched, and say where in the payload it begins; nothing was, when nobody can tell."""
    paths = list((directory / DOWNLOAD_NAME).glob(f"{PACKED_PREFIX}*"))
    if len(paths) != 1:
        yield io.BytesIO(), 0
        return
    with paths[0].open("rb") as file:
        yield file, int(paths[0].name.removeprefix(PACKED_PREFIX))


def _make_segment(place: Place, packed: BinaryIO, bundle: BinaryIO, devices: Mapping[ReferenceSource, Path]) -> None:
    """Append a segment to the bundle: computed from what is there already, or unpacked."""
    segment = place.segment
    if segment.tree_salt is not None:
        if segment.tree_end > place.bundle_offset:
            raise BadSegmentError(f"segment {place.number} is computed from what comes later")
        tree = hash_tree(_tree_data(segment.tree_parts, bundle), segment.tree_salt).data
        _append(place, [tree], bundle)
        return
    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
    references = _references(place, devices)
    prefix = None if references is None else zstd.ZstdDict(references, is_raw=True).as_prefix
    del references  # the dictionary has its own copy
    frame = zstd.ZstdDecompressor(prefix, options=options)
    _append(place, _pieces(frame, packed, segment.packed), bundle)


def _tree_data(parts: Sequence[TreePart], bundle: BinaryIO) -> Iterator[bytes]:
    for part in parts:
        if part.offset is not None:
            bundle.seek(part.offset)
        for at in range(0, part.length, _CHUNK):
            length = min(_CHUNK, part.length - at)
            yield bytes(length) if part.offset is None else bundle.read(length)


def _append(place: Place, pieces: Iterable[bytes], bundle: BinaryIO) -> None:
    segment, digest, made = place.segment, hashlib.sha256(), 0
    bundle.seek(place.bundle_offset)
    for piece in pieces:
        made += len(piece)
        if made > segment.length:
            raise BadSegmentError(f"segment {place.number} becomes too long")
        digest.update(piece)
        bundle.write(piece)
    if made != segment.length or digest.digest() != segment.sha256:
        raise BadSegmentError(f"segment {place.number} does not become what the index says")


def _pieces(frame: zstd.ZstdDecompressor, packed: BinaryIO, left: int) -> Iterator[bytes]:
    while not frame.eof:
        data = b""
        if frame.needs_input:
            data = packed.read(min(_CHUNK, left))
            left -= len(data)
            if not data:
                raise BadSegmentError("the frame ends early")
        yield frame.decompress(data, _CHUNK)
    if left or frame.unused_data:
        raise BadSegmentError("something follows the frame")


def _references(place: Place, devices: Mapping[ReferenceSource, Path]) -> bytearray | None:
    if not place.segment.references:
        return None
    data = bytearray(sum(item.length for item in place.segment.references))
    view, at = memoryview(data), 0
    for item in place.segment.references:
        with devices[item.source].open("rb", buffering=0) as device:
            device.seek(item.offset)
            end = at + item.length
            while at < end:
                count = device.readinto(view[at:end])
                if not count:
                    raise BadSegmentError(f"segment {place.number} refers to what is not there")
                at += count
    view.release()
    return data


def main(arguments: Sequence[str]) -> int:
    """Run the process; returns its exit status, which is 0 whenever there is an answer."""
    directory = Path(arguments[0])
    devices = {ReferenceSource.ROOT: Path(arguments[1]), ReferenceSource.BOOT: Path(arguments[2])}
    try:
        match arguments[3:]:
            case ["unpack"]:
                answer = unpack(directory, devices)
            case ["scan"]:
                answer = scan(directory)
            case ["verify", sha256, length]:
                answer = verify(directory, sha256, int(length))
            case _:
                return 2
    except (OSError, ProtocolError) as err:
        answer = Answer(error=str(err)[:200])
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(answer.to_json() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
