"""How a box is judged."""

from __future__ import annotations

from typing import Any

import pytest

from omamori_cloud.facts import BoxFacts
from omamori_cloud.health import FeedProblem, Finding, Health, Level, assess, feed_problem
from omamori_protocol.vocabulary import EngineState, FeedState, Presence

from .makers import NOW_MS


def judge(**changes: Any) -> Health:
    values: dict[str, Any] = {
        "device": "ZA35-000001",
        "first_seen_ms": 0,
        "last_contact_ms": NOW_MS - 1000,
        "presence": Presence.ONLINE,
        "presence_ms": NOW_MS - 60_000,
        "feed_serial": 12,
        "feed_state": FeedState.ACTIVE,
        "engine": EngineState.INSPECTING,
    }
    return assess(BoxFacts(**{**values, **changes}), now_ms=NOW_MS, offline_after_s=180)


def test_a_box_that_inspects_with_its_feed_is_well() -> None:
    assert judge() == Health(online=True, level=Level.OK, findings=())


@pytest.mark.parametrize(
    ("changes", "finding", "level"),
    [
        ({"last_contact_ms": NOW_MS - 181_000}, Finding.OFFLINE, Level.DANGER),
        ({"last_contact_ms": None}, Finding.NEVER_HEARD, Level.NOTICE),
        ({"engine": EngineState.DOWN}, Finding.ENGINE_DOWN, Level.DANGER),
        ({"engine": EngineState.STARTING}, Finding.ENGINE_STARTING, Level.NOTICE),
        ({"feed_state": FeedState.NONE}, Finding.FEED_NONE, Level.NOTICE),
        ({"feed_state": FeedState.REFUSED}, Finding.FEED_REFUSED, Level.NOTICE),
        ({"feed_state": FeedState.ROLLED_BACK}, Finding.FEED_ROLLED_BACK, Level.NOTICE),
        ({"feed_state": FeedState.STALE}, Finding.FEED_STALE, Level.NOTICE),
        ({"certificate_expires_s": NOW_MS // 1000 + 13 * 86400}, Finding.CERTIFICATE_EXPIRING, Level.NOTICE),
    ],
)
def test_each_trouble_is_found(changes: dict[str, Any], finding: Finding, level: Level) -> None:
    health = judge(**changes)
    assert health.findings == (finding,)
    assert health.level is level


def test_nothing_else_is_claimed_about_a_silent_box() -> None:
    health = judge(last_contact_ms=0, engine=EngineState.DOWN, feed_state=FeedState.REFUSED)
    assert health.findings == (Finding.OFFLINE,)


def test_the_most_urgent_finding_comes_first() -> None:
    health = judge(feed_state=FeedState.REFUSED, engine=EngineState.DOWN)
    assert health.findings == (Finding.ENGINE_DOWN, Finding.FEED_REFUSED)
    assert health.level is Level.DANGER


def test_a_certificate_with_two_weeks_left_is_fine() -> None:
    assert judge(certificate_expires_s=NOW_MS // 1000 + 15 * 86400).level is Level.OK


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ("timestamp.json is expired", FeedProblem.EXPIRED),
        ("New snapshot version 3 must be >= 4: rollback", FeedProblem.OLDER),
        ("serial 11 is older than the active 12", FeedProblem.OLDER),
        ("feed was signed by 0/1 keys", FeedProblem.ALTERED),
        ("lists/dangerous.txt: sha256 does not match", FeedProblem.ALTERED),
        ("pack of 300 MB, allowed 256 MB", FeedProblem.OVERSIZE),
        ("suricata -T refused the rules", FeedProblem.ENGINE),
        ("download timed out", FeedProblem.UNREACHABLE),
        ("tampered metadata: snapshot.json was signed by 0/1 keys and expired", FeedProblem.ALTERED),
        ("oversize pack: Downloaded 70000 bytes exceeding the maximum", FeedProblem.OVERSIZE),
        ("serial 14: engine test failed: error parsing signature", FeedProblem.ENGINE),
        ("rollback: New timestamp version 3 must be >= 4", FeedProblem.OLDER),
        ("something new", FeedProblem.OTHER),
    ],
)
def test_technical_reasons_have_plain_kinds(reason: str, problem: FeedProblem) -> None:
    assert feed_problem(reason) is problem
