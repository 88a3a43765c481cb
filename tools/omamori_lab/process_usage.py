"""What a process and its children have used so far, as the kernel tells."""

from __future__ import annotations

import dataclasses
import os
import resource
import time
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a process and its children had used when it was looked at: processor time in seconds, memory in bytes."""

    cpu_s: float
    resident_bytes: int
    at_s: float


def usage(pid: int) -> Usage:
    """Look at a process and its children; those that ended meanwhile count as nothing."""
    ticks, resident = 0, 0
    for number in (pid, *_children(pid)):
        try:
            words = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(words[11]) + int(words[12])
        resident += int(words[21]) * resource.getpagesize()
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), resident, time.monotonic())


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
