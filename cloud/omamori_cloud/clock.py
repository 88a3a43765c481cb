"""Time as this package uses it: whole milliseconds since 1970 in UTC, from a clock that tests can replace.

People read Japanese time. Japan has had no daylight saving time since 1951, so a fixed offset is exact and no time
zone database is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

Clock = Callable[[], int]

JAPAN = timezone(timedelta(hours=9), "JST")

_LATEST_MS = 253_402_300_799_000  # the end of the year 9999, the last moment datetime can hold


def system_clock() -> int:
    """Return the time now in milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def to_datetime(at_ms: int) -> datetime:
    """Return an aware UTC time; moments beyond the year 9999 become its end."""
    return datetime.fromtimestamp(max(0, min(at_ms, _LATEST_MS)) / 1000, UTC)


def to_rfc3339(at_ms: int) -> str:
    """Return for example ``2026-01-31T09:00:00.250Z``."""
    return to_datetime(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_moment(text: str, now_ms: int) -> int:
    """Return the moment that a person wrote, in milliseconds since 1970.

    Args:
        text: An RFC 3339 time (without an offset: UTC), or a span back from now: a number with ``s``, ``m``, ``h``
            or ``d``.
        now_ms: The present, for spans.

    Raises:
        ValueError: It is neither.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if len(text) <= 10 and text[-1:] in units and text[:-1].isascii() and text[:-1].isdigit():
        return max(0, now_ms - int(text[:-1]) * units[text[-1]] * 1000)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000))
