import dataclasses
import json

import pytest

from omamori_lab.benchmark import MAX_BYTES, Benchmark, Figure, median, parse_benchmark, render
from omamori_lab.errors import SetupError

RESULT = Benchmark(
    name="first-chain",
    title="The first chain",
    date="2026-11-22",
    machine={"cores": "2"},
    versions={"image": "0.1.0"},
    figures=(
        median("power-on → protecting", [34.2, 30.0, 40.04], "s", "After a power cut.", budget="≤ 60 s"),
        Figure(name="slot", value=212.3, unit="MiB", explanation="As it lies on the disk."),
    ),
)


def test_the_median_and_every_round_are_kept() -> None:
    assert RESULT.figures[0].value == 34.2
    assert RESULT.figures[0].rounds == (34.2, 30.0, 40.04)


def test_a_result_survives_its_json() -> None:
    assert parse_benchmark(RESULT.to_json(), "x.json") == RESULT


def test_remarks_stand_below_the_figures() -> None:
    remarked = dataclasses.replace(RESULT, remarks=("What it means.",))
    assert parse_benchmark(remarked.to_json(), "x.json") == remarked
    assert "As it lies on the disk. |\n\nWhat it means.\n" in render([remarked])


def test_the_page_explains_every_figure() -> None:
    page = render([RESULT])
    assert "| power-on → protecting | 34.2 s (30–40.04, n = 3) | ≤ 60 s | After a power cut. |" in page
    assert "| slot | 212.3 MiB | – | As it lies on the disk. |" in page
    assert "2026-11-22. Machine: cores 2. Versions: image 0.1.0." in page


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", json.dumps({**json.loads(RESULT.to_json()), "format": 2}).encode(), b" " * (MAX_BYTES + 1)],
    ids=["empty", "list", "object", "other format", "one byte too many"],
)
def test_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(SetupError, match=r"x\.json is no benchmark's result"):
        parse_benchmark(data, "x.json")
