"""The rollout's rules: rings, reports, bounds, and what a thousand simulated rollouts do."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from omamori_ota.rollout import (
    Limits,
    Move,
    Outcome,
    PolicyError,
    Regression,
    Ring,
    RolloutPolicy,
    Tally,
    Vitals,
    decide,
    failure_bound,
    find_regressions,
    is_reached,
    position,
)

RINGS = (
    Ring("canary", 10, 60, 3),
    Ring("early", 100, 300, 10),
    Ring("everyone", 1000, 300, 10),
)
POLICY = RolloutPolicy(RINGS, halt_rate=0.05, halt_reports=10, silence_s=600)


def tally(**counts: int) -> Tally:
    return Tally.of(outcome for name, count in counts.items() for outcome in [Outcome[name.upper()]] * count)


@pytest.mark.parametrize(
    ("reports", "bound"), [(10, 0.259), (29, 0.098), (59, 0.0495), (149, 0.0199), (299, 0.00997), (100_000, 0.00003)]
)
def test_good_reports_rule_out_a_rate(reports: int, bound: float) -> None:
    assert failure_bound(reports, 0) == pytest.approx(bound, rel=0.01)


def test_bad_reports_widen_the_bound() -> None:
    assert failure_bound(0, 0) == failure_bound(3, 3) == 1.0
    assert failure_bound(59, 0) < failure_bound(59, 1) < failure_bound(59, 5)
    assert failure_bound(100, 5) == pytest.approx(0.1022, rel=0.01)  # the tables' value


@pytest.mark.parametrize(("reports", "bad", "confidence"), [(1, 2, 0.95), (1, -1, 0.95), (1, 0, 0.0), (1, 0, 1.0)])
def test_a_bound_of_nonsense_is_refused(reports: int, bad: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        failure_bound(reports, bad, confidence)


@pytest.mark.parametrize(
    ("rings", "told"),
    [
        ((), "1 to 16 rings"),
        (RINGS[:2], "never reach everyone"),
        ((RINGS[2], RINGS[1]), "must be above"),
        ((replace(RINGS[0], permille=1001),), "at most 1000"),
        ((replace(RINGS[1], permille=5, bake_s=-1), RINGS[2]), "bake time"),
        ((replace(RINGS[0], name="everyone"), RINGS[2]), "same name"),
        (tuple(Ring(str(number), number + 1, 1, 1) for number in range(17)), "1 to 16 rings"),
    ],
)
def test_rings_that_cannot_work_are_refused(rings: tuple[Ring, ...], told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        replace(POLICY, rings=rings)


@pytest.mark.parametrize("change", [{"halt_rate": 1.0}, {"halt_rate": -0.1}, {"halt_reports": 0}, {"silence_s": 0}])
def test_a_rule_that_never_fires_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(PolicyError):
        replace(POLICY, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ring", "in_ring_s", "reported", "move"),
    [
        (0, 0, tally(pending=5), Move.WAIT),
        (0, 10**6, tally(pending=5), Move.WAIT),  # time alone moves nothing
        (0, 59, tally(good=5), Move.WAIT),
        (0, 60, tally(good=2, pending=3), Move.WAIT),
        (0, 60, tally(good=3, pending=2), Move.ADVANCE),
        (0, 60, tally(good=2), Move.ADVANCE),  # the ring has no more boxes
        (0, 60, tally(), Move.ADVANCE),  # nor any at all: a small fleet
        (0, 60, tally(good=100, rolled_back=1), Move.HALT),  # in the first ring one is enough
        (1, 300, tally(good=19, failed=1), Move.ADVANCE),  # exactly 5 % is not more than 5 %
        (1, 300, tally(good=18, failed=1, silent=1), Move.HALT),
        (1, 300, tally(good=8, failed=1, pending=9), Move.WAIT),  # too few to mean anything, and too few to go on
        (1, 300, tally(good=8, failed=1), Move.HALT),  # but these are all boxes there are
        (2, 300, tally(good=50, pending=950), Move.DONE),
        (2, 10, tally(good=90, regressed=10), Move.HALT),
    ],
)
def test_decisions(ring: int, in_ring_s: float, reported: Tally, move: Move) -> None:
    decision = decide(POLICY, ring, in_ring_s, reported)
    assert decision.move is move, decision.reason
    assert decision.reason


def test_a_halt_says_what_happened() -> None:
    decision = decide(POLICY, 1, 0, tally(good=10, rolled_back=3, silent=1))
    assert "4 of 14 reports are bad (3 rolled back, 1 silent), more than 5.0%" in decision.reason


def test_no_ring_outside_the_policy() -> None:
    for ring in (-1, 3):
        with pytest.raises(ValueError, match="no ring"):
            decide(POLICY, ring, 0, tally())


def test_a_ring_contains_the_one_before() -> None:
    boxes = [f"ZA35-{number:06d}" for number in range(3000)]
    reached = [{box for box in boxes if is_reached(box, "stable", ring.permille)} for ring in RINGS]
    assert reached[0] < reached[1] < reached[2] == set(boxes)
    assert len(reached[1]) == pytest.approx(300, rel=0.2)
    assert position("ZA35-000001", "stable") != position("ZA35-000001", "beta")


BEFORE = Vitals(seconds=3600, engine_restarts=0, busy_share=0.3, uninspected_packets=0, alerts=4)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, ()),
        ({"engine_restarts": 1}, ()),  # one restart may be an operator's
        ({"engine_restarts": 2}, (Regression.ENGINE_RESTARTS,)),
        ({"busy_share": 0.45}, ()),  # below the floor
        ({"busy_share": 0.9}, (Regression.PROCESSOR,)),
        ({"uninspected_packets": 3600}, ()),
        ({"uninspected_packets": 3601}, (Regression.UNINSPECTED,)),
        ({"alerts": 20}, ()),
        ({"alerts": 21}, (Regression.ALERTS,)),
        ({"seconds": 0, "alerts": 9999, "engine_restarts": 9}, ()),
        ({"busy_share": 1.0, "alerts": 500}, (Regression.PROCESSOR, Regression.ALERTS)),
    ],
)
def test_regressions(change: dict[str, float], found: tuple[Regression, ...]) -> None:
    assert find_regressions(BEFORE, replace(BEFORE, **change), Limits()) == found  # type: ignore[arg-type]


def test_a_box_that_was_always_busy_is_no_regression() -> None:
    busy = replace(BEFORE, busy_share=0.8, alerts=100, uninspected_packets=36000)
    assert find_regressions(busy, replace(busy, alerts=400, busy_share=0.95), Limits()) == ()


def simulate(seed: int, failure_rate: float, boxes: int = 2000) -> tuple[Move, int]:
    """Play a rollout; return how it ended and how many boxes the release reached."""
    chance = random.Random(seed)
    fate = [Outcome.ROLLED_BACK if chance.random() < failure_rate else Outcome.GOOD for _ in range(boxes)]
    for ring, here in enumerate(RINGS):
        reached = boxes * here.permille // 1000
        for elapsed_s in range(0, here.bake_s + 60, 60):
            reporting = min(reached, round(reached * (elapsed_s + 30) / here.bake_s))
            outcomes = [*fate[:reporting], *[Outcome.PENDING] * (reached - reporting)]
            decision = decide(POLICY, ring, elapsed_s, Tally.of(outcomes))
            if decision.move in (Move.HALT, Move.DONE):
                return decision.move, reached
            if decision.move is Move.ADVANCE:
                break
    raise AssertionError("the rollout neither ended nor stopped")


def test_a_bad_release_stops_among_the_first() -> None:
    ends = [simulate(seed, 0.5) for seed in range(1000)]
    assert all(move is Move.HALT for move, _ in ends)
    assert max(reached for _, reached in ends) <= 200  # never beyond the second ring


def test_ordinary_trouble_does_not_stop_a_good_release() -> None:
    calm = RolloutPolicy(RINGS, halt_rate=0.05, halt_reports=50, silence_s=600, is_first_ring_strict=False)
    chance = random.Random(7)
    for _ in range(1000):
        bad = sum(chance.random() < 0.005 for _ in range(200))
        assert decide(calm, 1, 300, tally(good=200 - bad, silent=bad)).move is Move.ADVANCE
