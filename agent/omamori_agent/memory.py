"""Giving memory back that only the start needed.

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
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_MADV_DONTNEED = 4
_CODE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-xp [0-9a-f]+ \S+ [1-9][0-9]* +/")
_MAPS = Path("/proc/self/maps")


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
