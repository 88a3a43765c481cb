"""What is read of the herald's file, and what of it is not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omamori_agent.relay import MAX_BYTES, read_past_s


def test_the_seconds_past_the_box(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_past_s(path) is None
    path.write_text(json.dumps({"version": 1, "past_s": 12, "celsius": None}))
    assert read_past_s(path) == 12


TOO_LONG = '{"past_s": 12}' + " " * MAX_BYTES


WRONG = ("null", "-1", "4294967296", "true", "1.5", '"12"')


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "[" * 3000, TOO_LONG, *(f'{{"past_s": {value}}}' for value in WRONG)],
)
def test_what_is_not_believed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    assert read_past_s(path) is None
