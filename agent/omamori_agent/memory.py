"""Giving memory back that only the start, or one piece of work, needed.

* Loading modules leaves holes that the C library keeps for itself; glibc can be asked to return them.
* Libraries run code at their start that is never run again, and the kernel maps sixteen pages around each one that is
  touched. Pages of code that are unmapped come back from the page cache when they are needed; those that are not, the
  kernel may now use for something else. Only mappings that are executable and private are touched: nothing of ours is
  written there, so nothing can be lost.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_MADV_DONTNEED = 4
_CODE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-xp [0-9a-f]+ \S+ [1-9][0-9]* +/")
_MAPS = Path("/proc/self/maps")
_STATM = Path("/proc/self/statm")

# The daemon may have 48 MiB. What it holds when it is at rest, 38 to 41, has to stay below this.
_MANY_BYTES = 44 * 1024 * 1024
_GAP_S = 5.0
_SELDOM_S = 60.0


def code_mappings(text: str) -> Iterator[tuple[int, int]]:
    """Return start and length of each mapping of a file's code, from the text of ``/proc/<pid>/maps``."""
    for line in text.splitlines():
        match = _CODE.match(line)
        if match is not None:
            start, end = int(match[1], 16), int(match[2], 16)
            yield start, end - start


def give_back() -> None:
    """Return to the kernel what is free or not used; costs some milliseconds."""
    gc.collect()
    libc = ctypes.CDLL(None, use_errno=True)
    trim = getattr(libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        text = _MAPS.read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        logger.debug("own mappings not known: %s", err)
        return
    for start, length in code_mappings(text):
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_DONTNEED) != 0:
            logger.debug("code at %x stays mapped: error %d", start, ctypes.get_errno())


def resident_bytes() -> int:
    """Return how much memory this process occupies, code that it shares included; 0 when the kernel does not say."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError) as err:
        logger.debug("own memory not known: %s", err)
        return 0


class Tidier:
    """Says when memory is given back: every minute, and sooner when there has come to be much of it.

    Where giving back did not help, it is not tried again before the minute is over: collecting costs time.

    Args:
        tidy: Gives memory back.
        resident: Returns the bytes that this process occupies.
        now: Returns seconds of a clock that only goes forwards.
    """

    def __init__(
        self,
        tidy: Callable[[], None] = give_back,
        *,
        resident: Callable[[], int] = resident_bytes,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tidy = tidy
        self._resident = resident
        self._now = now
        self._done_s = float("-inf")
        self._helped = True

    def __call__(self) -> None:
        """Give memory back if it is time; to be called often."""
        since_s = self._now() - self._done_s
        is_soon = self._helped and since_s >= _GAP_S and self._resident() > _MANY_BYTES
        if not is_soon and since_s < _SELDOM_S:
            return
        self._tidy()
        self._done_s = self._now()
        self._helped = self._resident() <= _MANY_BYTES
