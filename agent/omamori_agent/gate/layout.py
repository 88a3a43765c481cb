"""Layouts of the gate's maps: the mirror of `firmware/gate/omamori_gate.h`.

A test compiles the header and compares every size, offset and number with what stands here.
"""

from __future__ import annotations

import enum
import struct

ABI = 2


class MapName(enum.StrEnum):
    """Names of the pinned maps."""

    CONFIG = "config"
    PORTS = "ports"
    BLOCK = "block"
    BLOCKED = "blocked"
    TERMINALS = "terminals"
    FLOWS = "flows"
    COUNTERS = "counters"
    CONTROL = "control"
    EXEMPT = "exempt"
    EXEMPT_MAC = "exempt_mac"
    STATIONS = "stations"
    UNINSPECTED = "uninspected"


class Role(enum.IntEnum):
    """Side of a port."""

    WAN = 1
    LAN = 2


class PacketDirection(enum.IntEnum):
    """By which side a packet came in."""

    IN = 1
    OUT = 2


class ConfigFlag(enum.IntFlag):
    """Switches of the gate."""

    ENABLED = 1
    BLOCK_ENABLED = 2
    BYPASS_ENABLED = 4


class Counter(enum.IntEnum):
    """What is counted; see the header for the exact meanings."""

    INSPECTED = 0
    RETURNED = 1
    BYPASSED = 2
    BLOCKED = 3
    UNPARSED = 4
    OTHER = 5
    LEARNED = 6
    EXPIRED = 7
    REFUSED = 8
    EXEMPTED = 9
    SKIPPED = 10
    TUNNELLED = 11
    REDIRECTED = 12


class Mark(enum.IntFlag):
    """The gate's bits of a packet's mark."""

    BYPASS = 1
    SKIP = 2
    INSPECTED = 4
    WAITING = 8  # our rules, before the queue: alone it means that no verdict came


# With one of these a packet is not uninspected when it leaves.
MARKS_DECIDED = Mark.BYPASS | Mark.SKIP | Mark.INSPECTED


class ControlSlot(enum.IntEnum):
    """Numbers that steer the gate; each has one writer (a pause: agent or watch)."""

    HUNG_UNTIL_NS = 0
    BYPASS_UNTIL_NS = 1
    EPOCH = 2
    FAIL_CLOSED = 3
    BUTTON_UNTIL_NS = 4
    PAUSED_UNTIL_NS = 5


class Uninspected(enum.IntEnum):
    """Why a packet left uninspected."""

    NO_VERDICT = 0
    HUNG = 1
    COMMAND = 2
    EXEMPT = 3
    PAUSED = 4


class ExemptKind(enum.IntFlag):
    """On which side an address is exempt."""

    TERMINAL = 1
    DESTINATION = 2


MAX_PORTS = 16
MAX_BLOCK = 131072
MAX_BLOCKED = 4096
MAX_TERMINALS = 8192
MAX_FLOWS = 65536
MAX_EXEMPT = 4096
MAX_EXEMPT_MAC = 1024
MAX_STATIONS = 8192
CONTROL_SLOTS = 8
UNINSPECTED_SLOTS = 8

# "=": host order, no padding but what is written; 16s: an address in network order. Ports are read as bytes.
CONFIG = struct.Struct("=IIIIQQQ6s2x")
PORT = struct.Struct("=II")
BLOCK_KEY = struct.Struct("=I16s")
BLOCK = struct.Struct("=II")
BLOCKED_KEY = struct.Struct("=16s16s2sBB")
BLOCKED = struct.Struct("=QQQQ6s2x2s2xI")
TERMINAL_KEY = struct.Struct("=16s")
TERMINAL = struct.Struct("=6s2xI4xQQQQQQQQ")
FLOW_KEY = struct.Struct("=16s16s2s2sHHHBxI")
FLOW = struct.Struct("=QQQQQQQ")
COUNT = struct.Struct("=QQ")
CONTROL = struct.Struct("=Q")
EXEMPT_KEY = BLOCK_KEY
EXEMPT = struct.Struct("=II")
EXEMPT_MAC_KEY = struct.Struct("=6s2x")
EXEMPT_MAC = struct.Struct("=I")
STATION_KEY = struct.Struct("=6sH")
STATION = struct.Struct("=I4xQ")
