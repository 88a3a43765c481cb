"""Runs a program and notes what it took: `python -m omamori_lab.peak_memory FILE PROGRAM …`.

A process of its own, so that the figures are the program's and no other child's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a program took: peak of its resident memory in bytes, processor and wall time in seconds."""

    peak_bytes: int
    cpu_s: float
    wall_s: float


def command(target: Path, line: Sequence[str]) -> list[str]:
    """Return the command line that runs `line` and adds what it took to `target`."""
    return [sys.executable, "-m", "omamori_lab.peak_memory", str(target), *line]


def read_spent(target: Path) -> list[Spent]:
    """Return what the programs took, in order."""
    if not target.exists():
        return []
    return [Spent(**json.loads(line)) for line in target.read_text().splitlines()]


def main(arguments: Sequence[str]) -> int:
    """Run the program; its exit status is ours."""
    target, line = Path(arguments[0]), list(arguments[1:])
    began = time.monotonic()
    process = os.posix_spawn(line[0], line, os.environ)
    _, status, usage = os.wait4(process, 0)
    spent = Spent(usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, time.monotonic() - began)
    with target.open("a") as stream:
        stream.write(json.dumps(dataclasses.asdict(spent)) + "\n")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
