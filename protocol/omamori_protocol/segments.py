"""How a bundle travels: in segments that are fetched, unpacked and checked one by one.

An index says, in the bundle's order, how long each segment is, what its SHA-256 is, how many bytes it has in the
payload file, and which ranges of the running release it was compressed against. The payload file is the segments' zstd
frames (RFC 8878), one after the other, with nothing between them; a segment's place follows from its predecessors.
A frame states its content size and carries no dictionary id; its references, put together in the index's order, are
its dictionary as raw content (a "prefix"). A segment that is the hash tree over an earlier part of the bundle has no
frame: it is computed (`hash_tree`), because hashes cannot be compressed.

Bounds are chosen so that unpacking one segment stays below 96 MiB in a process of its own: its references, its result
and its packed bytes are all that has to be held. The index is trusted for nothing but convenience: it is a TUF target
itself, every segment is hashed, and the whole bundle must have the digest that the release record states.
This module reads, writes and bounds the index. It packs nothing and touches no file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from typing import ClassVar

from .errors import MalformedError
from .firmware_release import MAX_BUNDLE_BYTES, MAX_PAYLOAD_BYTES
from .firmware_version import MAX_VERSION_LENGTH, check_firmware_version
from .hash_tree import BLOCK_BYTES, tree_bytes
from .record import Checked, Choice, Nested, Octets, Record, Several, Text, UInt, wire
from .vocabulary import WireEnum

MIB = 1024 * 1024
MAX_INDEX_BYTES = 256 * 1024
MAX_SEGMENTS = 2048
MAX_SEGMENT_BYTES = 16 * MIB
MAX_PACKED_BYTES = MAX_SEGMENT_BYTES + 64 * 1024  # zstd adds a little to what cannot be packed
MAX_REFERENCES = 16
MAX_TREE_PARTS = 64
MAX_REFERENCE_BYTES = 32 * MIB  # of one segment, all together
_MAX_DEVICE_BYTES = 2**40


class ReferenceSource(WireEnum):
    """Where the bytes of a reference are on the box.

    ROOT is the verified root file system of the slot that runs; BOOT is that slot's boot partition, which nobody writes
    to but which nothing verifies either: the segment's digest tells.
    """

    ROOT = 0
    BOOT = 1


@dataclasses.dataclass(frozen=True)
class Reference(Record):
    """A range of the running release; `offset` and `length` in bytes."""

    STRICT: ClassVar[bool] = True
    source: ReferenceSource = wire(1, Choice(ReferenceSource))
    offset: int = wire(2, UInt(_MAX_DEVICE_BYTES))
    length: int = wire(3, UInt(MAX_REFERENCE_BYTES))

    def check(self) -> None:
        """Refuse an empty range."""
        if not self.length:
            raise MalformedError("an empty reference")


@dataclasses.dataclass(frozen=True)
class TreePart(Record):
    """A stretch of what a hash tree is over: `length` bytes of the bundle from `offset` on, or zeros if that is None.

    Zeros, because the bundle's file system leaves out what is empty in a file.
    """

    STRICT: ClassVar[bool] = True
    length: int = wire(1, UInt(MAX_BUNDLE_BYTES))
    offset: int | None = wire(2, UInt(MAX_BUNDLE_BYTES), default=None)

    def check(self) -> None:
        """Refuse half blocks."""
        if not self.length or self.length % BLOCK_BYTES:
            raise MalformedError("a part of a tree's data is not whole blocks")


@dataclasses.dataclass(frozen=True)
class Segment(Record):
    """A piece of the bundle.

    Attributes:
        length: Bytes in the bundle.
        sha256: Of these bytes.
        packed: Bytes in the payload file; 0 for a computed segment.
        references: What it was compressed against, in this order; empty for a segment that needs nothing.
        tree_parts: What a computed segment is the hash tree over, in this order.
        tree_salt: That tree's salt, or None.
    """

    STRICT: ClassVar[bool] = True
    length: int = wire(1, UInt(MAX_SEGMENT_BYTES))
    sha256: bytes = wire(2, Octets(32))
    packed: int = wire(3, UInt(MAX_PACKED_BYTES))
    references: tuple[Reference, ...] = wire(4, Several(Nested(Reference), MAX_REFERENCES), default=())
    tree_parts: tuple[TreePart, ...] = wire(5, Several(Nested(TreePart), MAX_TREE_PARTS), default=())
    tree_salt: bytes | None = wire(6, Octets(32), default=None)

    @property
    def is_computed(self) -> bool:
        """Whether nothing has to be fetched for it."""
        return self.tree_salt is not None

    @property
    def tree_end(self) -> int:
        """How much of the bundle has to be there before it can be computed."""
        return max((part.offset + part.length for part in self.tree_parts if part.offset is not None), default=0)

    def check(self) -> None:
        """Refuse what is empty, what is neither packed nor computed, and more references than fit into memory."""
        if not self.length or bool(self.packed) == self.is_computed or self.is_computed != bool(self.tree_parts):
            raise MalformedError("a segment is packed or computed, and never empty")
        if self.is_computed and (self.references or self._tree_bytes() != self.length):
            raise MalformedError("no segment has such a tree")
        if sum(item.length for item in self.references) > MAX_REFERENCE_BYTES:
            raise MalformedError(f"references of more than {MAX_REFERENCE_BYTES} bytes")

    def _tree_bytes(self) -> int:
        total = sum(part.length for part in self.tree_parts)
        return tree_bytes(total) if total <= MAX_BUNDLE_BYTES else 0

    def matches(self, data: bytes | bytearray | memoryview) -> bool:
        """Tell whether these are the segment's bytes."""
        return len(data) == self.length and hashlib.sha256(data).digest() == self.sha256


@dataclasses.dataclass(frozen=True)
class Place:
    """A segment and where its bytes lie; both offsets in bytes."""

    number: int
    bundle_offset: int
    payload_offset: int
    segment: Segment


def _check_base(value: str) -> None:
    if value:
        check_firmware_version(value)


@dataclasses.dataclass(frozen=True)
class SegmentIndex(Record):
    """The index of a payload.

    Attributes:
        bundle_length: Bytes of the bundle.
        bundle_sha256: Of the bundle.
        payload_length: Bytes of the payload file.
        segments: In the bundle's order.
        base: Version that must be running; empty when nothing is referred to.
        base_roothash: Root hash (dm-verity) of that version's root file system, so that a box notices another build
            of the same version before it fetches anything; None when nothing is referred to.
    """

    MAX_BYTES: ClassVar[int] = MAX_INDEX_BYTES
    MAX_ITEMS: ClassVar[int] = MAX_SEGMENTS
    STRICT: ClassVar[bool] = True

    bundle_length: int = wire(1, UInt(MAX_BUNDLE_BYTES))
    bundle_sha256: bytes = wire(2, Octets(32))
    payload_length: int = wire(3, UInt(MAX_PAYLOAD_BYTES))
    segments: tuple[Segment, ...] = wire(4, Several(Nested(Segment), MAX_SEGMENTS))
    base: str = wire(5, Checked(Text(MAX_VERSION_LENGTH), _check_base), default="")
    base_roothash: bytes | None = wire(6, Octets(32), default=None)

    def check(self) -> None:
        """Check that the segments make up bundle and payload, and refer to something only if there is a base."""
        if not self.segments:
            raise MalformedError("an index without segments")
        if sum(item.length for item in self.segments) != self.bundle_length:
            raise MalformedError("the segments do not make up the bundle")
        if sum(item.packed for item in self.segments) != self.payload_length:
            raise MalformedError("the segments do not make up the payload")
        if bool(self.base) != (self.base_roothash is not None):
            raise MalformedError("a base and its root hash come together")
        if any(place.segment.tree_end > place.bundle_offset for place in self.places()):
            raise MalformedError("a tree over what is not there yet")
        if not self.base and any(item.references for item in self.segments):
            raise MalformedError("references without a base")

    def places(self) -> tuple[Place, ...]:
        """Return every segment with its offsets."""
        bundle = itertools.accumulate((item.length for item in self.segments), initial=0)
        payload = itertools.accumulate((item.packed for item in self.segments), initial=0)
        return tuple(
            Place(number, offset, packed_offset, segment)
            for number, (segment, offset, packed_offset) in enumerate(zip(self.segments, bundle, payload, strict=False))
        )

    def resume(self, have: int) -> Place | None:
        """Return the first segment that does not lie within the first `have` bytes of the bundle; None when all do.

        What is there beyond that segment's `bundle_offset` is half a segment, and has to go.
        """
        return next((place for place in self.places() if place.bundle_offset + place.segment.length > have), None)
