"""What is too old becomes less, or goes; what a customer wants deleted is gone."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from omamori_cloud.cli import main
from omamori_cloud.clock import system_clock
from omamori_cloud.errors import QueryError
from omamori_cloud.intake import Message, Refusal, RefusalReason
from omamori_cloud.reports import Decision, NewReport, ReportState
from omamori_cloud.retention import DAY_MS, DAY_S, HOUR_S, RetentionConfig, longer, merge, span_of, span_start_ms
from omamori_cloud.store import schema
from omamori_cloud.store.customers import CustomerStore
from omamori_cloud.store.queries import AlertQuery
from omamori_cloud.store.sweeper import Sweeper
from omamori_protocol.feed_book import Kind
from omamori_protocol.reported import Reported
from omamori_protocol.vocabulary import EngineState

from .makers import (
    BOTH,
    BOX,
    NOW_MS,
    OTHER_BOX,
    Bench,
    alert,
    diagnostics,
    feed_event,
    heartbeat,
    ledger_event,
    reported,
    state,
)

ENGINES = BOTH
HOUR_MS = HOUR_S * 1000


def sweep(bench: Bench, **changes: int) -> dict[str, int]:
    config = RetentionConfig(**{"batch_rows": 7, **changes})
    return Sweeper(bench.engine, config, clock=lambda: bench.now_ms, stop=threading.Event()).sweep()


def spans(bench: Bench, length_s: int) -> list[schema.HeartbeatSpan]:
    table = schema.HeartbeatSpan
    with bench.engine.connect() as connection:
        chosen = select(table.__table__).where(table.length_s == length_s).order_by(table.device_id, table.start_ms)
        return list(connection.execute(chosen))


def count(bench: Bench, table: type[schema.Base]) -> int:
    with bench.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def beat(bench: Bench, at_ms: int, device: str = BOX, **changes: object) -> None:
    body = heartbeat(**{"seq": at_ms // 1000, **changes})
    bench.writer.store([Message(device=device, body=body, received_ms=at_ms)])


class TestRules:
    def test_days_begin_at_midnight_in_japan(self) -> None:
        assert span_start_ms(NOW_MS, DAY_S) == 1_789_916_400_000  # 2026-09-21 00:00 in Japan
        assert span_start_ms(NOW_MS, HOUR_S) == 1_789_999_200_000

    beats = st.fixed_dictionaries(
        {
            "received_ms": st.integers(0, 10 * HOUR_MS),
            "seq": st.integers(0, 2**32),
            "boot": st.integers(0, 3),
            "engine": st.sampled_from([int(choice) for choice in EngineState]),
            **{
                name: st.integers(0, 1000)
                for name in (
                    "uptime_s", "feed_serial", "uninspected_s", "inspected_packets", "bypassed_packets",
                    "blocked_packets", "busy_permille", "agent_rss_kib", "memory_available_kib", "spool_depth",
                )
            },
            "celsius": st.none() | st.integers(-128, 127),
            "millivolts": st.none() | st.integers(0, 65535),
            "device_id": st.just(BOX),
            "firmware": st.just("1"),
        }
    )  # fmt: skip

    @settings(max_examples=40)
    @given(st.lists(beats, min_size=1, max_size=20, unique_by=lambda beat: (beat["boot"], beat["seq"])), st.randoms())
    def test_it_does_not_matter_in_how_many_steps_and_in_which_order(self, beats: list, rng: random.Random) -> None:
        whole = merge([longer(span_of(one, HOUR_S), DAY_S) | {"start_ms": 0} for one in beats])
        parts = [span_of(one, HOUR_S) | {"start_ms": 0} for one in beats]
        while len(parts) > 1:
            rng.shuffle(parts)
            parts = [merge(parts[:2]), *parts[2:]]
        assert longer(parts[0], DAY_S) | {"start_ms": 0} == whole
        assert whole["beats"] == len(beats)
        assert whole["memory_available_kib_min"] == min(one["memory_available_kib"] for one in beats)
        assert whole["celsius_max"] == max(
            (one["celsius"] for one in beats if one["celsius"] is not None), default=None
        )


class TestHeartbeats:
    def test_from_single_ones_to_hours_to_days_to_nothing(self, bench: Bench) -> None:
        start = span_start_ms(NOW_MS, DAY_S)
        for hour in range(3):
            for minute in (0, 20, 40, 59):
                engine = EngineState.INSPECTING if hour else EngineState.STARTING
                beat(bench, start + hour * HOUR_MS + minute * 60_000, busy_permille=minute, engine=engine)
        beat(bench, start, OTHER_BOX, boot=7, uptime_s=5)
        beat(bench, start + 5 * HOUR_MS, OTHER_BOX, boot=8)
        assert sweep(bench) == {}

        bench.now_ms = start + 7 * DAY_MS + 2 * HOUR_MS + 59 * 60_000  # the third hour is not over a week old yet
        assert sweep(bench) == {"heartbeats": 9}
        hours = spans(bench, HOUR_S)
        assert [(row.device_id, row.beats, row.inspecting, row.busy_max, row.busy_sum) for row in hours] == [
            (BOX, 4, 0, 59, 119),
            (BOX, 4, 4, 59, 119),
            (OTHER_BOX, 1, 1, 0, 0),
        ]
        assert (hours[0].seq, hours[2].boot) == ((start + 59 * 60_000) // 1000, 7)
        assert sweep(bench) == {}

        bench.now_ms = start + 91 * DAY_MS
        assert sweep(bench) == {"heartbeats": 3, "hours": 4}  # the newest of each box stays: it describes the box
        days = spans(bench, DAY_S)
        assert [(row.device_id, row.beats, row.start_ms) for row in days] == [(BOX, 11, start), (OTHER_BOX, 1, start)]
        assert {box.uptime_s for box in bench.reader.boxes()} == {11_700}

        beat(bench, bench.now_ms, uptime_s=60)
        assert sweep(bench) == {"heartbeats": 1, "hours": 1}  # what described the box until now joins the others
        assert [row.beats for row in spans(bench, DAY_S)] == [12, 1]
        bench.now_ms = start + 1101 * DAY_MS + 1
        assert sweep(bench)["days"] == 2
        assert spans(bench, DAY_S) == []

    def test_none_is_lost_or_doubled_while_others_come(self, bench: Bench) -> None:
        old, many = NOW_MS - 20 * DAY_MS, 200
        stop = threading.Event()

        def ingest() -> None:
            number = 0
            while not stop.wait(0.005):
                number += 1
                beat(bench, NOW_MS + number, OTHER_BOX)

        for number in range(0, many, 50):
            bodies = [heartbeat(seq=number + n) for n in range(50)]
            bench.writer.store([Message(device=BOX, body=body, received_ms=old + body.seq * 60_000) for body in bodies])
        thread = threading.Thread(target=ingest)
        writer, bench.writer = bench.writer, type(bench.writer)(bench.engine, bench.limits)
        thread.start()
        workers = [threading.Thread(target=sweep, args=(bench,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert not any(worker.is_alive() for worker in workers)
        sweep(bench)
        stop.set()
        thread.join(60)
        bench.writer = writer
        assert sum(row.beats for row in spans(bench, HOUR_S)) == many - 1  # and the one that describes the box


class TestContracts:
    def test_alerts_are_kept_by_contract(self, bench: Bench) -> None:
        customers = CustomerStore(bench.engine)
        customers.set_contract("long", 1000, NOW_MS)
        customers.set_contract("short", 30, NOW_MS)
        customers.set_contract("usual", None, NOW_MS)
        for number, customer in enumerate(["long", "short", "usual"]):
            customers.assign(customer, f"ZA35-00000{number}")
        for number in range(4):  # the last one belongs to nobody
            for days in (10, 40, 364, 366, 999):
                bench.now_ms = NOW_MS - days * DAY_MS
                bench.say(alert(seq=days, at_ms=bench.now_ms), device=f"ZA35-00000{number}")
                bench.say(feed_event(seq=days + 5000, at_ms=bench.now_ms), device=f"ZA35-00000{number}")
        bench.now_ms = NOW_MS
        assert sweep(bench) == {"alerts": 4 + 2 + 2, "events": 8}
        left = {number: set() for number in range(4)}
        for found in bench.reader.alerts(AlertQuery(limit=100)).alerts:
            left[int(found.device[-1])].add(found.seq)
        assert left == {0: {10, 40, 364, 366, 999}, 1: {10}, 2: {10, 40, 364}, 3: {10, 40, 364}}
        assert sweep(bench) == {}

    def test_ledger_and_refusals_go_and_sums_stay(self, bench: Bench) -> None:
        for days in (400, 100, 1):
            bench.now_ms = NOW_MS - days * DAY_MS
            bench.say(ledger_event(seq=days, at_ms=bench.now_ms))
            refusal = Refusal(device=BOX, reason=RefusalReason.MALFORMED, detail="x", received_ms=bench.now_ms)
            bench.writer.store([refusal])
        bench.now_ms = NOW_MS
        assert sweep(bench) == {"ledger": 1, "refusals": 2}
        (box,) = bench.reader.boxes()
        assert (count(bench, schema.LedgerEntry), box.ledger[0].packets, box.refused) == (2, 3 * 3_400, 3)

    def test_diagnostics_go_after_a_while(self, bench: Bench) -> None:
        for device, days in ((BOX, 31), (OTHER_BOX, 29)):
            bench.now_ms = NOW_MS - days * DAY_MS
            bench.say(diagnostics(), device=device)
        bench.now_ms = NOW_MS
        assert sweep(bench) == {"diagnostics": 1}
        assert bench.reader.diagnostics(BOX) is None
        assert bench.reader.diagnostics(OTHER_BOX) is not None

    @pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 33, "名"])
    def test_a_name_that_is_none(self, bench: Bench, name: str) -> None:
        with pytest.raises(QueryError):
            CustomerStore(bench.engine).set_contract(name, None, NOW_MS)

    @pytest.mark.parametrize("days", [0, 36_501])
    def test_days_out_of_bounds(self, bench: Bench, days: int) -> None:
        with pytest.raises(QueryError):
            CustomerStore(bench.engine).set_contract("x", days, NOW_MS)


def fill(bench: Bench, device: str) -> None:
    bodies: list[Reported | object] = [state(), reported(), diagnostics()]
    bodies += [alert(seq=1), feed_event(seq=2), ledger_event(seq=3)]
    bodies += [heartbeat(seq=number) for number in range(20)]
    bench.writer.store([Message(device=device, body=body, received_ms=NOW_MS) for body in bodies])
    bench.writer.store([Refusal(device=device, reason=RefusalReason.MALFORMED, detail="x", received_ms=NOW_MS)])
    sweep(bench, heartbeat_days=1)
    report = NewReport(
        kind=Kind.DOMAIN, indicator=f"{device.lower()}.example", device=device, reporter="Sato", note="please",
        terminal_ip="192.168.10.11", alert_id=1,
    )  # fmt: skip
    bench.reports.file(report, NOW_MS)
    accepted = bench.reports.file(NewReport(**{**vars_of(report), "indicator": "accepted.example"}), NOW_MS)
    decision = Decision(
        state=ReportState.ACCEPTED, by="op", reason="", kind=Kind.DOMAIN, indicator=f"{device.lower()}.accepted.example"
    )
    bench.reports.decide(accepted, decision, NOW_MS)


def vars_of(report: NewReport) -> dict[str, object]:
    return {name: getattr(report, name) for name in report.__dataclass_fields__}


class TestForgetting:
    def test_a_box_is_gone_from_every_table_and_the_other_is_not(self, bench: Bench) -> None:
        customers = CustomerStore(bench.engine, batch_rows=6)
        customers.set_contract("c", None, NOW_MS)
        for device in (BOX, OTHER_BOX):
            fill(bench, device)
            customers.assign("c", device)
        before = {table: count(bench, table) for table in tables()}
        gone = customers.forget_device(BOX, NOW_MS)
        assert gone == {
            "devices": 1, "assignments": 1, "heartbeats": 20, "events": 2, "ledger_entries": 1, "ledger_totals": 1,
            "refusals": 1, "reports": 1, "reports made anonymous": 1, "settings": 1, "states": 1, "diagnostics": 1,
        }  # fmt: skip
        with bench.engine.connect() as connection:
            for table in tables():
                rows = connection.execute(select(table.__table__)).mappings().all()
                assert not any(BOX in repr(dict(row)) for row in rows), table
                if "device_id" in table.__table__.columns:
                    assert len(rows) == before[table] // 2, table
            (erasure,) = connection.execute(select(schema.Erasure.__table__)).mappings()
            kept = connection.execute(select(schema.Report.__table__).where(schema.Report.device == "")).mappings()
            (report,) = kept
        assert (erasure["subject"], erasure["rows"]) == (f"device {BOX}", gone)
        assert (report["reporter"], report["note"], report["terminal_ip"], report["alert_id"]) == ("", "", None, None)
        assert report["accepted_indicator"].endswith("accepted.example")
        assert bench.say(alert(seq=1)).events == 1  # a new box with an old name
        with pytest.raises(QueryError):
            customers.forget_device("ZA35-000077", NOW_MS)

    def test_a_customer_with_all_boxes(self, bench: Bench) -> None:
        customers = CustomerStore(bench.engine)
        for name, device in (("one", BOX), ("other", OTHER_BOX)):
            customers.set_contract(name, 30, NOW_MS)
            customers.assign(name, device)
            fill(bench, device)
        gone = customers.forget_customer("one", NOW_MS)
        assert (gone["devices"], gone["customers"], gone["events"]) == (1, 1, 2)
        assert [box.device for box in bench.reader.boxes()] == [OTHER_BOX]
        assert [customer.id for customer in customers.customers()] == ["other"]
        with pytest.raises(QueryError):
            customers.forget_customer("one", NOW_MS)

    def test_while_the_box_goes_on_sending(self, bench: Bench) -> None:
        stop, failures = threading.Event(), []

        def ingest() -> None:
            number = 0
            try:
                while not stop.wait(0.002):
                    number += 1
                    bodies = [alert(boot=9, seq=number), heartbeat(boot=9, seq=number)]
                    bench.writer.store([Message(device=BOX, body=body, received_ms=NOW_MS) for body in bodies])
            except Exception as err:  # noqa: BLE001 - whatever it is, the test shows it
                failures.append(err)

        thread = threading.Thread(target=ingest)
        thread.start()
        customers = CustomerStore(bench.engine, batch_rows=5)
        done = 0
        while done < 3:
            try:
                customers.forget_device(BOX, NOW_MS)
                done += 1
            except QueryError:
                continue  # nothing new yet
        stop.set()
        thread.join(60)
        assert failures == []
        assert count(bench, schema.Refusal) == 0


def tables() -> list[type[schema.Base]]:
    others = {schema.Erasure, schema.Installation}
    return [mapper.class_ for mapper in schema.Base.registry.mappers if mapper.class_ not in others]


def test_on_the_command_line(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(bench.configuration(tmp_path, "[retention]\nalert_days = 400"))

    def run(*words: str) -> tuple[int, str]:
        code = main(["retention", *words, "--config", config])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    bench.now_ms = system_clock()
    bench.say(alert(seq=1, at_ms=bench.now_ms))
    assert run("contract", "sato", "--alert-days", "30") == (0, "")
    assert run("assign", "sato", BOX, OTHER_BOX) == (0, "")
    shown = json.loads(run("show", "--json")[1])
    assert shown["customers"] == [{"id": "sato", "alert_days": 30, "devices": [BOX, OTHER_BOX]}]
    assert shown["kept"]["alert_days"] == 400
    assert run("sweep")[0] == 0
    code, said = run("forget", "--device", BOX)
    assert (code, "--yes" in said) == (2, True)
    assert json.loads(run("forget", "--device", BOX, "--yes", "--json")[1])["deleted"]["events"] == 1
    assert "customers: 1" in run("forget", "--customer", "sato", "--yes")[1]
    assert run("assign", "sato", BOX)[0] == 2
