"""What may be said on the link: one table, used in both directions.

A message is a map: key 0 is its kind, keys 1 and up are its fields, all of them present, none besides. A kind, a field
or a range that is not in the table makes the whole message void. docs/supervisor.md explains each.
"""

from supervisor.cbor import CborError, dumps, loads

PROTOCOL = 1

# From the box.
HELLO = 1
REPORT = 2
ANNOUNCE = 3
WIRE = 4
SHOW = 5
CODE = 6
QUERY = 7
RESET = 8
SETTINGS = 9
# From the supervisor.
WELCOME = 16
STATUS = 17
TELEMETRY = 18
ANSWER = 19
EVENT = 20

_U8 = (0, 255)
_U16 = (0, 65535)
_U32 = (0, 4294967295)

# kind: ranges of the fields 1, 2, ...; None stands for bytes or text.
FIELDS = {
    HELLO: (_U8, _U32, None),
    REPORT: ((1, 3), (50, 2000)),
    ANNOUNCE: (_U16, (1, 3), (1, 900)),
    WIRE: (_U16, (0, 3600)),
    SHOW: (_U16, (0, 2), (1, 3600)),
    CODE: (_U16, (0, 9999)),
    QUERY: ((1, 2),),
    RESET: (_U16,),
    SETTINGS: (_U16, (30, 1800), (5, 600), (1, 9)),
    WELCOME: (_U8, None, (0, 3), _U16, _U16, (0, 5), _U32),
    STATUS: ((1, 6), (0, 1), (1, 9), _U32, _U8, (0, 9999), _U32, _U32, _U32, _U32, _U32, _U32, _U16),
    TELEMETRY: (None,),
    ANSWER: (_U16, (0, 3)),
    EVENT: ((1, 9), _U32),
}

# Fields of REPORT.
BOX_STARTING = 1
BOX_FORWARDING = 2
BOX_STOPPING = 3
# Reasons of ANNOUNCE.
REBOOT = 1
UPDATE = 2
SHUTDOWN = 3
# What QUERY asks for.
ASK_STATUS = 1
ASK_TELEMETRY = 2
# Results in ANSWER.
DONE = 0
REFUSED = 1
TOO_OFTEN = 2
OWNER_DECIDED = 3
# Kinds of EVENT.
EVENT_WARNED = 1
EVENT_RESET = 2
EVENT_GAVE_UP = 3
EVENT_BUTTON_SHORT = 4
EVENT_BUTTON_LONG = 5
EVENT_POWER_LOST = 6
EVENT_POWER_BACK = 7
EVENT_BROWN_OUT = 8
EVENT_WIRE = 9


def parse(body):
    """Return kind and fields of a body.

    Raises:
        CborError: It is not a message of the table.
    """
    message = loads(body)
    if not isinstance(message, dict) or not message:
        raise CborError("message")
    kind = message.get(0)
    ranges = FIELDS.get(kind) if isinstance(kind, int) and not isinstance(kind, bool) else None
    if ranges is None or len(message) != len(ranges) + 1:
        raise CborError("kind")
    values = []
    for key, limits in enumerate(ranges, 1):
        value = message.get(key)
        _check(value, limits)
        values.append(value)
    return kind, values


def build(kind, *values):
    """Return the body of a message.

    Raises:
        CborError: The values are not those of the kind.
    """
    ranges = FIELDS[kind]
    if len(values) != len(ranges):
        raise CborError("fields")
    message = {0: kind}
    for number, value in enumerate(values):
        _check(value, ranges[number])
        message[number + 1] = value
    return dumps(message)


def _check(value, limits):
    if limits is None:
        if not isinstance(value, (str, bytes)):
            raise CborError("field")
    elif isinstance(value, bool) or not isinstance(value, int) or not limits[0] <= value <= limits[1]:
        raise CborError("field")
