"""What becomes of a delivery, before any database."""

from __future__ import annotations

import zlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_cloud.intake import MAX_DETAIL, Delivery, Message, Refusal, canonical_address, occurred_ms, take_in
from omamori_protocol.messages import Event, Heartbeat, State

from .makers import NOW_MS, alert, diagnostics, heartbeat, state

TOPIC = "omamori/v1/ZA35-000001"


def deliver(topic: str, payload: bytes, content_type: str | None = "application/cbor") -> Message | Refusal:
    return take_in(Delivery(topic=topic, payload=payload, received_ms=NOW_MS, content_type=content_type))


@pytest.mark.parametrize(
    ("leaf", "body", "kind"),
    [("hb", heartbeat(), Heartbeat), ("state", state(), State), ("evt", alert(), Event)],
)
def test_a_good_message_is_taken_in(leaf: str, body: Heartbeat | State | Event, kind: type) -> None:
    taken = deliver(f"{TOPIC}/{leaf}", body.encode())
    assert isinstance(taken, Message)
    assert taken.device == "ZA35-000001"
    assert isinstance(taken.body, kind)
    assert taken.body == body


def test_diagnostics_that_nobody_could_read_are_refused() -> None:
    topic = f"{TOPIC}/job/0001020304050607"
    assert isinstance(deliver(topic, diagnostics().encode()), Message)
    for content, reason in ((b"junk", "malformed"), (zlib.compress(bytes(2**20)), "oversize")):
        refused = deliver(topic, diagnostics(content=content).encode())
        assert isinstance(refused, Refusal)
        assert (refused.device, refused.reason) == ("ZA35-000001", reason)


def test_the_leaf_decides_the_type_not_the_payload() -> None:
    refused = deliver(f"{TOPIC}/hb", alert().encode())
    assert isinstance(refused, Refusal)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"\xff\xff", "malformed"),
        (b"not cbor at all", "malformed"),
        (cbor2.dumps([1, 2, 3]), "malformed"),
        (cbor2.dumps({0: 1}), "malformed"),
        (alert().encode() + b"\x00", "malformed"),
        (cbor2.dumps({0: 2, 1: 1}), "unknown-version"),
        (cbor2.dumps({1: 1}), "unknown-version"),
        (b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", "malformed"),
        (b"\x9a\xff\xff\xff\xff" + b"\x01" * 10, "malformed"),
    ],
)
def test_a_bad_payload_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    refused = deliver(f"{TOPIC}/evt", payload)
    assert isinstance(refused, Refusal)
    assert refused.device == "ZA35-000001"
    assert refused.reason == reason
    assert refused.detail.startswith("evt: ")


def test_one_byte_more_than_a_message_may_have() -> None:
    at_bound = deliver(f"{TOPIC}/evt", b"\x00" * Event.MAX_BYTES)
    beyond = deliver(f"{TOPIC}/evt", b"\x00" * (Event.MAX_BYTES + 1))
    assert isinstance(at_bound, Refusal)
    assert at_bound.reason == "malformed"
    assert isinstance(beyond, Refusal)
    assert beyond.reason == "oversize"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "omamori/v1/za35-000001/evt",
        "omamori/v1/ZA35-000001/cmd",
        "omamori/v1/ZA35-000001/evt/x",
        "omamori/v2/ZA35-000001/evt",
        "omamori/v1/../evt",
        "omamori/v1/A/evt",
        "x" * 1000,
    ],
)
def test_a_topic_that_names_no_device(topic: str) -> None:
    refused = deliver(topic, alert().encode())
    assert isinstance(refused, Refusal)
    assert (refused.device, refused.reason) == ("", "topic")
    assert len(refused.detail) <= MAX_DETAIL


def test_a_stated_other_content_type_is_refused_an_absent_one_is_not() -> None:
    assert isinstance(deliver(f"{TOPIC}/evt", alert().encode(), None), Message)
    refused = deliver(f"{TOPIC}/evt", alert().encode(), "application/json" + "x" * 500)
    assert isinstance(refused, Refusal)
    assert refused.reason == "content-type"
    assert len(refused.detail) <= MAX_DETAIL


@given(st.binary(max_size=3000), st.sampled_from(["hb", "state", "evt"]))
def test_no_payload_whatsoever_raises(payload: bytes, leaf: str) -> None:
    result = deliver(f"{TOPIC}/{leaf}", payload)
    assert isinstance(result, (Message, Refusal))


@pytest.mark.parametrize(
    ("at_ms", "believed"),
    [
        (NOW_MS, True),
        (NOW_MS - 30 * 86_400_000, True),
        (NOW_MS - 365 * 86_400_000, True),
        (NOW_MS - 365 * 86_400_000 - 1, False),
        (NOW_MS + 600_000, True),
        (NOW_MS + 600_001, False),
        (0, False),
        (2**63 - 1, False),
    ],
)
def test_a_plainly_wrong_clock_is_not_believed(at_ms: int, believed: bool) -> None:
    assert occurred_ms(at_ms, NOW_MS) == (at_ms if believed else NOW_MS)


def test_an_address_has_one_form() -> None:
    assert canonical_address("2001:0db8:0000:0000:0000:0000:0000:0001") == "2001:db8::1"
    assert canonical_address("192.168.10.11") == "192.168.10.11"
    assert canonical_address("not an address") == "not an address"
    assert canonical_address(None) is None
