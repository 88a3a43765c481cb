"""Bounds and intervals of taking feeds."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedLimits:
    """All times in seconds, all sizes in bytes."""

    # Asking the repository.
    poll_s: float = 600.0  # announcements come at once; this is for a box that missed one
    poll_jitter: float = 0.1  # part of the interval, so that a fleet does not ask in step
    retry_first_s: float = 2.0
    retry_cap_s: float = 600.0
    min_gap_s: float = 1.0  # between two refreshes, whatever is announced

    # Downloading.
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 15.0  # between two pieces
    request_s: float = 30.0  # every download may take this long …
    min_bytes_per_s: int = 8 * 1024  # … and a second more for each this many bytes it may have
    reserve_bytes: int = 16 * 1024 * 1024  # of the data partition that a feed must leave free

    # Activating.
    test_timeout_s: float = 900.0  # the engine's test of 20 000 rules on a slow processor
    reload_timeout_s: float = 600.0
    restart_timeout_s: float = 600.0
    settle_s: float = 10.0  # the engine must stay healthy this long after a reload or restart
    settle_poll_s: float = 1.0
    reconcile_s: float = 5.0  # how often an unfinished activation is looked at again
    canary_tries: int = 10  # a third of a second each; 0 for no canary
    # One may be the watch's or an operator's hand, two in a row happen on a machine short of memory.
    crashes: int = 3  # so many runs of the engine that nobody asked for …
    crash_window_s: float = 60.0  # … within this time lead back to the feed before …
    probation_s: float = 3600.0  # … as long as the feed is not older than this on the box
