"""Diagnostics on the wire: there and back, bounded on both sides, and never more than they say."""

import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import cbor
from omamori_protocol.diagnostics import (
    MAX_COMPRESSED_BYTES,
    MAX_CONTENT_BYTES,
    Diagnostics,
    compress,
    decompress,
)
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError
from omamori_protocol.topics import Leaf, any_device, job_topic, parse_device_topic

CONTENT = {"format": 1, "log": ["電源が入りました", "two"], "load": "0.1"}


def test_there_and_back() -> None:
    record = Diagnostics(command_id=bytes(range(8)), at_s=1_790_000_000, content=compress(CONTENT))
    assert Diagnostics.decode(record.encode()) == record
    assert decompress(record.content) == CONTENT


def test_bytes_on_the_wire_never_change() -> None:
    record = Diagnostics(command_id=bytes(range(8)), at_s=1_790_000_000, content=b"\x78\x9c")
    assert record.encode().hex() == "a400010148000102030405060702" + "1a6ab13b80" + "0342789c"


def test_largest_and_one_byte_more() -> None:
    whole = Diagnostics(command_id=bytes(8), at_s=2**63 - 1, content=bytes(MAX_COMPRESSED_BYTES))
    assert len(whole.encode()) <= Diagnostics.MAX_BYTES
    more = cbor.encode({0: 1, 1: bytes(8), 2: 0, 3: bytes(MAX_COMPRESSED_BYTES + 1)})
    with pytest.raises(OversizeError):
        Diagnostics.decode(more)
    with pytest.raises(MalformedError):
        Diagnostics.decode(cbor.encode({0: 1, 1: bytes(8), 2: 0, 3: "text"}))
    with pytest.raises(OversizeError):
        compress({"noise": random.Random(1).randbytes(MAX_COMPRESSED_BYTES).hex()})
    frame = len(json.dumps({"x": ""}, separators=(",", ":")))
    assert decompress(compress({"x": "a" * (MAX_CONTENT_BYTES - frame)}))
    with pytest.raises(OversizeError):
        compress({"x": "a" * (MAX_CONTENT_BYTES - frame + 1)})


@pytest.mark.parametrize(
    ("packed", "error"),
    [
        (zlib.compress(bytes(50_000_000)), OversizeError),  # 48 KiB that would become 50 MB
        (zlib.compress(b" " * (MAX_CONTENT_BYTES + 1)), OversizeError),
        (compress(CONTENT)[:-1], MalformedError),
        (compress(CONTENT) + b"x", MalformedError),
        (zlib.compress(b"[1]"), MalformedError),
        (zlib.compress(b"{"), MalformedError),
        (zlib.compress(b"[" * 100_000), MalformedError),
        (zlib.compress(b"\xff\xfe"), MalformedError),
        (b"", MalformedError),
    ],
)
def test_content_that_is_none(packed: bytes, error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        decompress(packed)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_never_do_more_than_be_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decompress(data)
    with pytest.raises(ProtocolError):
        Diagnostics.decode(data)


def test_topic_of_an_answer() -> None:
    topic = job_topic("ZA35-000001", bytes(range(8)))
    assert topic == "omamori/v1/ZA35-000001/job/0001020304050607"
    assert parse_device_topic(topic) == ("ZA35-000001", Leaf.JOB)
    assert any_device(Leaf.JOB) == "omamori/v1/+/job/+"


@pytest.mark.parametrize("end", ["job", "job/", "job/00010203040506", "job/000102030405060X", "job/" + "0" * 16 + "/0"])
def test_topics_that_are_none(end: str) -> None:
    with pytest.raises(MalformedError):
        parse_device_topic(f"omamori/v1/ZA35-000001/{end}")
    with pytest.raises(MalformedError):
        parse_device_topic("omamori/v1/ZA35-000001/evt/0001020304050607")
