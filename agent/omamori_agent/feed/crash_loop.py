"""Tells an engine that dies again and again from one that was restarted once. Pure: process ids and times in.

What a feed does to the engine may show long after it was taken: with the packet that hits its bad rule, or when memory
ends. So the count goes on after an activation has settled.
"""

from __future__ import annotations

import collections


class CrashLoop:
    """Counts runs of the engine that nobody asked for.

    Args:
        limit: So many within the window are a loop.
        window_s: Seconds after which a run that began does not count any more.
    """

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._process: int | None = None
        self._begun_s: collections.deque[float] = collections.deque(maxlen=limit)
        self._expected = 0

    def expect_restart(self) -> None:
        """Say that the next run is wanted; whatever was counted is forgotten."""
        self._begun_s.clear()
        self._expected = 1

    def look(self, process: int | None, now_s: float) -> None:
        """Take note of the engine's process; None while there is none."""
        if process is None or process == self._process:
            return
        is_first = self._process is None
        self._process = process
        if self._expected:
            self._expected -= 1
        elif not is_first:
            self._begun_s.append(now_s)

    def is_looping(self, now_s: float) -> bool:
        """Tell whether the engine has begun anew too often."""
        return len(self._begun_s) == self._limit and now_s - self._begun_s[0] <= self._window_s

    def forget(self) -> None:
        """Begin to count anew."""
        self._begun_s.clear()
