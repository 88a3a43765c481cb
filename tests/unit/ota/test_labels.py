"""Labels: what a person reads and what a phone opens."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import segno

from omamori_ota import cli
from omamori_ota.errors import RejectedError
from omamori_ota.labels import MAX_MODEL_LENGTH, MAX_URL_LENGTH, help_address, label
from omamori_protocol.errors import MalformedError

URL = "https://help.example.com/box"
SVG = "{http://www.w3.org/2000/svg}"


def modules(path: str) -> set[tuple[int, int]]:
    """Return the dark modules that a path of rectangles covers."""
    found = re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path)
    assert "".join(f"M{x} {y}h{n}v1h-{m}z" for x, y, n, m in found) == path
    return {(int(x) + step, int(y)) for x, y, n, _ in found for step in range(int(n))}


def test_label_says_the_serial_and_its_code_opens_its_page() -> None:
    root = ET.fromstring(label("ZA35-000001", model="ZA-SA3500", url=URL))
    texts = [item.text for item in root.iter(f"{SVG}text")]
    assert texts[:2] == ["ZA-SA3500", "ZA35-000001"]
    assert "お電話" in str(texts[2])
    path = next(root.iter(f"{SVG}path")).get("d")
    expected = segno.make(f"{URL}/ZA35-000001", error="q", micro=False, boost_error=False)
    assert modules(str(path)) == {
        (x, y) for y, row in enumerate(expected.matrix) for x, module in enumerate(row) if module
    }


def test_code_stays_on_the_label_with_its_quiet_zone() -> None:
    root = ET.fromstring(label("Z" * 32, model="x", url="https://" + "a" * (MAX_URL_LENGTH - 8)))
    path = next(root.iter(f"{SVG}path"))
    move = re.fullmatch(r"translate\(([\d.]+) ([\d.]+)\) scale\(([\d.]+)\)", str(path.get("transform")))
    assert move is not None
    left, top, scale = map(float, move.groups())
    dark = modules(str(path.get("d")))
    size = max(x for x, _ in dark) + 1
    assert left - 4 * scale > 31
    assert left + (size + 4) * scale <= 62
    assert top - 4 * scale > 0
    assert top + (size + 4) * scale < 29


def test_foreign_text_stays_text() -> None:
    root = ET.fromstring(label("ZA35-000001", model="<b>&\"'", url=URL))
    assert next(root.iter(f"{SVG}text")).text == "<b>&\"'"


@pytest.mark.parametrize(
    "url",
    [
        "http://help.example.com",
        "https://",
        "help.example.com",
        f"{URL}?x=1",
        f"{URL}#x",
        "https://user@help.example.com",
        "https://help.example.com/ヘルプ",
        "https://help.example.com/a b",
        "https://" + "a" * (MAX_URL_LENGTH - 7),
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(RejectedError, match="not an address"):
        help_address(url, "ZA35-000001")


def test_names_that_are_refused() -> None:
    label("ZA35-000001", model="x" * MAX_MODEL_LENGTH, url=URL)
    for model in ("", "x" * (MAX_MODEL_LENGTH + 1), "a\nb"):
        with pytest.raises(RejectedError, match="model"):
            label("ZA35-000001", model=model, url=URL)
    with pytest.raises(MalformedError):
        label("../x", model="x", url=URL)


def test_command_draws_a_batch_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "labels"
    words = ["labels", "--serial", "ZA35-000009", "--count", "3", "--model", "ZA-SA3500", "--out", str(out)]
    assert cli.main([*words, "--help-url", "http://x"]) == 1
    assert not out.exists()
    assert cli.main([*words, "--help-url", URL]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"ZA35-0000{number}.svg" for number in ("09", "10", "11")]
    assert "3 labels" in capsys.readouterr().out
