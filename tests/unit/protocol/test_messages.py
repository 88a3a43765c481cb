"""Messages keep their bytes (golden vectors), survive the round trip, and refuse what their schema does not allow."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import cbor, messages
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError, UnknownVersionError
from omamori_protocol.messages import Event, FeedAnnouncement, Heartbeat, State, SupervisorState
from omamori_protocol.record import Choice, Flag, Int, Nested, Octets, Record, Text, UInt
from omamori_protocol.vocabulary import EngineState, EventKind, FeedState, Presence, Severity, Slot

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "messages.json").read_text(encoding="utf-8"))
TYPES: list[type[Record]] = [Heartbeat, State, Event, FeedAnnouncement]


def from_vector(vector: dict[str, Any]) -> Record:
    """Build the message that a vector describes in words."""
    return from_words(getattr(messages, vector["message"]), vector["fields"])


def from_words(kind: Any, words: dict[str, Any]) -> Any:
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in words:
            value, how = words[field.name], field.metadata["kind"]
            if isinstance(how, Choice):
                value = how.enum.from_word(value)
            elif isinstance(how, Octets):
                value = bytes.fromhex(value)
            elif isinstance(how, Nested):
                value = from_words(how.record, value)
            values[field.name] = value
    assert set(words) == set(values)
    return kind(**values)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case UInt():
            return st.integers(0, kind.maximum)
        case Int():
            return st.integers(kind.minimum, kind.maximum)
        case Flag():
            return st.booleans()
        case Nested():
            return any_message(kind.record)
        case Text():
            characters = st.characters(blacklist_categories=["Cc", "Cs"])
            return st.text(characters, max_size=min(kind.maximum, 40))
        case Octets():
            return st.binary(min_size=kind.length, max_size=kind.length)
        case Choice():
            return st.sampled_from(list(kind.enum))
    raise AssertionError(kind)


def any_message(kind: type[Record]) -> st.SearchStrategy[Record]:
    parts = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        value = values_of(field.metadata["kind"])
        parts[field.name] = st.none() | value if field.default is None else value
    return st.builds(kind, **parts)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_golden_vector(vector: dict[str, Any]) -> None:
    message = from_vector(vector)
    assert message.encode().hex() == vector["hex"]
    assert type(message).decode(bytes.fromhex(vector["hex"])) == message


def test_every_message_has_a_golden_vector() -> None:
    assert {vector["message"] for vector in VECTORS} == {kind.__name__ for kind in TYPES}


@pytest.mark.parametrize("kind", TYPES)
def test_round_trip(kind: type[Record]) -> None:
    @given(any_message(kind))
    def check(message: Record) -> None:
        data = message.encode()
        assert len(data) <= kind.MAX_BYTES
        assert kind.decode(data) == message

    check()


@pytest.mark.parametrize("kind", TYPES)
def test_arbitrary_bytes_never_do_more_than_be_refused(kind: type[Record]) -> None:
    @given(
        st.binary(max_size=80)
        | st.dictionaries(st.integers(0, 26), st.integers() | st.text(), max_size=12).map(cbor.encode)
    )
    def check(data: bytes) -> None:
        try:
            kind.decode(data)
        except ProtocolError:
            return

    check()


def largest(kind: type[Record]) -> Record:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        match field.metadata["kind"]:
            case UInt(maximum):
                values[field.name] = maximum
            case Int(minimum, _maximum):
                values[field.name] = minimum
            case Flag():
                values[field.name] = True
            case Text(maximum):
                values[field.name] = "x" * maximum
            case Octets(length):
                values[field.name] = bytes(length)
            case Choice(enum):
                values[field.name] = max(enum)
            case Nested(record):
                values[field.name] = largest(record)
            case other:
                raise AssertionError(other)
    return kind(**values)


@pytest.mark.parametrize("kind", TYPES)
def test_largest_message_fits_and_one_byte_more_does_not(kind: type[Record]) -> None:
    assert len(largest(kind).encode()) <= kind.MAX_BYTES
    with pytest.raises(OversizeError):
        kind.decode(bytes(kind.MAX_BYTES + 1))


def test_a_heartbeat_is_small() -> None:
    longest = next(vector for vector in VECTORS if vector["name"] == "heartbeat of a protecting box")
    assert len(bytes.fromhex(longest["hex"])) <= 120  # with topic, properties and TLS it stays below 200 on the wire


def announcement(**changes: Any) -> bytes:
    return cbor.encode({0: 1, 1: 5} | {int(key[1:]): value for key, value in changes.items()})


def test_unknown_schema_version() -> None:
    with pytest.raises(UnknownVersionError) as caught:
        FeedAnnouncement.decode(announcement(_0=2))
    assert caught.value.version == 2
    with pytest.raises(UnknownVersionError):
        FeedAnnouncement.decode(cbor.encode({1: 5}))


def test_unknown_keys_of_a_newer_sender_are_ignored() -> None:
    assert FeedAnnouncement.decode(announcement(_9="new")) == FeedAnnouncement(serial=5)


@pytest.mark.parametrize("value", [-1, 2**32, 1.0, True, "5", None, b"5", [5]])
def test_number_of_another_type_or_out_of_range(value: object) -> None:
    with pytest.raises(MalformedError):
        FeedAnnouncement.decode(announcement(_1=value))


@pytest.mark.parametrize("value", [-129, 128, 1.0, True, "5", b"5"])
def test_signed_number_of_another_type_or_out_of_range(value: object) -> None:
    kind = Int(-128, 127)
    assert (kind.from_wire(-128), kind.to_wire(127)) == (-128, 127)
    for check in (kind.from_wire, kind.to_wire):
        with pytest.raises(MalformedError):
            check(value)


def test_missing_field() -> None:
    with pytest.raises(MalformedError, match="serial"):
        FeedAnnouncement.decode(cbor.encode({0: 1}))


def test_something_that_is_no_map() -> None:
    with pytest.raises(MalformedError):
        FeedAnnouncement.decode(cbor.encode([1, 5]))


EVENT = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (4, 0, MalformedError),  # no such kind
        (4, 7, MalformedError),
        (5, 4, MalformedError),  # four stars
        (6, True, MalformedError),
        (9, "1" * 46, OversizeError),  # address of one character too many
        (10, bytes(5), MalformedError),
        (10, bytes(7), MalformedError),
        (11, "x" * 256, OversizeError),
        (11, "a\nb", MalformedError),
        (11, "a\x7f", MalformedError),
        (11, b"bytes", MalformedError),
        (13, 65536, MalformedError),
        (16, "x" * 201, OversizeError),
        (17, "x" * 41, OversizeError),
        (21, "x" * 301, OversizeError),
        (22, 0, MalformedError),  # no such reason
        (22, 9, MalformedError),
        (23, 2**32, MalformedError),
        (24, 2**63, MalformedError),
        (25, -1, MalformedError),
        (26, "1" * 33, OversizeError),
        (27, 9, MalformedError),
        (28, 30, MalformedError),
        (29, 0, MalformedError),
        (30, "1" * 33, OversizeError),
        (31, 6, MalformedError),  # no such kind of power event
        (32, 65536, MalformedError),
        (33, 2**32, MalformedError),
    ],
)
def test_event_field_beyond_its_bound(key: int, value: object, error: type[ProtocolError]) -> None:
    Event.decode(cbor.encode(EVENT))
    with pytest.raises(error):
        Event.decode(cbor.encode({**EVENT, key: value}))


HEARTBEAT = {0: 1} | dict.fromkeys(range(1, 13), 1) | {5: "v"}


@pytest.mark.parametrize(("key", "good", "bad"), [(18, -128, -129), (18, 127, 128), (19, 65535, 65536), (19, 0, -1)])
def test_heartbeat_field_beyond_its_bound(key: int, good: int, bad: int) -> None:
    Heartbeat.decode(cbor.encode({**HEARTBEAT, key: good}))
    with pytest.raises(MalformedError):
        Heartbeat.decode(cbor.encode({**HEARTBEAT, key: bad}))


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (1, 1, MalformedError),
        (2, "x" * 33, OversizeError),
        (2, "a\nb", MalformedError),
        (3, 1, MalformedError),
        (4, 2**32, MalformedError),
        (5, 2**32, MalformedError),
        (6, 256, MalformedError),
        (7, 65536, MalformedError),
        (8, 65536, MalformedError),
        (9, 6, MalformedError),
        (10, 2**32, MalformedError),
        (11, 65536, MalformedError),
    ],
)
def test_supervisor_field_beyond_its_bound(key: int, value: object, error: type[ProtocolError]) -> None:
    SupervisorState.from_body({1: True})
    with pytest.raises(error):
        SupervisorState.from_body({1: True, key: value})


def test_a_sender_cannot_encode_what_a_receiver_refuses() -> None:
    with pytest.raises(OversizeError):
        Event(boot=1, seq=1, at_ms=1, kind=EventKind.SYSTEM, text="x" * 301).encode()
    with pytest.raises(MalformedError):
        Event(boot=2**32, seq=1, at_ms=1, kind=EventKind.SYSTEM).encode()
    with pytest.raises(MalformedError):
        State(
            session=bytes(7),
            presence=Presence.ONLINE,
            boot=1,
            since_s=0,
            model="m",
            firmware="f",
            flavour="dev",
            slot=Slot.A,
            feed_serial=0,
            feed_state=FeedState.NONE,
        ).encode()


def test_defaults_of_a_terse_sender() -> None:
    event = Event.decode(cbor.encode(EVENT))
    assert (event.severity, event.count, event.text) == (Severity.ONE, 1, None)


def test_engine_state_down_is_told_apart_from_missing() -> None:
    assert EngineState.DOWN == 0
    body = {0: 1} | dict.fromkeys(range(1, 13), 1) | {5: "v"}
    assert Heartbeat.decode(cbor.encode({**body, 9: 0})).engine is EngineState.DOWN
    with pytest.raises(MalformedError):
        Heartbeat.decode(cbor.encode({key: value for key, value in body.items() if key != 9}))
