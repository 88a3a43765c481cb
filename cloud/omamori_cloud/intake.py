"""Decides what becomes of one delivery: a message to store, or a refusal. Rules only: no broker, no database.

* The device is the one in the topic, which the broker's access list ties to the client certificate. No field of a
  payload is ever taken for a device's name.
* What is malformed, oversize or of an unknown version becomes a `Refusal`: it is counted and shown, never fatal.
* A box whose clock is plainly wrong must not put its alerts at the top for years, nor at a place where nobody looks:
  beyond the bounds below, the time of reception is taken for the time of occurrence.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from enum import StrEnum

from omamori_protocol.diagnostics import Diagnostics, decompress
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError, UnknownVersionError
from omamori_protocol.messages import Event, Heartbeat, State
from omamori_protocol.reported import Reported
from omamori_protocol.topics import Leaf, parse_device_topic
from omamori_protocol.vocabulary import EventKind

CONTENT_TYPE = "application/cbor"
MAX_DETAIL = 200

_FUTURE_MS = 10 * 60 * 1000  # a clock may be a little fast
_PAST_MS = 365 * 86400 * 1000  # a spool may be old, but not as old as this

Body = Heartbeat | State | Event | Reported | Diagnostics

_RECORDS: dict[Leaf, type[Body]] = {
    Leaf.HEARTBEAT: Heartbeat,
    Leaf.STATE: State,
    Leaf.EVENT: Event,
    Leaf.REPORTED: Reported,
    Leaf.JOB: Diagnostics,
}


class RefusalReason(StrEnum):
    """Why a message was not taken in."""

    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    UNKNOWN_VERSION = "unknown-version"
    CONTENT_TYPE = "content-type"
    TOPIC = "topic"
    TOO_MANY_DEVICES = "too-many-devices"
    UNSTORABLE = "unstorable"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message as the broker handed it over."""

    topic: str
    payload: bytes
    received_ms: int
    retained: bool = False  # a copy that the broker kept: news of the past, no sign of life
    content_type: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A delivery that says what it should."""

    device: str
    body: Body
    received_ms: int
    retained: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """A delivery that was not taken in; `device` is empty when the topic names none."""

    device: str
    reason: RefusalReason
    detail: str
    received_ms: int


def take_in(delivery: Delivery) -> Message | Refusal:
    """Return the message in `delivery`, or why there is none."""

    def refuse(device: str, reason: RefusalReason, detail: str) -> Refusal:
        return Refusal(device=device, reason=reason, detail=detail[:MAX_DETAIL], received_ms=delivery.received_ms)

    try:
        device, leaf = parse_device_topic(delivery.topic)
    except ProtocolError as err:
        return refuse("", RefusalReason.TOPIC, str(err))
    if delivery.content_type not in (None, CONTENT_TYPE):
        return refuse(device, RefusalReason.CONTENT_TYPE, f"{leaf}: content type {delivery.content_type!r:.80}")
    try:
        body = _decode(leaf, delivery.payload)
    except OversizeError as err:
        return refuse(device, RefusalReason.OVERSIZE, f"{leaf}: {err}")
    except UnknownVersionError as err:
        return refuse(device, RefusalReason.UNKNOWN_VERSION, f"{leaf}: {err}")
    except ProtocolError as err:
        return refuse(device, RefusalReason.MALFORMED, f"{leaf}: {err}")
    return Message(device=device, body=body, received_ms=delivery.received_ms, retained=delivery.retained)


def _decode(leaf: Leaf, payload: bytes) -> Body:
    body = _RECORDS[leaf].decode(payload)
    if isinstance(body, Diagnostics):
        decompress(body.content)  # what nobody could read is refused here, and counted
    if isinstance(body, Event) and body.kind is EventKind.LEDGER and body.uninspected_reason is None:
        raise MalformedError("a ledger entry without a reason")
    if (
        isinstance(body, Event)
        and body.kind is EventKind.FIRMWARE
        and (not body.firmware or body.firmware_state is None)
    ):
        raise MalformedError("a firmware event without version or state")
    if isinstance(body, Event) and body.kind is EventKind.POWER and body.power_kind is None:
        raise MalformedError("a power event without a kind")
    return body


def occurred_ms(at_ms: int, received_ms: int) -> int:
    """Return when an event occurred, as far as the box's clock can be believed; both in ms since 1970."""
    if received_ms - _PAST_MS <= at_ms <= received_ms + _FUTURE_MS:
        return at_ms
    return received_ms


@functools.lru_cache(maxsize=4096)  # terminals speak again and again
def canonical_address(text: str | None) -> str | None:
    """Return an IP address in its one short form, so that it can be searched for; anything else as it is."""
    if text is None:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text
