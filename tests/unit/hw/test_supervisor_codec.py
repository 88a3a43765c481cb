"""Both ends of the supervisor's link, held against the same vectors, against cbor2 and against each other."""

import importlib
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omamori_hw.errors import BadMessageError
from omamori_hw.supervisor import frames, messages
from omamori_hw.supervisor.messages import FIELDS, Kind

PLACE = Path(__file__).resolve().parents[3] / "hw" / "supervisor"


class Firmware:
    """The modules of the microcontroller, as CPython runs them."""

    def __init__(self) -> None:
        sys.path[:0] = [str(PLACE / "lib"), str(PLACE / "tests")]
        try:
            self.cbor, self.frames, self.messages = (self._load(name) for name in ("cbor", "frames", "messages"))
            self.vectors = importlib.import_module("vectors")
        finally:
            del sys.path[:2]

    def _load(self, name: str) -> Any:
        module: ModuleType = importlib.import_module(f"supervisor.{name}")
        return module


FIRMWARE = Firmware()

small = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 32), (1 << 32) - 1),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=64),
    st.binary(max_size=80),
)
values = st.recursive(
    small,
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.integers(-24, 23), inner, max_size=6)),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, (list, dict)):
        inside = value.values() if isinstance(value, dict) else value
        return 1 + max((depth(item) for item in inside), default=0)
    return 0


def accepts(decode: Any, data: bytes) -> tuple[bool, Any]:
    try:
        return True, decode(data)
    except (BadMessageError, FIRMWARE.cbor.CborError):
        return False, None


@pytest.fixture(autouse=True)
def _modules_of_the_firmware_do_not_stay() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in {"supervisor", "vectors"}]:
        sys.modules.pop(name)


def test_vectors_at_the_boxs_end() -> None:
    for value, spelling in FIRMWARE.vectors.GOOD:
        assert messages.loads(bytes.fromhex(spelling)) == value
    for spelling, why in FIRMWARE.vectors.BAD:
        assert not accepts(messages.loads, bytes.fromhex(spelling))[0], why
    for sequence, body, frame in FIRMWARE.vectors.FRAMES:
        made = frames.encode(sequence, bytes.fromhex(body))
        assert made == FIRMWARE.frames.encode(sequence, bytes.fromhex(body))
        assert frame is None or made.hex() == frame


@settings(max_examples=400, deadline=None)
@given(values)
def test_what_the_firmware_writes_is_what_cbor2_writes(value: Any) -> None:
    expected = cbor2.dumps(value, canonical=True)
    if depth(value) > 4 or len(expected) > 240:
        with pytest.raises(FIRMWARE.cbor.CborError):
            FIRMWARE.cbor.dumps(value)
        return
    assert FIRMWARE.cbor.dumps(value) == expected
    assert FIRMWARE.cbor.loads(expected) == cbor2.loads(expected) == messages.loads(expected) == value


@settings(max_examples=600, deadline=None)
@given(values, st.data())
def test_both_ends_accept_and_refuse_the_same(value: Any, data: st.DataObject) -> None:
    raw = bytearray(cbor2.dumps(value, canonical=True))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    here, there = accepts(messages.loads, bytes(raw)), accepts(FIRMWARE.cbor.loads, bytes(raw))
    assert here == there
    if there[0]:
        assert cbor2.dumps(there[1], canonical=True) == bytes(raw)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=250))
def test_random_bytes_are_read_alike(data: bytes) -> None:
    assert accepts(messages.loads, data) == accepts(FIRMWARE.cbor.loads, data)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(min_size=1, max_size=240), st.binary(max_size=300)), max_size=6), st.data())
def test_both_decoders_find_the_same_frames_in_any_stream(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b""
    for number, piece in enumerate(pieces):
        whole = len(piece) in range(1, 241) and data.draw(st.booleans())
        stream += frames.encode(number, piece) if whole else piece
    here, there = frames.Decoder(), FIRMWARE.frames.Decoder()
    found_here, found_there = [], []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found_here += here.feed(stream[:size])
        found_there += there.feed(stream[:size])
        stream = stream[size:]
    assert found_here == found_there
    assert vars(here.counters) == {name: getattr(there, name) for name in ("good", "damaged", "repeated", "lost")}


@pytest.mark.parametrize("end", ["box", "supervisor"])
def test_a_line_with_one_flipped_bit_in_a_hundred_never_makes_a_wrong_frame(end: str) -> None:
    dice = random.Random(7)
    decoder = frames.Decoder() if end == "box" else FIRMWARE.frames.Decoder()
    sent = set()
    came = 0
    for number in range(4_000):
        body = messages.build(Kind.REPORT, dice.randint(1, 3), dice.randint(50, 2000))
        sent.add(body)
        frame = bytearray(frames.encode(number, body))
        for bit in range(8 * len(frame)):
            if dice.random() < 0.01:
                frame[bit >> 3] ^= 1 << (bit & 7)
        for found in decoder.feed(bytes(frame)):
            assert found in sent
            came += 1
    assert 400 < came < 2_000


@pytest.mark.parametrize("end", ["box", "supervisor"])
def test_a_stream_without_an_end_costs_no_memory(end: str) -> None:
    decoder = frames.Decoder() if end == "box" else FIRMWARE.frames.Decoder()
    for _ in range(1000):
        assert decoder.feed(b"\x55" * 4096) == []
    held = decoder.held if end == "box" else len(decoder._piece)
    assert held <= 247


def test_the_two_tables_of_messages_are_the_same() -> None:
    there = FIRMWARE.messages.FIELDS
    assert {int(kind) for kind in FIELDS} == set(there)
    for kind, ranges in FIELDS.items():
        assert [None if isinstance(limits, type) else limits for limits in ranges] == list(there[int(kind)]), kind
        assert getattr(FIRMWARE.messages, kind.name) == int(kind)
    for kind in messages.EventKind:
        assert getattr(FIRMWARE.messages, f"EVENT_{kind.name}") == int(kind)
    for result in messages.Result:
        assert getattr(FIRMWARE.messages, result.name) == int(result)
    assert FIRMWARE.messages.PROTOCOL == messages.PROTOCOL


@pytest.mark.parametrize("kind", list(Kind))
def test_a_message_crosses_at_both_ends_of_its_ranges_and_not_beyond(kind: Kind) -> None:
    def fill(end: int) -> list[Any]:
        return [
            ("text" if limits is str else b"raw") if isinstance(limits, type) else limits[end]
            for limits in FIELDS[kind]
        ]

    for end in (0, 1):
        body = messages.build(kind, *fill(end))
        assert messages.parse(body) == (kind, fill(end))
        assert FIRMWARE.messages.parse(body) == (int(kind), fill(end))
        assert FIRMWARE.messages.build(int(kind), *fill(end)) == body
    for position, limits in enumerate(FIELDS[kind]):
        for wrong in [1] if isinstance(limits, type) else [limits[0] - 1, limits[1] + 1, None, "1"]:
            values = fill(0)
            values[position] = wrong
            with pytest.raises(BadMessageError):
                messages.build(kind, *values)
            raw = cbor2.dumps({0: int(kind), **dict(enumerate(values, 1))}, canonical=True)
            for parse in (messages.parse, FIRMWARE.messages.parse):
                assert not accepts(parse, raw)[0]


def test_what_is_no_message() -> None:
    for value in ([], {}, 1, None, {1: 1}, {0: 99}, {0: True, 1: 1}, {0: 7}, {0: 7, 1: 1, 2: 1}, {0: [7], 1: 1}):
        for parse in (messages.parse, FIRMWARE.messages.parse):
            assert not accepts(parse, cbor2.dumps(value, canonical=True))[0], value


def test_text_in_a_message_is_short_and_plain() -> None:
    for text in ("x" * 65, "日本", "a\nb"):
        with pytest.raises(BadMessageError):
            messages.build(Kind.HELLO, 1, 1, text)


def test_every_kind_of_message_is_in_the_manual() -> None:
    text = (PLACE.parents[1] / "docs" / "supervisor.md").read_text()
    described = {(int(number), name) for number, name in re.findall(r"^\| (\d+) ([A-Z]+) \|", text, re.MULTILINE)}
    assert described == {(int(kind), kind.name) for kind in Kind}
