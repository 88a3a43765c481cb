"""Real published lists, which stand outside the repository and are nobody's to give away with it.

They are looked for where $OMAMORI_DATA says, in ``shared/data`` beside this repository, and beside the one that it was
cloned from. Without them the tests that need them are skipped on a developer's machine and fail in continuous
integration, as every other skip does (tests/conftest.py).
"""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - asks git where this clone is from
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _places() -> list[Path]:
    told = os.environ.get("OMAMORI_DATA")
    if told:
        return [Path(told)]
    line = ["git", "-C", str(ROOT), "config", "--get", "remote.origin.url"]
    origin = subprocess.run(line, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    beside = [ROOT, *([Path(origin)] if origin.startswith("/") else [])]
    return [path.parent / "shared/data" for path in beside]


def real_data(name: str) -> Path:
    """Return a file of the real lists, or skip the test."""
    places = [place for place in _places() if place.is_dir()]
    if not places:
        pytest.skip("no real lists on this machine")
    for place in places:
        if (place / name).exists():
            return place / name
    pytest.skip(f"no {name} in {places[0]}")
