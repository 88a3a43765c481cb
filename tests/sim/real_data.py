"""Real published lists, which stand outside the repository: beside it in ``shared/data``, or where $OMAMORI_DATA says.

They are nobody's to give away with this repository. A test that needs one is skipped where there is none, and fails
in continuous integration (tests/conftest.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def real_data(name: str) -> Path:
    """Return a file of the real lists, or skip the test."""
    base = Path(os.environ.get("OMAMORI_DATA") or ROOT.parent / "shared/data")
    path = base / name
    if not path.exists():
        pytest.skip(f"no {name} in {base}")
    return path
