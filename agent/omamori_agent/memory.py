"""Giving memory back that only the start needed.

Loading modules leaves holes that the C library keeps for itself; on a small box more than a MiB is worth a call.
"""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Return free memory to the kernel, where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
