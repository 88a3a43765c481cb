"""How a feed on trial is judged: from what boxes told, around the moment each of them took it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from omamori_cloud.feed_trial import MAX_NAMED, TrialFacts, judge
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.page.config import PageConfig
from omamori_ota.rollout import Outcome
from omamori_protocol.rings import position
from omamori_protocol.vocabulary import FeedState, UninspectedReason

from .makers import BOTH, BOX, NOW_MS, OTHER_BOX, Bench, alert, feed_event, heartbeat, ledger_event
from .web_client import WebClient

ENGINES = BOTH
SERIAL = 12
HOUR_MS = 3_600_000


def outcome(bench: Bench, device: str = BOX, **options: Any) -> tuple[Outcome, str]:
    facts = [item for item in bench.reader.trial(SERIAL, bench.now_ms) if item.device == device]
    trial = judge(facts, channel="demo", permille=1000, now_ms=bench.now_ms, **{"silence_s": 900, **options})
    (found,) = [item for item, count in trial.tally.counts.items() if count]
    return found, trial.bad[0].reason if trial.bad else ""


def take(bench: Bench, *, ago_ms: int = HOUR_MS // 2) -> int:
    """Let the box take the feed and be heard of now; returns when it took it."""
    bench.now_ms = NOW_MS - 3 * HOUR_MS
    bench.say(heartbeat(seq=1, busy_permille=300))
    at_ms = NOW_MS - ago_ms
    bench.now_ms = at_ms
    bench.say(feed_event(at_ms=at_ms, feed_serial=SERIAL))
    bench.now_ms = NOW_MS
    bench.say(heartbeat(seq=2, busy_permille=300))
    return at_ms


def test_a_box_that_runs_it_well(bench: Bench) -> None:
    take(bench)
    assert outcome(bench) == (Outcome.GOOD, "")


def test_a_box_that_said_nothing_of_it(bench: Bench) -> None:
    bench.say(heartbeat())
    bench.say(feed_event(feed_serial=SERIAL - 1))
    assert outcome(bench) == (Outcome.PENDING, "")


@pytest.mark.parametrize(
    ("state", "expected"),
    [(FeedState.REFUSED, Outcome.REFUSED), (FeedState.ROLLED_BACK, Outcome.ROLLED_BACK)],
)
def test_the_newest_word_counts(bench: Bench, state: FeedState, expected: Outcome) -> None:
    at_ms = take(bench)
    bench.say(feed_event(at_ms=at_ms + 1000, feed_serial=SERIAL, feed_state=state, text="engine test failed"))
    assert outcome(bench) == (expected, "engine test failed")
    bench.say(feed_event(at_ms=at_ms + 2000, feed_serial=SERIAL))
    assert outcome(bench) == (Outcome.GOOD, "")


def test_silence_after_taking_it(bench: Bench) -> None:
    take(bench)
    bench.now_ms = NOW_MS + 900_000
    assert outcome(bench) == (Outcome.GOOD, "")
    bench.now_ms += 1000
    assert outcome(bench) == (Outcome.SILENT, "not heard of for 901 s")


def test_alerts_that_jump(bench: Bench) -> None:
    at_ms = take(bench)
    for number in range(4):
        bench.say(alert(at_ms=at_ms - 600_000 - number, seq=1000 + number))
    bench.say(alert(at_ms=at_ms + 60_000, seq=2000, count=10))
    assert outcome(bench)[0] is Outcome.GOOD  # 20 an hour
    bench.say(alert(at_ms=at_ms + 61_000, seq=2001, count=1))
    assert outcome(bench) == (Outcome.REGRESSED, "alerts jumped")


def test_an_engine_that_dies_and_traffic_that_passes_by(bench: Bench) -> None:
    at_ms = take(bench)
    for number in range(2):
        bench.say(ledger_event(at_ms=at_ms + 1000 * number, seq=3000 + number))
    bench.say(
        ledger_event(
            at_ms=at_ms + 5000, seq=3010, uninspected_reason=UninspectedReason.OVERLOAD, packets=1801, uninspected_s=1
        )
    )
    assert outcome(bench) == (Outcome.REGRESSED, "the engine restarts; traffic passes without inspection")


def test_what_happened_long_before_or_after_does_not_count(bench: Bench) -> None:
    at_ms = take(bench, ago_ms=2 * HOUR_MS)
    for number in range(9):
        bench.say(ledger_event(at_ms=at_ms + HOUR_MS + number, seq=3000 + number))
    assert outcome(bench) == (Outcome.GOOD, "")


def test_processors_that_work_more(bench: Bench) -> None:
    at_ms = take(bench)
    bench.now_ms = at_ms - 60_000
    bench.say(heartbeat(seq=5, busy_permille=300))
    bench.now_ms = at_ms + 60_000
    bench.say(heartbeat(seq=6, busy_permille=1000))
    bench.now_ms = NOW_MS
    assert outcome(bench, silence_s=86400) == (Outcome.REGRESSED, "the processor works much more")


def test_only_boxes_that_it_has_reached_and_not_too_many_names() -> None:
    facts = [
        TrialFacts(device=f"ZA35-{number:06d}", last_contact_ms=NOW_MS, verdict=FeedState.REFUSED, reason="no")
        for number in range(3000)
    ]
    trial = judge(facts, channel="demo", permille=100, now_ms=NOW_MS, silence_s=900)
    reached = sum(position(item.device, "demo") < 100 for item in facts)
    assert (trial.tally.boxes, trial.tally.bad, len(trial.bad)) == (reached, reached, MAX_NAMED)


def test_the_answer_to_scripts(bench: Bench) -> None:
    app = bench.app(PageConfig(), IngestStatus())
    with contextlib.closing(WebClient(app)) as web:
        ask(bench, web)


def ask(bench: Bench, web: WebClient) -> None:
    take(bench)
    bench.say(heartbeat(), device=OTHER_BOX)
    body = web.get(f"/api/v1/feeds?channel=demo&serial={SERIAL}").json()
    assert (body["boxes"], body["outcomes"]["good"], body["outcomes"]["pending"], body["bad"]) == (2, 1, 1, [])
    for wrong in ("", "?channel=demo", f"?serial={SERIAL}", "?channel=../x&serial=1", "?channel=demo&serial=0"):
        assert web.get(f"/api/v1/feeds{wrong}").status_code == 400
    for wrong in ("permille=1001", "permille=0", "silence=86401", "serial=1", "colour=red"):
        assert web.get(f"/api/v1/feeds?channel=demo&serial=1&{wrong}").status_code == 400
