"""Layouts of the gate's maps: the mirror of `firmware/gate/omamori_gate.h`.

A test compiles the header and compares every size, offset and number with what stands here.
"""

from __future__ import annotations

import enum
import struct

ABI = 1


class MapName(enum.StrEnum):
    """Names of the pinned maps."""

    CONFIG = "config"
    PORTS = "ports"
    BLOCK = "block"
    BLOCKED = "blocked"
    TERMINALS = "terminals"
    FLOWS = "flows"
    COUNTERS = "counters"


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


MAX_PORTS = 16
MAX_BLOCK = 131072
MAX_BLOCKED = 4096
MAX_TERMINALS = 8192
MAX_FLOWS = 65536

# "=": host order, no padding but what is written; 16s: an address in network order. Ports are read as bytes.
CONFIG = struct.Struct("=IIIIQQ")
PORT = struct.Struct("=II")
BLOCK_KEY = struct.Struct("=I16s")
BLOCK = struct.Struct("=II")
BLOCKED_KEY = struct.Struct("=16s16s2sBB")
BLOCKED = struct.Struct("=QQQQ6s2x2s2xI")
TERMINAL_KEY = struct.Struct("=16s")
TERMINAL = struct.Struct("=6s2xI4xQQQQ")
FLOW_KEY = struct.Struct("=16s16s2s2sHHHBx")
FLOW = struct.Struct("=QQQQQQ")
COUNT = struct.Struct("=QQ")
