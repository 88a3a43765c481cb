"""The index of a payload: its arithmetic, its bounds, going on after a cut."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import segments
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError
from omamori_protocol.segments import Reference, ReferenceSource, Segment, SegmentIndex, TreePart

HASH = bytes(32)


def reference(length: int = 4096, source: ReferenceSource = ReferenceSource.ROOT) -> Reference:
    return Reference(source=source, offset=8192, length=length)


def segment(length: int, packed: int, *references: Reference) -> Segment:
    return Segment(length=length, sha256=HASH, packed=packed, references=references)


def index(*items: Segment, **changes: Any) -> SegmentIndex:
    values = {
        "bundle_length": sum(item.length for item in items),
        "bundle_sha256": HASH,
        "payload_length": sum(item.packed for item in items),
        "segments": items,
        "base": "1.2.2",
        "base_roothash": HASH,
    }
    return SegmentIndex(**(values | changes))


def over(*parts: TreePart, length: int = 4096) -> Segment:
    return Segment(length=length, sha256=HASH, packed=0, tree_parts=parts, tree_salt=HASH)


def computed(offset: int, length: int, tree_length: int = 4096) -> Segment:
    return over(TreePart(length, offset), length=tree_length)


THREE = index(segment(10, 3), segment(20, 4, reference(), reference(5, ReferenceSource.BOOT)), segment(30, 5))


def test_index_survives() -> None:
    with_holes = over(TreePart(4096, 5), TreePart(4096), TreePart(4096, 1))
    with_tree = index(segment(5, 1), segment(8192, 1), computed(5, 8192), with_holes, base="", base_roothash=None)
    for item in (THREE, with_tree, index(segment(1, 1), base="", base_roothash=None)):
        assert SegmentIndex.decode(item.encode()) == item


def test_places_follow_from_the_lengths() -> None:
    places = THREE.places()
    assert [(item.number, item.bundle_offset, item.payload_offset) for item in places] == [
        (0, 0, 0),
        (1, 10, 3),
        (2, 30, 7),
    ]
    assert tuple(item.segment for item in places) == THREE.segments


def test_it_goes_on_at_the_first_segment_that_is_not_whole() -> None:
    for have, number in ((0, 0), (9, 0), (10, 1), (29, 1), (30, 2), (59, 2)):
        place = THREE.resume(have)
        assert place is not None
        assert place.number == number
        assert place.bundle_offset <= have
    assert THREE.resume(60) is None


def test_a_segment_knows_its_bytes() -> None:
    data = b"segment"
    item = Segment(length=len(data), sha256=hashlib.sha256(data).digest(), packed=1)
    assert item.matches(data)
    assert item.matches(memoryview(data))
    assert not item.matches(data + b"\0")
    assert not item.matches(b"Segment")


@pytest.mark.parametrize(
    "bad",
    [
        index,
        lambda: index(segment(0, 1)),
        lambda: index(segment(1, 0)),
        lambda: index(segment(1, 1), bundle_length=2),
        lambda: index(segment(1, 1), payload_length=2),
        lambda: index(segment(1, 1), bundle_sha256=b"short"),
        lambda: index(segment(segments.MAX_SEGMENT_BYTES + 1, 1)),
        lambda: index(segment(1, segments.MAX_PACKED_BYTES + 1)),
        lambda: index(segment(1, 1, *[reference()] * (segments.MAX_REFERENCES + 1))),
        lambda: index(segment(1, 1, reference(segments.MAX_REFERENCE_BYTES), reference(1))),
        lambda: index(segment(1, 1, reference(segments.MAX_REFERENCE_BYTES + 1))),
        lambda: index(segment(1, 1, reference(0))),
        lambda: index(segment(1, 1, reference()), base="", base_roothash=None),
        lambda: index(segment(1, 1), base="1.2.2", base_roothash=None),
        lambda: index(segment(1, 1), base="", base_roothash=HASH),
        lambda: index(segment(1, 1), base="../x"),
        lambda: index(segment(8192, 1), computed(1, 8192)),  # beyond what is there
        lambda: index(computed(0, 8192), segment(8192, 1)),
        lambda: index(segment(8192, 1), computed(0, 8192, 8192)),
        lambda: index(segment(8192, 1), computed(0, 4096)),
        lambda: index(segment(8192, 1), computed(0, 8191)),
        lambda: index(segment(8192, 1), computed(0, 0)),
        lambda: index(segment(8192, 1), dataclasses.replace(computed(0, 8192), packed=1)),
        over,
        lambda: over(*[TreePart(4096)] * (segments.MAX_TREE_PARTS + 1)),
        lambda: over(*[TreePart(2**29)] * 3),
        lambda: dataclasses.replace(computed(0, 8192), tree_salt=None),
        lambda: dataclasses.replace(segment(8192, 1), tree_salt=HASH),
        lambda: index(segment(8192, 1), over(TreePart(8191, 0))),
        lambda: index(segment(8192, 1), dataclasses.replace(computed(0, 8192), references=(reference(),))),
        lambda: index(*[segment(1, 1)] * (segments.MAX_SEGMENTS + 1)),
    ],
)
def test_a_broken_rule_is_refused(bad: Any) -> None:
    with pytest.raises((MalformedError, OversizeError)):
        bad().encode()


def test_as_many_segments_as_allowed_fit_into_the_index() -> None:
    most = index(*[segment(2**19, 2**19)] * segments.MAX_SEGMENTS, base="", base_roothash=None)
    data = most.encode()
    assert SegmentIndex.decode(data) == most
    with pytest.raises(OversizeError):
        SegmentIndex.decode(data + bytes(segments.MAX_INDEX_BYTES - len(data) + 1))


def test_unknown_keys_and_other_bytes_are_refused() -> None:
    data = THREE.encode()
    for bad in (data + b"\0", data[:-1], b"", b"\xa0", dataclasses.replace(THREE, base="1.2.1").encode()[1:]):
        with pytest.raises(ProtocolError):
            SegmentIndex.decode(bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        SegmentIndex.decode(data)
