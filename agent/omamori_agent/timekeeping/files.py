"""What the agent and the service that sets the clocks tell each other, each file bounded and checked on both sides.

* `wanted`: the agent's request, in memory: at so many seconds since power-on it was that time. However late it is
  read, it stays right.
* `known`: the last time that was known to be right, on the data partition; the clock never starts before it.
"""

from __future__ import annotations

import dataclasses
import json
import math

from omamori_protocol.errors import MalformedError

MAX_BYTES = 256
# A box has no business after this (2100-01-01): such a time is a mistake or a lie.
LATEST_S = 4_102_444_800
# A request is read at once; one from further back than this is left over.
MAX_AGE_S = 300.0


@dataclasses.dataclass(frozen=True)
class Wanted:
    """At `boottime_s` seconds since power-on it was `unix_s`."""

    unix_s: float
    boottime_s: float

    def encode(self) -> bytes:
        """Return the file's bytes."""
        return (json.dumps(dataclasses.asdict(self)) + "\n").encode()


def parse_wanted(data: bytes, *, boottime_s: float) -> Wanted:
    """Read a request.

    Args:
        data: The file's bytes, one more than `MAX_BYTES` at most.
        boottime_s: Seconds since power-on now.

    Raises:
        MalformedError: It is none, or an old one.
    """
    if len(data) > MAX_BYTES:
        raise MalformedError(f"the wanted time has more than {MAX_BYTES} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise MalformedError("the wanted time is not JSON") from err
    if not isinstance(body, dict) or set(body) != {"unix_s", "boottime_s"}:
        raise MalformedError("the wanted time has other keys than unix_s and boottime_s")
    numbers = [body["unix_s"], body["boottime_s"]]
    if any(type(number) not in (int, float) or not math.isfinite(number) for number in numbers):
        raise MalformedError("the wanted time is not a pair of numbers")
    wanted = Wanted(float(numbers[0]), float(numbers[1]))
    if not 0 <= wanted.unix_s <= LATEST_S:
        raise MalformedError("the wanted time is before 1970 or after 2099")
    if not 0 <= boottime_s - wanted.boottime_s <= MAX_AGE_S:
        raise MalformedError("the wanted time was asked for at another time")
    return wanted


def encode_known(unix_s: float) -> bytes:
    """Return the file's bytes."""
    return f"{int(unix_s)}\n".encode()


def parse_known(data: bytes) -> int:
    """Read the last known time, in whole seconds.

    Raises:
        MalformedError: It is none.
    """
    text = data.removesuffix(b"\n")
    if len(data) > MAX_BYTES or not text.isdigit() or not 0 <= int(text[:20]) <= LATEST_S:
        raise MalformedError("the last known time is not one")
    return int(text)
