"""Bytes from outside cost a known amount of memory and consist of plain values, or are refused."""

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import cbor
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError

LIMIT = 4096


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(-100, 100), inner, max_size=4),
    max_leaves=8,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 1


@given(plain.filter(lambda value: depth(value) <= cbor.MAX_DEPTH))
def test_plain_values_survive_the_round_trip(value: object) -> None:
    assert cbor.decode(cbor.encode(value), max_bytes=LIMIT) == value


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_a_value_or_a_refusal(data: bytes) -> None:
    try:
        value = cbor.decode(data, max_bytes=64)
    except ProtocolError:
        return
    assert cbor.encode(value) == data


def test_input_one_byte_longer_than_allowed() -> None:
    data = cbor.encode("x" * 20)
    assert cbor.decode(data, max_bytes=len(data)) == "x" * 20
    with pytest.raises(OversizeError) as caught:
        cbor.decode(data, max_bytes=len(data) - 1)
    assert caught.value.limit == len(data) - 1


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("5b7fffffffffffffff"),  # 2^63-1 bytes announced
        bytes.fromhex("7b7fffffffffffffff"),  # as much text
        bytes.fromhex("9b7fffffffffffffff"),  # as many items
        bytes.fromhex("bb7fffffffffffffff"),  # as many pairs
        bytes.fromhex("9affffffff01"),
        bytes.fromhex("baffffffff0101"),
        bytes.fromhex("a1015affffffff00"),
    ],
)
def test_huge_declared_length_is_refused_without_reserving_it(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        cbor.decode(data, max_bytes=LIMIT)


def test_one_level_deeper_than_allowed() -> None:
    # The innermost integer is a level of its own.
    assert cbor.decode(cbor2.dumps(nested(cbor.MAX_DEPTH - 1)), max_bytes=LIMIT) == nested(cbor.MAX_DEPTH - 1)
    with pytest.raises(ProtocolError):
        cbor.decode(cbor2.dumps(nested(cbor.MAX_DEPTH)), max_bytes=LIMIT)


@pytest.mark.parametrize("innermost", [None, True, "text", b"bytes", 1, []])
@pytest.mark.parametrize("holder", [lambda item: [item], lambda item: {1: item}])
def test_whatever_stands_on_the_level_too_deep(holder: Any, innermost: Any) -> None:
    value = innermost
    for _ in range(cbor.MAX_DEPTH - 1):
        value = holder(value)
    assert cbor.decode(cbor2.dumps(value), max_bytes=LIMIT) == value
    with pytest.raises(ProtocolError, match="deeper"):
        cbor.decode(cbor2.dumps(holder(value)), max_bytes=LIMIT)


def test_very_deep_nesting_does_not_exhaust_the_stack() -> None:
    with pytest.raises(ProtocolError):
        cbor.decode(b"\x81" * 4000 + b"\x01", max_bytes=LIMIT)


def test_one_item_more_than_a_container_may_hold() -> None:
    full = list(range(cbor.MAX_ITEMS))
    assert cbor.decode(cbor.encode(full), max_bytes=LIMIT) == full
    with pytest.raises(OversizeError):
        cbor.decode(cbor.encode([*full, 1]), max_bytes=LIMIT)
    with pytest.raises(OversizeError):
        cbor.decode(cbor.encode(dict.fromkeys(range(cbor.MAX_ITEMS + 1), 0)), max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes.fromhex("a201010102"), "duplicate key"),
        (bytes.fromhex("a1616101"), "key that is text"),
        (bytes.fromhex("a1f501"), "key that is a boolean"),
        (bytes.fromhex("a1f9000001"), "key that is a float"),
        (bytes.fromhex("c11a514b67b0"), "tag: time"),
        (bytes.fromhex("d9d9f701"), "tag: self-described"),
        (bytes.fromhex("c249010000000000000000"), "tag: bignum"),
        (bytes.fromhex("d81c8101"), "tag: shared value"),
        (bytes.fromhex("a101c001"), "tag inside a map"),
        (bytes.fromhex("f7"), "undefined"),
        (bytes.fromhex("f0"), "unassigned simple value"),
        (bytes.fromhex("5f4101ff"), "bytes of indefinite length"),
        (bytes.fromhex("7f6161ff"), "text of indefinite length"),
        (bytes.fromhex("9f01ff"), "array of indefinite length"),
        (bytes.fromhex("bf0101ff"), "map of indefinite length"),
        (bytes.fromhex("1801"), "integer not in its shortest form"),
        (bytes.fromhex("a202020101"), "keys not in order"),
        (bytes.fromhex("0101"), "something follows"),
        (bytes.fromhex("61ff"), "text that is not UTF-8"),
        (bytes.fromhex("ff"), "break without a beginning"),
        (bytes.fromhex("a1"), "truncated"),
        (b"", "empty"),
    ],
)
def test_what_the_rules_forbid(data: bytes, why: str) -> None:
    with pytest.raises(MalformedError):
        cbor.decode(data, max_bytes=LIMIT)
