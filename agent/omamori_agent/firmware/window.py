"""When the box may restart: a window in local time, whatever the clocks of its country do. Pure.

A window belongs to the day on which it begins. Its beginning is turned into absolute time once, its length counts real
minutes: where clocks go forward over the beginning, the window begins when they have; where they go back, it is not
there twice.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo

from omamori_protocol.desired import FirmwareWindow

_DAYS_AHEAD = 8


class UnknownZoneError(ValueError):
    """The image's time zone data does not have the zone."""


def load_zone(name: str) -> zoneinfo.ZoneInfo:
    """Return a time zone.

    Raises:
        UnknownZoneError: There is none of this name.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise UnknownZoneError(f"no time zone {name}") from err


def is_open(window: FirmwareWindow, now_s: float) -> bool:
    """Tell whether a moment (Unix time) lies in the window.

    Raises:
        UnknownZoneError: The image does not know its time zone.
    """
    zone = load_zone(window.zone)
    today = dt.datetime.fromtimestamp(now_s, zone).date()
    # One that began yesterday may reach into today; with a zone's jump over midnight, even from the day before.
    starts = (_start_s(window, today - dt.timedelta(days=ago), zone) for ago in (2, 1, 0))
    return any(start is not None and start <= now_s < start + window.length_min * 60 for start in starts)


def next_start_s(window: FirmwareWindow, now_s: float) -> float | None:
    """Return when the window opens next (Unix time), or None if it does not within a week.

    Raises:
        UnknownZoneError: The image does not know its time zone.
    """
    zone = load_zone(window.zone)
    today = dt.datetime.fromtimestamp(now_s, zone).date()
    for ahead in range(_DAYS_AHEAD):
        start = _start_s(window, today + dt.timedelta(days=ahead), zone)
        if start is not None and start > now_s:
            return start
    return None


def _start_s(window: FirmwareWindow, day: dt.date, zone: zoneinfo.ZoneInfo) -> float | None:
    if not window.days >> day.weekday() & 1:
        return None
    hour, minute = divmod(window.start_min, 60)
    # A time that does not exist takes the offset from before the jump and so lies right after it (PEP 495).
    return dt.datetime.combine(day, dt.time(hour, minute), tzinfo=zone).timestamp()
