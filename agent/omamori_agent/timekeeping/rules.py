"""What is believed of a server that says what time it is. Pure.

The server proves who it is with a certificate of the service CA, and that certificate itself says when it may be
believed: from its first to its last second. So a certificate that was stolen and has expired can never vouch for a
time after its end, and nobody can take a box back behind the moment its firmware was built.
"""

from __future__ import annotations

import dataclasses

from omamori_agent.errors import RejectedError

MAX_ROUND_TRIP_S = 10.0
# The answer's header counts whole seconds.
_GRAIN_S = 1.0
_TOLERANCE_S = 2.0


class ImplausibleTimeError(RejectedError):
    """The time that a server said is not believed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Testimony:
    """What a server said. Unix times in seconds, and seconds since power-on.

    Attributes:
        said_s: The whole second that the server named.
        asked_s: Since power-on, when the question went out.
        answered_s: Since power-on, when the answer had come.
        valid_from_s: First second of the server's certificate.
        valid_to_s: Its last second.
    """

    said_s: float
    asked_s: float
    answered_s: float
    valid_from_s: float
    valid_to_s: float


@dataclasses.dataclass(frozen=True)
class Correction:
    """At `boottime_s` seconds since power-on it was `unix_s`; the clock was `offset_s` seconds behind that."""

    unix_s: float
    boottime_s: float
    offset_s: float


def judge(testimony: Testimony, *, clock_s: float, boottime_s: float, floor_s: float) -> Correction | None:
    """Say how the clock has to be corrected, or that it is right as far as can be told.

    Args:
        testimony: What the server said.
        clock_s: What the clock says now.
        boottime_s: Seconds since power-on now.
        floor_s: When the running firmware was built.

    Raises:
        ImplausibleTimeError: The answer took too long, or names a time that cannot be.
    """
    round_trip_s = testimony.answered_s - testimony.asked_s
    if not 0 <= round_trip_s <= MAX_ROUND_TRIP_S:
        raise ImplausibleTimeError(f"the server's time is not exact: its answer took {round_trip_s:.0f} s")
    if testimony.said_s < floor_s:
        raise ImplausibleTimeError("the server says a time before this firmware was built")
    if not testimony.valid_from_s <= testimony.said_s <= testimony.valid_to_s:
        raise ImplausibleTimeError("the server says a time at which its own certificate is not valid")
    at_s = testimony.asked_s + round_trip_s / 2
    unix_s = testimony.said_s + _GRAIN_S / 2
    offset_s = unix_s + (boottime_s - at_s) - clock_s
    if abs(offset_s) <= _TOLERANCE_S + _GRAIN_S / 2 + round_trip_s / 2:
        return None
    return Correction(unix_s, at_s, offset_s)
