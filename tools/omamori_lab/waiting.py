"""Waiting for a state with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .errors import NotReadyError

T = TypeVar("T")


def wait_for(
    probe: Callable[[], T | None],
    what: str,
    *,
    timeout_s: float,
    every_s: float = 0.1,
    detail: Callable[[], str] | None = None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """Call `probe` until it returns something true, and return that.

    Args:
        probe: Looks at the world once; None or another false value means "not yet".
        what: The awaited state, for the error.
        timeout_s: Seconds to wait at most; the probe is called at least once.
        every_s: Seconds between two looks.
        detail: Called on failure: what was seen instead.
        clock: Monotonic seconds.
        pause: Waits some seconds.

    Raises:
        NotReadyError: The time is over.
    """
    deadline = clock() + timeout_s
    while True:
        found = probe()
        if found:
            return found
        if clock() >= deadline:
            raise NotReadyError(what, timeout_s, detail=detail() if detail else "")
        pause(every_s)
