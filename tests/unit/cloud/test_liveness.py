"""Why a box was away, as far as can be known: each case that happens in offices."""

from __future__ import annotations

import dataclasses

import pytest

from omamori_cloud.liveness import (
    Absence,
    Crowd,
    LivenessConfig,
    OutageReason,
    Return,
    is_absence,
    is_notice_due,
    judge_absence,
    judge_return,
)
from omamori_protocol.trouble import Trouble
from omamori_protocol.vocabulary import Leaving, RunEnd

from .makers import NOW_MS

CONFIG = LivenessConfig()
ALONE = Crowd(gone=1, there=40)
EVERYBODY = Crowd(gone=38, there=40)
GONE = Absence(start_ms=NOW_MS, left_ms=NOW_MS + 45_000)
MINUTE_MS = 60_000


def goodbye(leaving: Leaving, quiet_s: int = 600) -> Absence:
    return Absence(start_ms=NOW_MS, left_ms=NOW_MS, leaving=leaving, quiet_s=quiet_s)


def back(after_s: int, **values: object) -> Return:
    is_same_run = bool(values.pop("is_same_run", False))
    return dataclasses.replace(Return(at_ms=NOW_MS + after_s * 1000, is_same_run=is_same_run), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("absence", "returned", "crowd", "reason"),
    [
        pytest.param(
            GONE, back(70, uptime_s=50, last_end=RunEnd.ABRUPT), ALONE, OutageReason.POWER, id="power pulled for 5 s"
        ),
        pytest.param(
            GONE,
            back(7200, uptime_s=60, last_end=RunEnd.ABRUPT),
            ALONE,
            OutageReason.POWER,
            id="power cut for hours",
        ),
        pytest.param(
            GONE,
            back(70, uptime_s=50, last_end=RunEnd.ABRUPT),
            EVERYBODY,
            OutageReason.POWER,
            id="power cut of a whole town: the boxes' own word counts",
        ),
        pytest.param(
            GONE, back(900, is_same_run=True, away_s=880, uptime_s=90_000), ALONE, OutageReason.LINE, id="line down"
        ),
        pytest.param(
            GONE,
            back(7200, uptime_s=60, last_end=RunEnd.ABRUPT, trouble=Trouble.NO_INTERNET),
            ALONE,
            OutageReason.LINE,
            id="line down, then the owner pulled the plug",
        ),
        pytest.param(
            GONE,
            back(70, uptime_s=50, last_end=RunEnd.ABRUPT, trouble=Trouble.DOUBLE_ROUTER),
            ALONE,
            OutageReason.POWER,
            id="a remark is no line trouble",
        ),
        pytest.param(
            GONE, back(300, is_same_run=True, away_s=280), EVERYBODY, OutageReason.SERVICE, id="our broker was down"
        ),
        pytest.param(
            GONE,
            back(300, is_same_run=True, away_s=280),
            Crowd(is_blind=True),
            OutageReason.SERVICE,
            id="we were cut off ourselves",
        ),
        pytest.param(
            goodbye(Leaving.UPDATE),
            back(120, uptime_s=90, last_end=RunEnd.ORDERLY),
            ALONE,
            OutageReason.MAINTENANCE,
            id="update",
        ),
        pytest.param(
            goodbye(Leaving.REBOOT),
            back(120, uptime_s=90, last_end=RunEnd.ORDERLY),
            ALONE,
            OutageReason.MAINTENANCE,
            id="restart by command",
        ),
        pytest.param(
            goodbye(Leaving.UPDATE),
            back(400, uptime_s=90, last_end=RunEnd.WATCHDOG),
            ALONE,
            OutageReason.CRASH,
            id="the new firmware hung",
        ),
        pytest.param(
            goodbye(Leaving.OFF),
            back(50_000, uptime_s=60, last_end=RunEnd.ORDERLY),
            ALONE,
            OutageReason.SWITCHED_OFF,
            id="switched off over night",
        ),
        pytest.param(GONE, back(90, uptime_s=60, last_end=RunEnd.PANIC), ALONE, OutageReason.CRASH, id="panic"),
        pytest.param(GONE, back(40, uptime_s=90_000), ALONE, OutageReason.PROGRAM, id="the agent died"),
        pytest.param(
            goodbye(Leaving.PROGRAM, 60),
            back(9, uptime_s=90_000),
            ALONE,
            OutageReason.MAINTENANCE,
            id="new agent",
        ),
        pytest.param(GONE, back(90), ALONE, OutageReason.UNKNOWN, id="a firmware that does not tell"),
        pytest.param(
            GONE, back(90, uptime_s=60, last_end=RunEnd.UNKNOWN), ALONE, OutageReason.UNKNOWN, id="a lost record"
        ),
    ],
)
def test_reason_of_an_absence_that_is_over(
    absence: Absence, returned: Return, crowd: Crowd, reason: OutageReason
) -> None:
    assert judge_return(absence, returned, crowd, CONFIG).reason is reason


@pytest.mark.parametrize(
    ("absence", "after_s", "crowd", "reason"),
    [
        (GONE, 100, ALONE, OutageReason.UNKNOWN),
        (GONE, 600, ALONE, OutageReason.LINE_OR_POWER),
        (GONE, 86_400, ALONE, OutageReason.DEAD),
        (GONE, 100, EVERYBODY, OutageReason.SERVICE),
        (GONE, 100, Crowd(gone=2, there=2), OutageReason.UNKNOWN),
        (GONE, 100, Crowd(gone=10, there=100), OutageReason.UNKNOWN),
        (goodbye(Leaving.UPDATE), 599, ALONE, OutageReason.MAINTENANCE),
        (goodbye(Leaving.UPDATE), 600, ALONE, OutageReason.OVERDUE),
        (goodbye(Leaving.UPDATE), 90_000, ALONE, OutageReason.DEAD),
        (goodbye(Leaving.UPDATE), 100, EVERYBODY, OutageReason.MAINTENANCE),
        (goodbye(Leaving.OFF), 100_000, ALONE, OutageReason.SWITCHED_OFF),
        (goodbye(Leaving.SESSION, 60), 100, ALONE, OutageReason.UNKNOWN),
    ],
)
def test_reason_of_an_absence_that_lasts(absence: Absence, after_s: int, crowd: Crowd, reason: OutageReason) -> None:
    assert judge_absence(absence, crowd, NOW_MS + after_s * 1000, CONFIG).reason is reason


def test_a_new_connection_within_a_blink_is_no_absence() -> None:
    assert not is_absence(GONE, back(55, is_same_run=True, away_s=2), CONFIG)
    assert is_absence(GONE, back(55, is_same_run=True, away_s=20), CONFIG)
    assert not is_absence(GONE, back(19, is_same_run=True), CONFIG)
    assert is_absence(GONE, back(5, uptime_s=1), CONFIG)


def test_a_power_pull_of_5_s_is_never_noticed_by_the_customer() -> None:
    for after_s in range(0, 600, 10):
        now_ms = NOW_MS + after_s * 1000
        reason = judge_absence(GONE, ALONE, now_ms, CONFIG).reason
        assert not is_notice_due(reason, GONE, now_ms, CONFIG)


def test_an_absence_that_lasts_is_noticed() -> None:
    now_ms = NOW_MS + 10 * MINUTE_MS
    assert is_notice_due(judge_absence(GONE, ALONE, now_ms, CONFIG).reason, GONE, now_ms, CONFIG)


def test_our_own_failure_and_a_planned_restart_are_not_the_customers_business() -> None:
    now_ms = NOW_MS + 60 * MINUTE_MS
    assert not is_notice_due(OutageReason.SERVICE, GONE, now_ms, CONFIG)
    assert not is_notice_due(OutageReason.MAINTENANCE, GONE, now_ms, CONFIG)


def test_an_update_that_does_not_come_back_is_noticed_after_its_own_time() -> None:
    update = goodbye(Leaving.UPDATE)
    assert not is_notice_due(OutageReason.OVERDUE, update, NOW_MS + 19 * MINUTE_MS, CONFIG)
    assert is_notice_due(OutageReason.OVERDUE, update, NOW_MS + 20 * MINUTE_MS, CONFIG)


def test_the_evidence_stands_beside_the_reason() -> None:
    told = judge_return(GONE, back(70, uptime_s=50, last_end=RunEnd.ABRUPT), ALONE, CONFIG)
    assert told.evidence == {"will_after_s": 45, "uptime_s": 50, "last_end": "abrupt"}
    told = judge_absence(goodbye(Leaving.UPDATE), EVERYBODY, NOW_MS, CONFIG)
    assert told.evidence == {"goodbye": "update", "quiet_s": 600, "gone_together": 38, "boxes_there": 40}
