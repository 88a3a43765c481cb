"""The few numbers of the kernel that a heartbeat carries. Each is read from a small file below /proc.

A number that cannot be read is 0: a heartbeat with a hole is worth more than none.
"""

from __future__ import annotations

import logging
from pathlib import Path

from .errors import SetupError
from .files import read_bounded

logger = logging.getLogger(__name__)

_MAX_BYTES = 65536


def _read(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_BYTES).decode("ascii", errors="replace")
    except (FileNotFoundError, SetupError) as err:
        logger.debug("no vitals from %s: %s", path, err)
        return ""


def _field_kib(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        number = value.split()[:1]
        if key == name and number and number[0].isdecimal():
            return int(number[0])
    return 0


def uptime_s(proc: Path) -> int:
    """Return seconds since power-on."""
    whole = _read(proc / "uptime").partition(".")[0]
    return int(whole) if whole.isdecimal() else 0


def own_rss_kib(proc: Path) -> int:
    """Return the resident memory of this process in KiB."""
    return _field_kib(_read(proc / "self/status"), "VmRSS")


def memory_available_kib(proc: Path) -> int:
    """Return the memory that programs could still get, in KiB."""
    return _field_kib(_read(proc / "meminfo"), "MemAvailable")


def processor_ticks(proc: Path) -> tuple[int, int]:
    """Return how long all processors together have worked and existed since power-on, in the kernel's ticks."""
    first = _read(proc / "stat").partition("\n")[0].split()
    if len(first) < 6 or first[0] != "cpu" or not all(word.isdecimal() for word in first[1:]):
        return 0, 0
    # user nice system idle iowait irq softirq steal; guest time is already part of user time.
    ticks = [int(word) for word in first[1:9]]
    total = sum(ticks)
    return total - ticks[3] - ticks[4], total
