"""How a backlog is spread, for one box and for a fleet."""

import random

from omamori_agent.config import LinkLimits
from omamori_agent.link.doubt import Doubt
from omamori_agent.link.pace import Pace

LIMITS = LinkLimits()


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def drain(pace: Pace, backlog: int, step_s: float = 1.0) -> list[float]:
    """Return when each event went out."""
    times: list[float] = []
    now_s = 0.0
    while len(times) < backlog:
        allowed = pace.room(now_s, backlog - len(times))
        pace.sent(allowed)
        times += [now_s] * allowed
        now_s += step_s
    return times


def test_a_backlog_of_an_hour_takes_a_part_of_the_hour() -> None:
    times = drain(Pace(1000, 1200.0, 0.0, LIMITS, uniform=middle), 1000)
    assert 290 <= times[-1] <= 305
    assert max(times.count(second) for second in set(times)) <= LIMITS.backlog_at_once


def test_longest_spread_is_bounded() -> None:
    assert drain(Pace(1000, 1e9, 0.0, LIMITS, uniform=middle), 1000)[-1] <= LIMITS.backlog_spread_cap_s + 1


def test_clock_that_was_behind_or_ahead_does_no_harm() -> None:
    assert drain(Pace(1000, -1e9, 0.0, LIMITS, uniform=middle), 1000) == [0.0] * 1000
    assert drain(Pace(1000, float(2**63), 0.0, LIMITS, uniform=middle), 1000)[-1] <= LIMITS.backlog_spread_cap_s + 1


def test_as_many_as_go_at_once_are_no_backlog_and_one_more_is() -> None:
    assert Pace(16, 3600.0, 0.0, LIMITS).room(0.0, 16) == 16
    assert Pace(17, 3600.0, 0.0, LIMITS).room(0.0, 17) < 17


def test_pause_is_not_made_up_for_at_once() -> None:
    pace = Pace(10_000, 4000.0, 0.0, LIMITS, uniform=middle)
    assert pace.room(500.0, 10_000) <= max(16, 10)


def test_wait_is_until_the_next_one_may_go() -> None:
    pace = Pace(1000, 1200.0, 0.0, LIMITS, uniform=middle)
    allowed = pace.room(0.0, 1000)
    pace.sent(allowed)
    assert pace.room(0.0, 1000) == 0
    wait_s = pace.wait_s()
    assert 0 < wait_s < 1
    assert pace.room(wait_s + 0.001, 1000) == 1


def test_a_thousand_boxes_do_not_arrive_together() -> None:
    """After an hour without a broker, with forty events waiting in each box."""
    per_second: dict[int, int] = {}
    for number in range(1000):
        chance = random.Random(number)
        for at_s in drain(Pace(40, 3600.0, 0.0, LIMITS, uniform=chance.uniform), 40, 5.0):
            per_second[int(at_s // 5)] = per_second.get(int(at_s // 5), 0) + 1
    first = per_second[0] / 1000
    assert first <= LIMITS.backlog_at_once * 0.6  # of each box' forty, and these meet the jitter of reconnection
    later = [count for second, count in per_second.items() if second > 0]
    assert max(later) < 1000  # never one of each box in the same five seconds


def test_doubt_remembers_the_last_minutes_before_a_loss_only() -> None:
    doubt = Doubt(60.0, 3)
    doubt.confirmed(1, 0.0)
    doubt.confirmed(2, 50.0)
    doubt.connection_lost(100.0)
    assert (doubt.exists, doubt.doubtful()) == (True, [2])
    doubt.connection_lost(101.0)  # the same doubt, not settled yet
    assert doubt.doubtful() == [2]
    doubt.settle()
    assert not doubt.exists
    for position in range(10):
        doubt.confirmed(position, 200.0)
    doubt.connection_lost(200.0)
    assert doubt.doubtful() == [7, 8, 9]
    doubt.session_lost()
    assert (doubt.exists, doubt.doubtful()) == (True, None)
