"""Repeats, twins, floods: what is told, and how often."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.engine.fold import Folder
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, Direction, EventKind, Function, Severity

DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
ALERT = Event(
    boot=0,
    seq=0,
    at_ms=NOON_MS,
    kind=EventKind.ALERT,
    function=Function.IPS,
    direction=Direction.OUT,
    severity=Severity.TWO,
    action=Action.BLOCKED,
    terminal_ip="192.168.10.11",
    destination="malware.test",
    rule_id=1,
    rule="rule",
)


def alert(**changes: object) -> Event:
    return dataclasses.replace(ALERT, **changes)  # type: ignore[arg-type]


def test_first_occurrence_is_told_at_once() -> None:
    assert Folder().add(ALERT, now_s=0) == [ALERT]


def test_repeats_become_one_event_when_the_window_ends() -> None:
    folder = Folder(window_s=60)
    folder.add(ALERT, now_s=0)
    for second in range(1, 6):
        assert folder.add(alert(at_ms=NOON_MS + second * 1000), now_s=second) == []
    assert folder.due(now_s=59.9) == []
    assert folder.due(now_s=60) == [alert(at_ms=NOON_MS + 5000, count=5)]
    assert folder.due(now_s=200) == []


def test_repeats_go_on_in_the_next_window() -> None:
    folder = Folder(window_s=60)
    folder.add(ALERT, now_s=0)
    folder.add(ALERT, now_s=10)
    assert folder.due(now_s=61) == [alert(count=1)]
    assert folder.add(ALERT, now_s=70) == []
    assert folder.due(now_s=121) == [alert(count=1)]


def test_quiet_window_closes_and_the_next_occurrence_is_a_first_one() -> None:
    folder = Folder(window_s=60)
    folder.add(ALERT, now_s=0)
    assert folder.due(now_s=60) == []
    assert folder.add(ALERT, now_s=61) == [ALERT]


def test_another_terminal_destination_or_rule_is_another_alert() -> None:
    folder = Folder()
    for event in (
        ALERT,
        alert(terminal_ip="192.168.10.12"),
        alert(destination="phishing.test"),
        alert(rule_id=2),
        alert(action=Action.LOGGED),
        alert(direction=Direction.IN),
    ):
        assert folder.add(event, now_s=0) == [event]


def test_rules_of_one_list_fold_together() -> None:
    folder = Folder()
    site = alert(function=Function.DANGEROUS_SITE)
    assert folder.add(site, now_s=0, origin=(1, 0)) == [site]
    assert folder.add(dataclasses.replace(site, rule_id=5), now_s=1, origin=(2, 0)) == []
    assert folder.flush() == [dataclasses.replace(site, rule_id=5, count=1)]


def test_two_rules_of_one_list_on_one_transaction_are_one_occurrence() -> None:
    folder = Folder()
    site = alert(function=Function.DANGEROUS_SITE)
    folder.add(site, now_s=0, origin=(1, 0))
    folder.add(dataclasses.replace(site, rule_id=2), now_s=0, origin=(1, 0))
    assert folder.flush() == []


def test_two_intrusion_rules_on_one_transaction_are_two_attacks() -> None:
    folder = Folder()
    assert folder.add(ALERT, now_s=0, origin=(1, 0)) == [ALERT]
    assert folder.add(alert(rule_id=2), now_s=0, origin=(1, 0)) == [alert(rule_id=2)]


def test_same_rule_again_on_one_transaction_counts() -> None:
    folder = Folder()
    site = alert(function=Function.VIRUS)
    folder.add(site, now_s=0, origin=(1, 0))
    folder.add(site, now_s=0, origin=(1, 0))
    assert [event.count for event in folder.flush()] == [1]


def test_counts_of_the_source_are_added() -> None:
    folder = Folder()
    assert folder.add(alert(count=3), now_s=0)[0].count == 3
    folder.add(alert(count=4), now_s=1)
    folder.add(alert(count=5), now_s=2)
    assert [event.count for event in folder.flush()] == [9]


def test_count_stays_within_the_message() -> None:
    folder = Folder()
    folder.add(ALERT, now_s=0)
    folder.add(alert(count=2**32 - 1), now_s=1)
    folder.add(alert(count=2**32 - 1), now_s=1)
    (event,) = folder.flush()
    assert event.count == 2**32 - 1
    event.encode()


def test_full_table_ends_the_oldest_window_early() -> None:
    folder = Folder(max_keys=2)
    folder.add(alert(rule_id=1), now_s=0)
    folder.add(alert(rule_id=1), now_s=1)
    folder.add(alert(rule_id=2), now_s=2)
    assert folder.add(alert(rule_id=3), now_s=3) == [alert(rule_id=1, count=1), alert(rule_id=3)]
    assert len(folder._windows) == 2


def test_remembered_transactions_are_bounded() -> None:
    folder = Folder(max_origins=10)
    for number in range(50):
        folder.add(alert(function=Function.VIRUS), now_s=0, origin=(number, 0))
    assert len(folder._origins) == 10


def test_daily_limit_counts_and_is_told_the_next_day() -> None:
    folder = Folder(daily_limits={Severity.ONE: 100, Severity.TWO: 2, Severity.THREE: 100})
    told = [folder.add(alert(rule_id=number), now_s=0) for number in range(5)]
    assert [len(events) for events in told] == [1, 1, 0, 0, 0]
    tomorrow = folder.add(alert(rule_id=9, at_ms=NOON_MS + DAY_MS), now_s=1)
    assert [event.kind for event in tomorrow] == [EventKind.SYSTEM, EventKind.ALERT]
    assert tomorrow[0].count == 3
    assert tomorrow[0].text is not None
    assert "★★" in tomorrow[0].text
    tomorrow[0].encode()


def test_noise_does_not_take_the_place_of_three_stars() -> None:
    folder = Folder(daily_limits={Severity.ONE: 1, Severity.TWO: 1, Severity.THREE: 1})
    for number in range(5):
        folder.add(alert(rule_id=number, severity=Severity.ONE), now_s=0)
    worst = alert(severity=Severity.THREE)
    assert folder.add(worst, now_s=0) == [worst]


def test_late_count_of_yesterday_does_not_begin_a_new_day_again() -> None:
    folder = Folder(daily_limits={Severity.ONE: 1, Severity.TWO: 1, Severity.THREE: 1})
    folder.add(alert(at_ms=NOON_MS), now_s=0)
    assert len(folder.add(alert(rule_id=2, at_ms=NOON_MS + DAY_MS), now_s=1)) == 1
    folder.add(alert(rule_id=3, at_ms=NOON_MS), now_s=2)
    assert folder.add(alert(rule_id=4, at_ms=NOON_MS + DAY_MS), now_s=3) == []


def test_flush_tells_what_was_held_back_and_leaves_nothing() -> None:
    folder = Folder(daily_limits={Severity.ONE: 1, Severity.TWO: 1, Severity.THREE: 1})
    folder.add(ALERT, now_s=0)
    folder.add(alert(rule_id=2), now_s=0)
    (event,) = folder.flush()
    assert (event.kind, event.count) == (EventKind.SYSTEM, 1)
    assert folder.flush() == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=80))
def test_nothing_is_lost_and_nothing_is_told_twice(steps: list[tuple[int, int]]) -> None:
    folder = Folder(window_s=60, max_keys=3)
    now, told = 0.0, []
    for rule, pause in steps:
        now += pause
        told += folder.add(alert(rule_id=rule), now_s=now)
        told += folder.due(now_s=now)
    told += folder.flush()
    assert sum(event.count for event in told) == len(steps)
