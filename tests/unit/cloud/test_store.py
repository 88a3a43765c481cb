"""Writer and reader together, on a real SQLite file."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, func, select

from omamori_cloud.errors import QueryError, SetupError, StoreUnavailableError
from omamori_cloud.intake import Message, Refusal, RefusalReason
from omamori_cloud.presence import COUNTER_LOST_MS
from omamori_cloud.store import schema
from omamori_cloud.store.database import open_database
from omamori_cloud.store.queries import MAX_ALERTS, AlertQuery, Cursor
from omamori_cloud.store.writer import Writer
from omamori_protocol.vocabulary import EngineState, FeedState, Function, Presence, Severity, Slot

from .makers import BOTH, BOX, NOW_MS, OTHER_BOX, Bench, MakeBench, alert, feed_event, heartbeat, state

ENGINES = BOTH


def count(bench: Bench, table: type[schema.Base]) -> int:
    with bench.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def only_box(bench: Bench):
    (box,) = bench.reader.boxes()
    return box


def test_an_event_delivered_twice_is_stored_once(bench: Bench) -> None:
    event = alert(seq=7)
    first = bench.say(event)
    second = bench.say(event)
    assert (first.events, first.duplicates) == (1, 0)
    assert (second.events, second.duplicates) == (0, 1)
    assert count(bench, schema.Event) == 1


def test_an_event_twice_in_one_batch_is_stored_once(bench: Bench) -> None:
    message = Message(device=BOX, body=alert(seq=7), received_ms=NOW_MS)
    assert bench.writer.store([message, message]).events == 1


@pytest.mark.parametrize("changes", [{"seq": 8}, {"boot": 2}])
def test_another_origin_is_another_event(bench: Bench, changes: dict[str, int]) -> None:
    bench.say(alert(boot=1, seq=7))
    bench.say(alert(**{"boot": 1, "seq": 7, **changes}))
    assert count(bench, schema.Event) == 2


def test_the_same_numbers_of_another_box_are_another_event(bench: Bench) -> None:
    bench.say(alert(seq=7))
    bench.say(alert(seq=7), device=OTHER_BOX)
    assert count(bench, schema.Event) == 2


def test_an_alert_comes_back_as_it_went_in(bench: Bench) -> None:
    sent = alert(count=3, category="games")
    bench.say(sent)
    (found,) = bench.reader.alerts(AlertQuery()).alerts
    for name in ("boot", "seq", "at_ms", "severity", "function", "direction", "action", "terminal_ip", "terminal_mac"):
        assert getattr(found, name) == getattr(sent, name)
    for name in ("destination", "remote_ip", "remote_port", "protocol", "rule_id", "rule", "category", "count"):
        assert getattr(found, name) == getattr(sent, name)
    assert found.received_ms == NOW_MS


def test_the_largest_numbers_fit(bench: Bench) -> None:
    bench.say(alert(boot=2**32 - 1, seq=2**63 - 1, at_ms=2**63 - 1, rule_id=2**32 - 1, count=2**32 - 1))
    bench.say(heartbeat(boot=2**32 - 1, sent_s=2**63 - 1, inspected_packets=2**63 - 1))
    assert bench.reader.alerts(AlertQuery()).alerts[0].seq == 2**63 - 1
    assert only_box(bench).inspected_packets == 2**63 - 1


def test_a_clock_in_the_future_does_not_stick_to_the_top(bench: Bench) -> None:
    bench.say(alert(seq=1, at_ms=4_102_444_800_000, destination="future.test"))
    bench.now_ms += 60_000
    bench.say(alert(seq=2, at_ms=bench.now_ms, destination="now.test"))
    assert [found.destination for found in bench.reader.alerts(AlertQuery()).alerts] == ["now.test", "future.test"]


def test_the_newer_of_state_and_heartbeat_describes_the_box(bench: Bench) -> None:
    bench.say(state(feed_serial=12, slot=Slot.A))
    bench.now_ms += 1000
    bench.say(heartbeat(feed_serial=13, slot=Slot.B))
    assert (only_box(bench).feed_serial, only_box(bench).slot) == (13, Slot.B)
    bench.now_ms += 1000
    bench.say(state(feed_serial=14))
    assert only_box(bench).feed_serial == 14


def test_a_refusal_reason_goes_away_with_the_refusal(bench: Bench) -> None:
    bench.say(state(feed_state=FeedState.REFUSED, feed_reason="expired"))
    assert only_box(bench).feed_reason == "expired"
    bench.now_ms += 1000
    bench.say(heartbeat(feed_state=FeedState.REFUSED))
    assert only_box(bench).feed_reason == "expired"
    bench.now_ms += 1000
    bench.say(heartbeat(feed_state=FeedState.ACTIVE))
    assert only_box(bench).feed_reason is None


def test_the_newest_heartbeat_counts(bench: Bench) -> None:
    bench.say(heartbeat(engine=EngineState.STARTING))
    bench.say(heartbeat(seq=2, engine=EngineState.INSPECTING))
    assert only_box(bench).engine is EngineState.INSPECTING
    assert count(bench, schema.Heartbeat) == 2


def test_heartbeats_that_came_over_different_workers(bench: Bench) -> None:
    other = Writer(bench.engine, bench.limits)
    bench.say(heartbeat(boot=2, seq=7, uptime_s=700))
    bench.now_ms += 1000
    late = [heartbeat(boot=2, seq=6, uptime_s=600), heartbeat(boot=1, seq=99, uptime_s=99)]
    other.store([Message(device=BOX, body=body, received_ms=bench.now_ms) for body in late])
    assert only_box(bench).uptime_s == 700
    assert only_box(bench).last_contact_ms == NOW_MS + 1000
    other.store([Message(device=BOX, body=heartbeat(boot=3, seq=1, uptime_s=5), received_ms=NOW_MS)])
    assert (only_box(bench).uptime_s, only_box(bench).last_contact_ms) == (5, NOW_MS + 1000)


def test_a_box_whose_counter_began_anew(bench: Bench) -> None:
    bench.say(heartbeat(boot=900, seq=7, uptime_s=700))
    bench.now_ms += COUNTER_LOST_MS + 1
    bench.say(heartbeat(boot=1, seq=1, uptime_s=60))
    assert only_box(bench).uptime_s == 60


def test_a_birth_after_its_own_will_is_late(bench: Bench) -> None:
    bench.say(state(presence=Presence.OFFLINE))
    assert bench.say(state()).stale_wills == 1
    assert only_box(bench).presence is Presence.OFFLINE
    bench.say(state(session=b"sessionB"))
    assert only_box(bench).presence is Presence.ONLINE


def test_a_will_changes_presence_and_nothing_else(bench: Bench) -> None:
    bench.say(state(feed_serial=12))
    bench.say(state(feed_serial=15))
    bench.now_ms += 5000
    bench.say(state(feed_serial=12, presence=Presence.OFFLINE))
    box = only_box(bench)
    assert box.presence is Presence.OFFLINE
    assert box.presence_ms == NOW_MS + 5000
    assert box.last_contact_ms == NOW_MS  # a will is no sign of life
    assert box.feed_serial == 15


def test_a_will_seen_again_does_not_move_its_time(bench: Bench) -> None:
    bench.say(state())
    bench.say(state(presence=Presence.OFFLINE))
    bench.now_ms += 5000
    bench.say(state(presence=Presence.OFFLINE), retained=True)
    assert only_box(bench).presence_ms == NOW_MS


def test_a_late_will_of_an_older_session_changes_nothing(bench: Bench) -> None:
    bench.say(state(session=b"sessionA", since_s=100))
    bench.say(state(session=b"sessionB", since_s=200))
    report = bench.say(state(session=b"sessionA", since_s=100, presence=Presence.OFFLINE))
    assert report.stale_wills == 1
    assert only_box(bench).presence is Presence.ONLINE


def test_a_retained_copy_is_no_sign_of_life(bench: Bench) -> None:
    bench.say(state(), retained=True)
    assert only_box(bench).presence is Presence.ONLINE
    assert only_box(bench).last_contact_ms is None


def test_refusals_are_counted_and_kept(bench: Bench) -> None:
    refusal = Refusal(device=BOX, reason=RefusalReason.MALFORMED, detail="evt: x", received_ms=NOW_MS)
    bench.writer.store([refusal, refusal])
    assert only_box(bench).refused == 2
    assert only_box(bench).last_contact_ms is None
    assert [(found.device, found.reason) for found in bench.reader.refusals(10)] == [(BOX, "malformed")] * 2


def test_a_refusal_without_a_device_makes_none(bench: Bench) -> None:
    bench.writer.store([Refusal(device="", reason=RefusalReason.TOPIC, detail="x", received_ms=NOW_MS)])
    assert bench.reader.boxes() == ()
    assert len(bench.reader.refusals(10)) == 1


def test_a_device_that_was_deleted_meanwhile_is_made_again(bench: Bench) -> None:
    bench.say(heartbeat())
    with bench.engine.begin() as connection:
        connection.execute(delete(schema.Heartbeat))
        connection.execute(delete(schema.Device))
    assert bench.say(alert(seq=1)).events == 1
    assert only_box(bench).last_contact_ms == NOW_MS


def test_one_device_more_than_the_bound(make_bench: MakeBench) -> None:
    bench = make_bench(devices=2)
    bench.say(heartbeat(), device="ZA35-000001")
    bench.say(heartbeat(), device="ZA35-000002")
    report = bench.say(heartbeat(), device="ZA35-000003")
    assert (report.heartbeats, report.refusals) == (0, 1)
    assert len(bench.reader.boxes()) == 2
    (refusal,) = bench.reader.refusals(10)
    assert refusal.reason == "too-many-devices"
    assert "ZA35-000003" in refusal.detail
    bench.say(alert(), device="ZA35-000002")  # known ones go on
    assert len(bench.reader.alerts(AlertQuery()).alerts) == 1
    bench.close()


def test_every_table_stays_within_its_bound_and_keeps_the_newest(make_bench: MakeBench) -> None:
    bench = make_bench(heartbeats_per_device=5, events_per_device=5, refusals_per_device=5)
    for number in range(40):
        bench.say(heartbeat(seq=number))
        bench.say(alert(seq=number))
        bench.writer.store([Refusal(device=BOX, reason=RefusalReason.OVERSIZE, detail=str(number), received_ms=NOW_MS)])
    bench.say(alert(seq=1000), device=OTHER_BOX)
    for table in (schema.Heartbeat, schema.Event, schema.Refusal):
        assert 5 <= count(bench, table) <= 11  # at most the bound again before it is trimmed
    assert bench.reader.alerts(AlertQuery(device=BOX)).alerts[0].seq == 39
    assert bench.reader.refusals(1)[0].detail == "39"
    assert {box.device: box.refused for box in bench.reader.boxes()} == {BOX: 40, OTHER_BOX: 0}
    assert bench.reader.boxes()[0].uptime_s is not None  # the newest heartbeat is still there
    bench.close()


def test_bounds_hold_after_a_restart(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.writer.store([Message(device=BOX, body=heartbeat(seq=n), received_ms=NOW_MS) for n in range(50)])
    bench.close()
    smaller = make_bench(heartbeats_per_device=3)
    smaller.say(heartbeat(seq=100))
    assert count(smaller, schema.Heartbeat) == 3
    smaller.close()


def test_filters(bench: Bench) -> None:
    bench.say(alert(seq=1, function=Function.VIRUS, severity=Severity.THREE, terminal_ip="192.168.10.12"))
    bench.say(alert(seq=2, function=Function.CATEGORY, severity=Severity.ONE, terminal_mac=b"\x02\0\0\0\0\x01"))
    bench.say(alert(seq=3, terminal_ip="fd00:0010::0013"), device=OTHER_BOX)
    bench.say(feed_event(seq=4))

    def found(query: AlertQuery) -> set[int]:
        return {item.seq for item in bench.reader.alerts(query).alerts}

    assert found(AlertQuery()) == {1, 2, 3}
    assert found(AlertQuery(device=OTHER_BOX)) == {3}
    assert found(AlertQuery(severity=Severity.TWO)) == {1, 3}
    assert found(AlertQuery(severity=Severity.THREE)) == {1}
    assert found(AlertQuery(function=Function.CATEGORY)) == {2}
    assert found(AlertQuery(terminal="192.168.10.12")) == {1}
    assert found(AlertQuery(terminal="02-00-00-00-00-01")) == {2}
    assert found(AlertQuery(terminal="fd00:10:0::13")) == {3}
    assert found(AlertQuery(since_ms=NOW_MS)) == set()
    assert found(AlertQuery(function=Function.VIRUS, terminal="192.168.10.11")) == set()


def test_pages_follow_each_other_without_gap_or_repetition(bench: Bench) -> None:
    for number in range(25):
        bench.say(alert(seq=number, at_ms=NOW_MS - number // 5))  # several at the same moment
    seen: list[int] = []
    before: Cursor | None = None
    while True:
        page = bench.reader.alerts(AlertQuery(limit=4, before=before))
        seen += [item.seq for item in page.alerts]
        if page.next is None:
            break
        before = Cursor.parse(str(page.next))
    assert sorted(seen) == list(range(25))
    assert len(seen) == 25


def test_one_more_than_a_page_may_hold() -> None:
    AlertQuery(limit=MAX_ALERTS)
    with pytest.raises(QueryError):
        AlertQuery(limit=MAX_ALERTS + 1)
    with pytest.raises(QueryError):
        AlertQuery(limit=0)


@pytest.mark.parametrize("text", ["", "1", "a-b", "1-2-3", "-1-2", f"{2**63}-1", "9" * 41, "１-２"])
def test_a_cursor_that_is_none(text: str) -> None:
    with pytest.raises(QueryError):
        Cursor.parse(text)


def test_totals_count_occurrences_but_urgent_alerts_once(bench: Bench) -> None:
    bench.say(alert(seq=1, count=5, severity=Severity.THREE))
    bench.say(alert(seq=2, at_ms=NOW_MS - 86_400_001))
    totals = bench.reader.alert_totals(NOW_MS - 86_400_000)
    assert (totals.blocked, totals.logged, totals.urgent) == (5, 0, 1)


def test_an_empty_store_has_empty_answers(bench: Bench) -> None:
    assert bench.reader.boxes() == ()
    assert bench.reader.alerts(AlertQuery()).alerts == ()
    assert bench.reader.alert_totals(0).blocked == 0
    assert bench.reader.terminals(0) == ()


PICKY = {
    "sqlite": [
        """CREATE TRIGGER picky BEFORE INSERT ON events WHEN NEW.destination = 'poison.test'
        BEGIN SELECT RAISE(ABORT, 'picky'); END"""
    ],
    "sqlite again": [],
    "postgresql": ["ALTER TABLE events ADD CONSTRAINT picky CHECK (destination <> 'poison.test')"],
    "postgresql again": ["ALTER TABLE events DROP CONSTRAINT picky"],
}


def test_a_row_the_database_refuses_becomes_a_refusal_and_the_rest_is_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench.engine.begin() as connection:
        for command in PICKY[bench.engine.dialect.name]:
            connection.exec_driver_sql(command)
    batch = [
        Message(device=BOX, body=alert(seq=n, destination=name), received_ms=NOW_MS)
        for n, name in enumerate(["a.test", "poison.test", "b.test"])
    ]
    report = bench.writer.store(batch)
    assert (report.events, report.refusals) == (2, 1)
    assert bench.reader.refusals(1)[0].reason == "unstorable"
    with bench.engine.begin() as connection:  # the database is used again
        for command in PICKY[f"{bench.engine.dialect.name} again"]:
            connection.exec_driver_sql(command)


def test_a_locked_database_stores_nothing_and_says_so(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omamori_cloud.store.database._BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr("omamori_cloud.store.database._POSTGRESQL_OPTIONS", "-c lock_timeout=50ms")
    bench = make_bench()
    with bench.engine.connect().execution_options(writes=True) as other, other.begin():  # IMMEDIATE: locks SQLite
        if other.dialect.name == "postgresql":
            other.exec_driver_sql("LOCK TABLE events IN EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailableError):
            bench.say(alert(seq=1))
    assert bench.say(alert(seq=1)).events == 1


def test_acknowledged_means_on_disk(bench: Bench) -> None:
    with bench.engine.connect() as connection:
        if connection.dialect.name == "postgresql":  # this server's default is off
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            return
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_two_writers_do_not_disturb_each_other(bench: Bench) -> None:
    second = Writer(bench.engine, bench.limits)
    bench.say(heartbeat())
    second.store([Message(device=OTHER_BOX, body=heartbeat(), received_ms=NOW_MS)])
    report = bench.say(heartbeat(seq=2), device=OTHER_BOX)  # made by the other one in the meantime
    assert (report.heartbeats, report.refusals) == (1, 0)
    assert [box.device for box in bench.reader.boxes()] == [BOX, OTHER_BOX]


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "oracle+x://h/d", "mysql://h/d"])
def test_a_database_url_that_cannot_work(url: str) -> None:
    with pytest.raises(SetupError):
        open_database(url)
