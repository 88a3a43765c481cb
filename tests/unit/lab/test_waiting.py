import pytest

from omamori_lab.errors import NotReadyError
from omamori_lab.waiting import wait_for


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def test_first_true_answer_is_returned() -> None:
    time = FakeTime()
    answers = iter([None, "", "ready"])
    assert wait_for(lambda: next(answers), "x", timeout_s=5, clock=time.clock, pause=time.pause) == "ready"
    assert time.now == pytest.approx(100.2)


def test_deadline_names_the_state_and_what_was_seen() -> None:
    time = FakeTime()
    with pytest.raises(NotReadyError, match="broker serving: not within 3 s\nconnection refused") as caught:
        wait_for(
            lambda: None,
            "broker serving",
            timeout_s=3,
            detail=lambda: "connection refused",
            clock=time.clock,
            pause=time.pause,
        )
    assert caught.value.timeout_s == 3
    assert time.now < 103.2


def test_the_world_is_looked_at_once_even_without_time() -> None:
    assert wait_for(lambda: 7, "x", timeout_s=0) == 7
