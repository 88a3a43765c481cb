"""What the engine spends on a DNS query: the price of looking a name up in its lists, with everything around it."""

from __future__ import annotations

import random
import socket
import struct
import time

from .feed_lane import FeedLane
from .native_wire import INTERNET_IPV4, OFFICE_IPV4

_QUERIES = 20_000
_PER_S = 4_000
_BATCH = 20
_PORTS = 64


def engine_us_per_query(lane: FeedLane) -> float:
    """Send queries for names that are in no list and return the engine's processor time for one, in microseconds."""
    sockets = lane.lane.office.call(_sockets)
    packets = [_query(number) for number in range(_QUERIES)]
    before_s = lane.engine.cpu_s()
    began_s = time.monotonic()
    try:
        for start in range(0, _QUERIES, _BATCH):
            for number in range(start, start + _BATCH):
                sockets[number % _PORTS].sendto(packets[number], (INTERNET_IPV4, 53))
            time.sleep(max(0.0, began_s + (start + _BATCH) / _PER_S - time.monotonic()))  # a pace, not a wait
        time.sleep(0.5)  # what still waits in the queue is part of the price
    finally:
        for one in sockets:
            one.close()
    return round((lane.engine.cpu_s() - before_s) / _QUERIES * 1e6, 1)


def _sockets() -> list[socket.socket]:
    made = []
    for _ in range(_PORTS):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((OFFICE_IPV4, 0))
        made.append(one)
    return made


def _query(number: int) -> bytes:
    source = random.Random(number)  # noqa: S311 - to ask the same every time
    labels = [b"host%d" % source.randrange(1000), b"%x" % source.getrandbits(40), b"example", b"com"]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)
