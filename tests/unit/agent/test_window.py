"""Which events may be on their way, and what an acknowledgement means."""

from omamori_agent.backoff import Backoff
from omamori_agent.link.window import SendWindow
from omamori_agent.spool import Lane

NO_SUBSCRIBERS, NOT_AUTHORISED, QUOTA = 0x10, 0x87, 0x97
AGAIN_S = 2.0
LANE = Lane.TWO


def window(size: int = 3) -> SendWindow:
    return SendWindow(size, exact(1.0), again=exact(AGAIN_S))


def exact(first_s: float) -> Backoff:
    """Back-off without chance."""
    return Backoff(first_s, 60.0, uniform=lambda _low, high: high)


def test_no_more_than_its_size_is_on_the_way() -> None:
    one = window(3)
    for number in range(3):
        assert one.room(0.0) == 3 - number
        one.sent(number + 1, LANE, number + 1, 0.0)
    assert one.room(0.0) == 0
    assert one.answered(2, 0, 0.0) == 2
    assert one.room(0.0) == 1


def test_acknowledgements_in_any_order_name_the_right_event() -> None:
    one = window()
    one.sent(101, LANE, 7, 0.0)
    one.sent(102, LANE, 9, 0.0)
    assert one.answered(102, 0, 0.0) == 9
    assert one.answered(101, 0, 0.0) == 7


def test_unknown_and_repeated_acknowledgements_are_nothing() -> None:
    one = window()
    one.sent(1, LANE, 1, 0.0)
    assert one.answered(5, 0, 0.0) is None
    assert one.answered(1, 0, 0.0) == 1
    assert one.answered(1, 0, 0.0) is None


def test_refused_event_is_not_removed_and_comes_again_later() -> None:
    one = window()
    one.sent(1, LANE, 1, 0.0)
    assert one.answered(1, QUOTA, 0.0) is None
    assert one.room(0.5) == 0  # a short pause
    assert one.room(1.5) == 3  # others go on meanwhile
    assert one.reached(LANE) == 1
    assert one.room(AGAIN_S + 1) == 3
    assert one.reached(LANE) == 0  # from the oldest again


def test_refused_event_is_tried_less_and_less_often_until_it_is_taken() -> None:
    one = window()
    now_s, delays = 0.0, []
    for message_id in range(1, 8):
        one.sent(message_id, LANE, 1, now_s)
        one.answered(message_id, QUOTA, now_s)
        began_s = now_s
        while one.reached(LANE) != 0:
            now_s += 0.5
            one.room(now_s)
        delays.append(now_s - began_s)
        one.sent(100 + message_id, LANE, 2, now_s)
        one.answered(100 + message_id, 0, now_s)  # others are taken, which changes nothing for this one
        one._reached.clear()
    assert delays == [2, 4, 8, 16, 32, 60, 60]
    one.sent(20, LANE, 1, now_s)
    assert one.answered(20, 0, now_s) == 1
    one.sent(21, LANE, 3, now_s)
    one.answered(21, QUOTA, now_s)
    one.room(now_s + AGAIN_S)
    assert one.reached(LANE) == 0


def test_nobody_listening_is_not_delivered() -> None:
    one = window()
    one.sent(1, LANE, 1, 0.0)
    assert one.answered(1, NO_SUBSCRIBERS, 0.0) is None


def test_refusals_in_a_row_slow_down_and_a_success_resets() -> None:
    one = window()
    now_s, pauses = 0.0, []
    for number in range(1, 9):
        one.sent(number, LANE, number, now_s)
        one.answered(number, NOT_AUTHORISED, now_s)
        began_s = now_s
        while one.room(now_s) == 0:
            now_s += 0.5
        pauses.append(now_s - began_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    one.sent(20, LANE, 20, now_s)
    one.answered(20, 0, now_s)
    one.sent(21, LANE, 21, now_s)
    one.answered(21, NOT_AUTHORISED, now_s)
    assert one.room(now_s + 1.0) > 0


def test_a_whole_window_refused_at_once_counts_once() -> None:
    one = window(3)
    for number in (1, 2, 3):
        one.sent(number, LANE, number, 0.0)
    for number in (1, 2, 3):
        one.answered(number, NOT_AUTHORISED, 0.0)
    assert one.room(1.0) == 3


def test_no_event_is_on_the_way_twice() -> None:
    one = window(3)
    one.sent(1, LANE, 1, 0.0)
    one.sent(2, LANE, 2, 0.0)
    one.answered(1, QUOTA, 0.0)
    assert one.room(AGAIN_S + 1) == 0  # waits for the second one's answer before it starts again
    one.answered(2, 0, AGAIN_S + 1)
    assert one.room(AGAIN_S + 1) == 3
    assert one.reached(LANE) == 0


def test_oldest_unanswered() -> None:
    one = window()
    assert one.waits_since() is None
    one.sent(1, LANE, 1, 5.0)
    one.sent(2, LANE, 2, 6.0)
    one.answered(1, 0, 7.0)
    assert one.waits_since() == 6.0
