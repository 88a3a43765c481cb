"""Time as a collaborator, and how long things are valid."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from .errors import RejectedError

Clock = Callable[[], datetime]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def system_clock() -> datetime:
    """Return the present, in UTC and whole seconds (all that metadata and certificates can express)."""
    return datetime.now(UTC).replace(microsecond=0)


def parse_duration(text: str) -> timedelta:
    """Read a duration like ``90d``, ``12h``, ``15m`` or ``30s``.

    Raises:
        RejectedError: It is not one, or longer than fifty years.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise RejectedError(f"not a duration: {text[:40]!r}", hint="a number and one of s, m, h, d: 30s, 12h, 90d")
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if duration > timedelta(days=50 * 366):
        raise RejectedError(f"{text} is longer than fifty years")
    return duration
