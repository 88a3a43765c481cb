"""What tests of recorded power cuts share: a place where they are judged, and the operator's wish."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from omamori_lab.lab import Lab
from omamori_lab.power_cut.judge import Judge
from omamori_lab.power_cut.rehearsal import RecordedUpdate


@contextlib.contextmanager
def judge_of(update: RecordedUpdate, places: pytest.TempPathFactory) -> Iterator[Judge]:
    """Give a judge of an update, at its beginning; nothing is left of it afterwards."""
    work = places.mktemp("judge")
    try:
        yield update.judge(work)
    finally:
        shutil.rmtree(work)


def want(lab: Lab, version: str) -> None:
    """Let the box have a firmware, at once and whatever it costs."""
    settings: dict[str, Any] = {
        "version": version,
        "window": {"days": 127, "start_min": 0, "length_min": 1440, "zone": "Asia/Tokyo"},
        "max_wait_s": 0,
        "metered": "allow",
        "rate_kbps": 0,
        "owner_refuses_scheduled": False,
    }
    lab.surroundings.desired.publish(firmware=settings)
