"""What the supervisor's bench makes of what it saw."""

from __future__ import annotations

import pytest

from omamori_lab.bench_supervisor import CASES, PACKETS, STREAM, Outcome, _figure, _split, _time_past
from omamori_lab.load.probe import Report


@pytest.mark.parametrize(
    ("was_through", "moves", "past_s"),
    [
        (True, [], 0.0),
        (False, [], 60.0),
        (True, [(10.0, False)], 50.0),
        (False, [(20.0, True)], 20.0),
        (True, [(10.0, False), (15.0, True), (59.0, False)], 6.0),
    ],
)
def test_time_past_the_box(moves: list[tuple[float, bool]], past_s: float, was_through: bool) -> None:
    assert _time_past(moves, 60.0, was_through=was_through) == past_s


@pytest.mark.parametrize(
    ("moves", "at_moves_ms", "other_ms"),
    [
        ([], 0.0, 500.0),
        ([4.2], 500.0, 90.0),
        ([4.6], 500.0, 90.0),
        ([4.1, 9.7], 500.0, 90.0),
        ([9.0, 7.7], 90.0, 500.0),
    ],
)
def test_pauses_at_moves_of_the_relay_and_the_others(moves: list[float], at_moves_ms: float, other_ms: float) -> None:
    assert _split([(4.1, 500.0), (8.0, 90.0)], moves) == (at_moves_ms, other_ms)


def test_a_figure_says_what_was_lost() -> None:
    packets = Report(sent=1000, lost=3, interruption_ms=3.1, at_s=2.0, p50_ms=1.0, p99_ms=2.0, longest_ms=4.0)
    stream = Report(sent=100, lost=0, interruption_ms=20.0, at_s=2.0, p50_ms=1.0, p99_ms=2.0, longest_ms=4.0)
    seen = {"past_after_ms": 151}
    at_moves, other = {PACKETS: 3.1, STREAM: 20.0}, {PACKETS: 4.0, STREAM: 5.0}
    made = _figure(CASES[1], Outcome({PACKETS: packets, STREAM: stream}, [], 60.0, 48.5, seen, at_moves, other))
    assert (made.name, made.value, made.unit) == (CASES[1].name, 3.1, "ms")
    for words in ("3 of 1000 packets lost", "waited 20 ms", "lost nothing", "48.5 of 60 s", "151 ms", "up to 4 ms"):
        assert words in made.explanation


def test_names_of_cases_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
