"""The window in local time: clocks that jump, windows past midnight, days that do not exist."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.firmware.window import UnknownZoneError, is_open, next_start_s
from omamori_protocol.desired import FirmwareWindow

MONDAY, SUNDAY, DAILY = 1, 64, 127


def window(start: str, length_min: int, zone: str, days: int = DAILY) -> FirmwareWindow:
    hour, minute = start.split(":")
    return FirmwareWindow(days=days, start_min=int(hour) * 60 + int(minute), length_min=length_min, zone=zone)


def at(text: str) -> float:
    """Return a moment in UTC as Unix time."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def open_minutes(the_window: FirmwareWindow, begin: str, end: str) -> list[str]:
    """Return where the window opens and closes between two moments in UTC, looking once a minute."""
    moments, was_open = [], False
    now_s = at(begin)
    while now_s < at(end):
        if is_open(the_window, now_s) != was_open:
            was_open = not was_open
            moments.append(f"{dt.datetime.fromtimestamp(now_s, dt.UTC):%d %H:%M}")
        now_s += 60
    return moments


@pytest.mark.parametrize(
    ("the_window", "begin", "end", "expected"),
    [
        # An ordinary night in Tokyo, where clocks never change.
        (window("02:00", 180, "Asia/Tokyo"), "2026-11-21T12:00", "2026-11-22T12:00", ["21 17:00", "21 20:00"]),
        # Clocks go forward at 02:00 over the beginning (02:30 does not exist): it begins right behind the gap.
        (window("02:30", 60, "Europe/Berlin"), "2026-03-28T12:00", "2026-03-29T12:00", ["29 01:30", "29 02:30"]),
        # Clocks go forward inside the window: it keeps its length.
        (window("01:30", 120, "Europe/Berlin"), "2026-03-28T12:00", "2026-03-29T12:00", ["29 00:30", "29 02:30"]),
        # Clocks go back: 02:30 comes twice, the window once.
        (window("02:30", 30, "Europe/Berlin"), "2026-10-24T12:00", "2026-10-25T12:00", ["25 00:30", "25 01:00"]),
        (window("01:00", 30, "America/New_York"), "2026-11-01T02:00", "2026-11-01T12:00", ["01 05:00", "01 05:30"]),
        # Half an hour of summer time.
        (window("02:15", 60, "Australia/Lord_Howe"), "2026-10-03T10:00", "2026-10-04T10:00", ["03 15:45", "03 16:45"]),
        # Past midnight, only the night that begins on Sunday (2026-11-22 is one).
        (window("23:00", 240, "UTC", SUNDAY), "2026-11-22T00:00", "2026-11-24T00:00", ["22 23:00", "23 03:00"]),
        (window("23:00", 240, "UTC", MONDAY), "2026-11-22T00:00", "2026-11-23T12:00", []),
        # Monday is Tokyo's Monday.
        (window("02:00", 60, "Asia/Tokyo", MONDAY), "2026-11-21T00:00", "2026-11-24T00:00", ["22 17:00", "22 18:00"]),
        # The whole day.
        (window("00:00", 1440, "UTC", SUNDAY), "2026-11-21T22:00", "2026-11-23T02:00", ["22 00:00", "23 00:00"]),
    ],
)
def test_window(the_window: FirmwareWindow, begin: str, end: str, expected: list[str]) -> None:
    assert open_minutes(the_window, begin, end) == expected


def test_day_that_a_country_left_out() -> None:
    friday = window("02:00", 60, "Pacific/Apia", 16)  # there was no 2011-12-30 in Samoa
    before = at("2011-12-30T09:00")
    start = next_start_s(friday, before)
    assert start is not None
    assert start > before
    assert is_open(friday, start)


def test_zone_that_does_not_exist() -> None:
    with pytest.raises(UnknownZoneError):
        is_open(window("02:00", 60, "Mars/Olympus"), 0.0)
    with pytest.raises(UnknownZoneError):
        next_start_s(window("02:00", 60, "A" + "a" * 31), 0.0)


@given(
    st.builds(
        FirmwareWindow,
        days=st.integers(1, 127),
        start_min=st.integers(0, 1439),
        length_min=st.integers(1, 1440),
        zone=st.sampled_from(
            sorted(
                zoneinfo.available_timezones()
                & {
                    "Asia/Tokyo",
                    "Europe/Berlin",
                    "America/New_York",
                    "Australia/Lord_Howe",
                    "Africa/Casablanca",
                    "America/St_Johns",
                    "Pacific/Chatham",
                    "Asia/Gaza",
                    "UTC",
                    "Antarctica/Troll",
                }
            )
        ),
    ),
    st.integers(0, 2**32),
)
def test_a_window_is_open_when_it_says_that_it_opens(the_window: FirmwareWindow, now_s: int) -> None:
    start = next_start_s(the_window, now_s)
    assert start is not None
    assert now_s < start <= now_s + 8.2 * 86400
    assert is_open(the_window, start)
    assert is_open(the_window, start + the_window.length_min * 60 - 1)
