"""What may be said on the link to the supervisor; the same table as `hw/supervisor/lib/supervisor/messages.py`.

A message is a CBOR map: key 0 is its kind, keys 1 and up are its fields, all of them, none besides. Values are
integers of 32 bits, printable ASCII text and bytes; whatever else comes is refused.
"""

from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import Any

from omamori_hw.errors import BadMessageError
from omamori_hw.supervisor.frames import MAX_BODY
from omamori_protocol import cbor
from omamori_protocol.errors import MalformedError, OversizeError

PROTOCOL = 1
MAX_ITEMS = 24
MAX_TEXT = 64
MAX_DEPTH = 4


class Kind(IntEnum):
    """Kinds of messages: from the box below 16, from the supervisor above."""

    HELLO = 1
    REPORT = 2
    ANNOUNCE = 3
    WIRE = 4
    SHOW = 5
    CODE = 6
    QUERY = 7
    RESET = 8
    SETTINGS = 9
    WELCOME = 16
    STATUS = 17
    TELEMETRY = 18
    ANSWER = 19
    EVENT = 20


class BoxState(IntEnum):
    """What the box says of itself."""

    STARTING = 1
    FORWARDING = 2
    STOPPING = 3


class Reason(IntEnum):
    """Why the box will be silent for a while."""

    REBOOT = 1
    UPDATE = 2
    SHUTDOWN = 3


class Show(IntEnum):
    """What the lamp shall show for a while."""

    STATE = 0
    UPDATE_DONE = 1
    UPDATE_TAKEN_BACK = 2


class Ask(IntEnum):
    """What a query asks for."""

    STATUS = 1
    TELEMETRY = 2


class Result(IntEnum):
    """Answers to requests."""

    DONE = 0
    REFUSED = 1
    TOO_OFTEN = 2
    OWNER_DECIDED = 3


class State(IntEnum):
    """The supervisor's six states, each with a look of its own."""

    STARTING = 1
    PROTECTING = 2
    PASSING = 3
    UPDATING = 4
    RECOVERING = 5
    GIVEN_UP = 6


class Cause(IntEnum):
    """Why the wire last went past the box."""

    COLD = 1
    SILENCE = 2
    STOPPED = 3
    ANNOUNCED = 4
    BUTTON = 5
    COMMAND = 6
    POWER = 7
    BOX_RESTARTED = 8
    SELF = 9


class PowerKind(IntEnum):
    """What last happened to the box's supply."""

    NONE = 0
    COLD = 1
    DIP = 2
    SHORT_PULL = 3
    LONG_PULL = 4
    BROWN_OUT = 5


class EventKind(IntEnum):
    """What the supervisor tells unasked."""

    WARNED = 1
    RESET = 2
    GAVE_UP = 3
    BUTTON_SHORT = 4
    BUTTON_LONG = 5
    POWER_LOST = 6
    POWER_BACK = 7
    BROWN_OUT = 8
    WIRE = 9


_U8 = (0, 255)
_U16 = (0, 65535)
_U32 = (0, 4294967295)
Range = tuple[int, int]

# Ranges of the fields 1, 2, ...; a type stands for text or bytes.
FIELDS: dict[Kind, tuple[Range | type, ...]] = {
    Kind.HELLO: (_U8, _U32, str),
    Kind.REPORT: ((1, 3), (50, 2000)),
    Kind.ANNOUNCE: (_U16, (1, 3), (1, 900)),
    Kind.WIRE: (_U16, (0, 3600)),
    Kind.SHOW: (_U16, (0, 2), (1, 3600)),
    Kind.CODE: (_U16, (0, 9999)),
    Kind.QUERY: ((1, 2),),
    Kind.RESET: (_U16,),
    Kind.SETTINGS: (_U16, (30, 1800), (5, 600), (1, 9)),
    Kind.WELCOME: (_U8, str, (0, 3), _U16, _U16, (0, 5), _U32),
    Kind.STATUS: ((1, 6), (0, 1), (1, 9), _U32, _U8, (0, 9999), _U32, _U32, _U32, _U32, _U32, _U32, _U16),
    Kind.TELEMETRY: (bytes,),
    Kind.ANSWER: (_U16, (0, 3)),
    Kind.EVENT: ((1, 9), _U32),
}


@dataclass(frozen=True)
class Welcome:
    """How the supervisor introduces itself.

    Attributes:
        protocol: Version of this table.
        version: Its firmware.
        warm: It restarted itself; the relay stayed where it was.
        restarts: How often it did since it has its supply.
        power_serial: Grows with each power event.
        power: The last power event.
        outage_ms: How long that took.
    """

    protocol: int
    version: str
    warm: bool
    restarts: int
    power_serial: int
    power: PowerKind
    outage_ms: int


@dataclass(frozen=True)
class Status:
    """What the supervisor says when it is asked.

    Attributes:
        state: Its state.
        through: The wire leads through the box.
        cause: Why it last did not.
        moves: Moves of the relay.
        resets: Resets of the silent box since it was last stable.
        code: Diagnosis code, four digits.
        good: Frames it accepted.
        damaged: Frames it did not accept.
        lost: Frames that never came to it.
        unknown: Whole frames that were no message.
        uptime_s: Seconds since it started.
        slowest_ms: Longest time from a cause to the relay.
        restarts: How often it restarted itself.
    """

    state: State
    through: bool
    cause: Cause
    moves: int
    resets: int
    code: int
    good: int
    damaged: int
    lost: int
    unknown: int
    uptime_s: int
    slowest_ms: int
    restarts: int


def build(kind: Kind, *values: int | str | bytes) -> bytes:
    """Return the body of a message.

    Raises:
        BadMessageError: The values are not those of the kind.
    """
    ranges = FIELDS[kind]
    if len(values) != len(ranges):
        raise BadMessageError(f"{kind.name} has {len(ranges)} fields")
    plain = [int(value) if isinstance(value, int) else value for value in values]
    for value, limits in zip(plain, ranges, strict=True):
        _check(kind, value, limits)
    body = cbor.encode({0: int(kind), **dict(enumerate(plain, 1))})
    if len(body) > MAX_BODY:
        raise BadMessageError(f"{kind.name} with {len(body)} bytes")
    return body


def parse(body: bytes) -> tuple[Kind, list[Any]]:
    """Return kind and fields of a body.

    Raises:
        BadMessageError: It is not a message of the table.
    """
    message = loads(body)
    if not isinstance(message, dict) or type(message.get(0)) is not int or message[0] not in list(Kind):
        raise BadMessageError("not a message")
    kind = Kind(message[0])
    ranges = FIELDS[kind]
    if set(message) != set(range(len(ranges) + 1)):
        raise BadMessageError(f"{kind.name} with fields {sorted(message)}")
    values = [message[key] for key in range(1, len(message))]
    for value, limits in zip(values, ranges, strict=True):
        _check(kind, value, limits)
    return kind, values


def loads(body: bytes) -> Any:
    """Return the value of a body, read as strictly as the supervisor reads.

    Raises:
        BadMessageError: It is not exactly one value in its only accepted spelling.
    """
    try:
        value = cbor.decode(body, max_bytes=MAX_BODY, max_items=MAX_ITEMS)
    except (MalformedError, OversizeError) as err:
        raise BadMessageError(str(err)) from err
    _check_value(value, 1)
    return value


def welcome(values: list[Any]) -> Welcome:
    """Return the fields of a WELCOME by their names."""
    protocol, version, how, restarts, serial, power, outage = values
    return Welcome(protocol, version, how == 1, restarts, serial, PowerKind(power), outage)


def status(values: list[Any]) -> Status:
    """Return the fields of a STATUS by their names."""
    state, through, cause, *rest = values
    return Status(State(state), through == 1, Cause(cause), *rest)


def status_fields(made: Status) -> list[int]:
    """Return a status as the fields of its message."""
    return [int(value) for value in astuple(made)]


def _check(kind: Kind, value: object, limits: Range | type) -> None:
    if isinstance(limits, type):
        if type(value) is not limits:
            raise BadMessageError(f"{kind.name} with {value!r:.40}")
        if isinstance(value, str):
            _check_value(value, 1)
    elif type(value) is not int or not limits[0] <= value <= limits[1]:
        raise BadMessageError(f"{kind.name} with {value!r:.40}")


def _check_value(value: object, depth: int) -> None:
    if isinstance(value, (list, dict)):
        if depth > MAX_DEPTH:
            raise BadMessageError("too deep")
        if isinstance(value, dict) and any(not -24 <= key < 24 for key in value):
            raise BadMessageError("key out of range")
        for item in value.values() if isinstance(value, dict) else value:
            _check_value(item, depth + 1)
    elif isinstance(value, float):
        raise BadMessageError("floating point")
    elif isinstance(value, str):
        if len(value) > MAX_TEXT or any(not " " <= letter <= "~" for letter in value):
            raise BadMessageError("text is not short printable ASCII")
    elif isinstance(value, int) and not -(1 << 32) <= value < 1 << 32:
        raise BadMessageError("more than 32 bits")
