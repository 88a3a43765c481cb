"""Places where recorded power cuts are judged; each holds a copy of the box's disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest

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
