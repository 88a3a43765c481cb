"""What owners read: bounded, in their language, without links or markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.firmware.notes import read_notes
from omamori_protocol.firmware_release import MAX_NOTES_BYTES


def write(place: Path, data: bytes) -> Path:
    (place / "notes").write_bytes(data)
    return place / "notes"


def test_notes_are_normalised(tmp_path: Path) -> None:
    text = "\n# 変更点\r\n- が直りました\n\n\n"
    assert read_notes(write(tmp_path, text.encode()), "ja").decode() == "# 変更点\n- が直りました\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" \n\n",
        b"\xff\xfe",
        b"a <b>bold</b> word",
        b"<!-- hidden -->",
        b"see [here](https://example.com)",
        b"JavaScript:alert(1)",
        b"tab\there",
        b"bell\x07",
        "turned \u202e round".encode(),
    ],
)
def test_unfit_notes_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RejectedError):
        read_notes(write(tmp_path, data), "en")


def test_japanese_notes_are_japanese(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="not Japanese"):
        read_notes(write(tmp_path, b"More stable."), "ja")
    with pytest.raises(RejectedError, match="not in"):
        read_notes(write(tmp_path, b"Stabiler."), "de")


def test_one_byte_too_many_is_refused(tmp_path: Path) -> None:
    assert len(read_notes(write(tmp_path, b"a" * (MAX_NOTES_BYTES - 1)), "en")) == MAX_NOTES_BYTES
    with pytest.raises(RejectedError):
        read_notes(write(tmp_path, b"a" * MAX_NOTES_BYTES), "en")
    with pytest.raises(SetupError, match="larger"):
        read_notes(write(tmp_path, b"a" * (MAX_NOTES_BYTES + 1)), "en")
