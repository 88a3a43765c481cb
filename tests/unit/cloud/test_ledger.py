"""The uninspected ledger and the reports on settings: stored once, summed, bounded, shown, refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from sqlalchemy import func, select

from omamori_cloud.cli import main
from omamori_cloud.errors import QueryError
from omamori_cloud.facts import LedgerSum
from omamori_cloud.health import Finding, assess
from omamori_cloud.ingest import IngestStatus
from omamori_cloud.intake import Delivery, Message, Refusal, take_in
from omamori_cloud.page.config import PageConfig
from omamori_cloud.page.ledger_view import view_settings, view_sums
from omamori_cloud.store import schema
from omamori_cloud.store.queries import MAX_LEDGER, Cursor, LedgerQuery
from omamori_cloud.wording import ENGLISH, JAPANESE
from omamori_protocol.reported import PartName, PartReport, PartState
from omamori_protocol.vocabulary import UninspectedReason

from .makers import BOTH, BOX, NOW_MS, OTHER_BOX, Bench, MakeBench, alert, heartbeat, ledger_event, reported, state
from .web_client import WebClient

HUNG, DOWN = UninspectedReason.ENGINE_HUNG, UninspectedReason.ENGINE_DOWN


ENGINES = BOTH


@pytest.fixture
def client(bench: Bench) -> Iterator[WebClient]:
    status = IngestStatus()
    status.set("")
    made = WebClient(bench.app(PageConfig(names={BOX: "本社"}), status))
    yield made
    made.close()


def entries(bench: Bench, **query: Any) -> list[int]:
    return [entry.seq for entry in bench.reader.ledger(LedgerQuery(device=BOX, **query)).entries]


def totals(bench: Bench) -> dict[str, tuple[int, int, int]]:
    (box,) = bench.reader.boxes()
    return {entry.reason.word: (entry.seconds, entry.packets, entry.size_bytes) for entry in box.ledger}


def test_an_entry_comes_back_as_it_went_in_and_is_no_event(bench: Bench) -> None:
    report = bench.say(ledger_event(seq=7))
    assert (report.ledger, report.events) == (1, 0)
    (entry,) = bench.reader.ledger(LedgerQuery(device=BOX)).entries
    assert (entry.device, entry.boot, entry.seq, entry.reason) == (BOX, 1, 7, DOWN)
    assert (entry.seconds, entry.packets, entry.size_bytes) == (12, 3_400, 2_500_000)
    assert (entry.at_ms, entry.occurred_ms, entry.received_ms) == (NOW_MS - 60_000, NOW_MS - 60_000, NOW_MS)
    assert bench.reader.happenings(10) == ()


def test_an_entry_delivered_twice_is_counted_once(bench: Bench) -> None:
    message = Message(device=BOX, body=ledger_event(seq=7), received_ms=NOW_MS)
    assert bench.writer.store([message, message]).ledger == 1
    assert bench.writer.store([message]).duplicates == 1
    assert totals(bench) == {"engine-down": (12, 3_400, 2_500_000)}


def test_sums_are_kept_by_reason_and_outlive_their_entries(make_bench: MakeBench) -> None:
    bench = make_bench(ledger_entries_per_device=5)
    for number in range(40):
        bench.say(ledger_event(seq=number, uninspected_s=1, packets=2, size_bytes=3))
    bench.say(ledger_event(seq=100, uninspected_reason=HUNG, uninspected_s=0, packets=9, size_bytes=None))
    assert totals(bench) == {"engine-down": (40, 80, 120), "engine-hung": (0, 9, 0)}
    with bench.engine.connect() as connection:
        kept = connection.scalar(select(func.count()).select_from(schema.LedgerEntry)) or 0
    assert 5 <= kept <= 11
    bench.close()


def test_alerts_never_push_the_ledger_out(make_bench: MakeBench) -> None:
    bench = make_bench(events_per_device=2)
    bench.say(ledger_event(seq=1))
    for number in range(20):
        bench.say(alert(seq=number))
    assert entries(bench) == [1]
    bench.close()


def test_a_box_that_lies_about_amounts_does_not_break_the_sums(bench: Bench) -> None:
    huge = 2**63 - 1
    for number in range(3):
        bench.say(ledger_event(seq=number, packets=huge, size_bytes=huge, uninspected_s=2**32 - 1))
    assert totals(bench)["engine-down"][1:] == (huge, huge)


def test_the_latest_moment_does_not_go_back(bench: Bench) -> None:
    bench.say(ledger_event(seq=2, at_ms=NOW_MS - 1000))
    bench.say(ledger_event(seq=1, at_ms=NOW_MS - 9000))
    (box,) = bench.reader.boxes()
    assert box.ledger[0].latest_ms == NOW_MS - 1000


def test_pages_of_a_ledger_follow_each_other_and_hold_one_box_only(bench: Bench) -> None:
    for number in range(25):
        bench.say(ledger_event(seq=number, at_ms=NOW_MS - number // 5))
    bench.say(ledger_event(seq=99), device=OTHER_BOX)
    seen: list[int] = []
    before: Cursor | None = None
    while True:
        page = bench.reader.ledger(LedgerQuery(device=BOX, limit=4, before=before))
        seen += [entry.seq for entry in page.entries]
        if page.next is None:
            break
        before = Cursor.parse(str(page.next))
    assert sorted(seen) == list(range(25))


def test_sums_of_a_period(bench: Bench) -> None:
    bench.say(ledger_event(seq=1, at_ms=NOW_MS - 10_000, packets=1))
    bench.say(ledger_event(seq=2, at_ms=NOW_MS - 1000, packets=10))
    bench.say(ledger_event(seq=3, at_ms=NOW_MS - 1000, packets=100, uninspected_reason=HUNG))
    found = {entry.reason: entry.packets for entry in bench.reader.ledger_sums(BOX, NOW_MS - 5000)}
    assert found == {DOWN: 10, HUNG: 100}
    assert entries(bench, since_ms=NOW_MS - 5000) == [3, 2]


def test_one_more_than_a_page_may_hold() -> None:
    LedgerQuery(device=BOX, limit=MAX_LEDGER)
    for wrong in ({"limit": MAX_LEDGER + 1}, {"limit": 0}, {"device": "no device"}):
        with pytest.raises(QueryError):
            LedgerQuery(**{"device": BOX, **wrong})


def test_a_reason_of_a_newer_version_is_left_out(bench: Bench) -> None:
    bench.say(ledger_event(seq=1))
    with bench.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("UPDATE ledger_entries SET reason = 99")
        connection.exec_driver_sql("UPDATE ledger_totals SET reason = 99")
    assert entries(bench) == []
    assert bench.reader.ledger_sums(BOX, None) == ()
    assert totals(bench) == {}


def test_an_entry_without_a_reason_is_refused() -> None:
    payload = ledger_event(uninspected_reason=None).encode()
    taken = take_in(Delivery(topic=f"omamori/v1/{BOX}/evt", payload=payload, received_ms=NOW_MS))
    assert isinstance(taken, Refusal)
    assert (taken.reason, taken.detail) == ("malformed", "evt: a ledger entry without a reason")


def test_a_report_replaces_the_one_before(bench: Bench) -> None:
    bench.say(reported(version=6))
    bench.now_ms += 1000
    assert bench.say(reported(command_id=b"12345678", command_state=PartState.APPLIED)).reports == 1
    settings = bench.reader.boxes()[0].settings
    assert settings is not None
    assert (settings.version, settings.state, settings.received_ms) == (7, PartState.REFUSED, NOW_MS + 1000)
    assert [(part.part, part.state, part.reason) for part in settings.parts] == [
        (PartName.POLICY, PartState.APPLIED, None),
        (PartName.ADDRESS, PartState.PENDING, "waits for the broker"),
        (PartName.WIFI, PartState.REFUSED, "no radio on this board"),
    ]
    assert (settings.command_id, settings.command_state) == (b"12345678", PartState.APPLIED)
    bench.say(reported(parts=(), state=PartState.NONE, version=0))
    settings = bench.reader.boxes()[0].settings
    assert settings is not None
    assert (settings.parts, settings.command_id) == ((), None)


def test_a_retained_report_is_no_sign_of_life(bench: Bench) -> None:
    bench.say(reported(), retained=True)
    assert bench.reader.boxes()[0].last_contact_ms is None
    bench.say(reported())
    assert bench.reader.boxes()[0].last_contact_ms == NOW_MS


def test_a_report_from_the_broker_is_taken_in_and_one_part_too_many_is_not() -> None:
    def deliver(payload: bytes) -> Message | Refusal:
        return take_in(Delivery(topic=f"omamori/v1/{BOX}/reported", payload=payload, received_ms=NOW_MS))

    taken = deliver(reported().encode())
    assert isinstance(taken, Message)
    assert taken.body == reported()
    parts = [{1: 1, 2: 1}] * (len(PartName) + 1)
    refused = deliver(cbor2.dumps({0: 1, 1: 1, 2: 1, 3: 1, 4: parts}, canonical=True))
    assert isinstance(refused, Refusal)
    assert refused.reason == "oversize"


def finding_words(bench: Bench) -> set[Finding]:
    (box,) = bench.reader.boxes()
    return set(assess(box, now_ms=bench.now_ms, offline_after_s=180).findings)


def test_refused_settings_and_a_bypass_are_findings_while_they_last(bench: Bench) -> None:
    bench.say(state())
    bench.say(heartbeat())
    fine = reported(parts=(), state=PartState.APPLIED)
    bench.say(fine)
    assert finding_words(bench) == set()
    bench.say(reported(bypass_until_s=NOW_MS // 1000 + 60))
    assert finding_words(bench) == {Finding.BYPASSED, Finding.SETTINGS_REFUSED}
    bench.say(reported(parts=(), state=PartState.APPLIED, refused_reason="not newer", refused_version=3))
    assert finding_words(bench) == {Finding.SETTINGS_REFUSED}
    bench.say(reported(parts=(), state=PartState.APPLIED, bypass_until_s=NOW_MS // 1000 + 60))
    bench.now_ms += 61_000
    assert finding_words(bench) == set()


def test_boxes_tell_scripts_about_settings_and_ledger(client: WebClient, bench: Bench) -> None:
    bench.say(heartbeat())
    (before,) = client.get("/api/v1/boxes").json()["boxes"]
    assert (before["settings"], before["ledger"]) == (None, {})
    bench.say(reported(bypass_until_s=NOW_MS // 1000 + 60, refused_version=8, refused_reason="expired"))
    bench.say(ledger_event())
    (box,) = client.get("/api/v1/boxes").json()["boxes"]
    settings = box["settings"]
    assert (settings["version"], settings["state"]) == (7, "refused")
    assert settings["parts"]["wifi"] == {"state": "refused", "reason": "no radio on this board"}
    assert settings["parts"]["policy"] == {"state": "applied", "reason": None}
    assert settings["refused"] == {"version": 8, "reason": "expired"}
    assert (settings["command"], settings["bypass_until"]) == (None, "2026-09-21T14:14:20.000Z")
    assert box["ledger"]["engine-down"]["bytes"] == 2_500_000
    assert "settings-refused" in box["findings"]


def test_a_ledger_for_scripts(client: WebClient, bench: Bench) -> None:
    for number in range(5):
        bench.say(ledger_event(seq=number, at_ms=NOW_MS - 1000 * number))
    first = client.get(f"/api/v1/ledger?device={BOX}&limit=3").json()
    assert [entry["seq"] for entry in first["entries"]] == [0, 1, 2]
    assert first["entries"][0]["reason"] == "engine-down"
    assert first["sums"]["engine-down"]["packets"] == 5 * 3_400
    rest = client.get(f"/api/v1/ledger?device={BOX}&limit=3&before={first['next']}").json()
    assert ([entry["seq"] for entry in rest["entries"]], rest["next"]) == ([3, 4], None)
    recent = client.get(f"/api/v1/ledger?device={BOX}&since=2s").json()
    assert [entry["seq"] for entry in recent["entries"]] == [0, 1, 2]
    assert client.get("/api/v1/ledger?device=ZA35-999999").json()["entries"] == []


@pytest.mark.parametrize(
    "query",
    ["", *(f"device={rest}" for rest in ("", "x", f"{BOX}&limit=501", f"{BOX}&before=1", f"{BOX}&since=yesterday"))],
)
def test_a_senseless_question_about_a_ledger_is_an_error(client: WebClient, query: str) -> None:
    answer = client.get(f"/api/v1/ledger?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_the_page_of_a_box_in_japanese_and_in_english(client: WebClient, bench: Bench) -> None:
    bench.say(state())
    bench.say(heartbeat())
    assert f'href="/box/{BOX}"' in client.get("/").text
    empty = client.get(f"/box/{BOX}").text
    assert "設定についての報告はまだありません" in empty
    assert "検査されずに通った通信の記録はありません" in empty
    bench.say(reported(command_id=b"12345678", command_state=PartState.APPLIED, bypass_until_s=NOW_MS // 1000 + 600))
    bench.say(ledger_event())
    text = client.get(f"/box/{BOX}").text
    for words in ("検査されなかった通信", "検査の停止", "12秒", "3,400", "2.5 MB", "この24時間", "第7版の設定"):
        assert words in text
    for words in (
        "反映済み",
        "拒否",
        "待ち",
        "no radio on this board",
        "waits for the broker",
        "検査せずに通しています",
    ):
        assert words in text
    english = client.get(f"/box/{BOX}?lang=en").text
    for words in ("Traffic that was not inspected", "Inspection stopped", "applied", "refused", "waiting"):
        assert words in english
    assert f'href="/box/{BOX}"' not in client.get(f"/box/{BOX}/live").text  # no link to itself


def test_older_entries_are_one_link_away(client: WebClient, bench: Bench) -> None:
    for number in range(60):
        bench.say(ledger_event(seq=number, packets=1000 + number, at_ms=NOW_MS - number))
    first = client.get(f"/box/{BOX}").text
    assert "1,049" in first
    assert "1,050" not in first
    place = f"{NOW_MS - 49}-50"
    assert f"/box/{BOX}?before={place}" in first
    second = client.get(f"/box/{BOX}?before={place}").text
    assert "1,050" in second
    assert f"/box/{BOX}/live?before={place}" in second  # what is refreshed stays at the same place
    assert f"/box/{BOX}?before={place}&amp;lang=en" in second


@pytest.mark.parametrize("device", [OTHER_BOX, "x", "..%2f", "ZA35-000001'", "a" * 100])
def test_a_box_nobody_knows_has_no_page(client: WebClient, bench: Bench, device: str) -> None:
    bench.say(heartbeat())
    assert client.get(f"/box/{device}").status_code == 404
    assert client.get(f"/box/{device}/live").status_code == 404


def test_a_senseless_place_shows_the_newest(client: WebClient, bench: Bench) -> None:
    bench.say(ledger_event(packets=4_711))
    assert "4,711" in client.get(f"/box/{BOX}?before=%3Cscript%3E").text


def test_the_live_part_of_a_box_is_sent_only_when_it_changed(client: WebClient, bench: Bench) -> None:
    bench.say(heartbeat())
    first = client.get(f"/box/{BOX}/live")
    assert client.get(f"/box/{BOX}/live", {"If-None-Match": first.headers["ETag"]}).status_code == 304
    bench.say(ledger_event())
    assert client.get(f"/box/{BOX}/live", {"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_hostile_reasons_stay_texts(client: WebClient, bench: Bench) -> None:
    evil = "<script>alert(1)</script>\u202e"
    part = PartReport(part=PartName.WIFI, state=PartState.REFUSED, reason=evil)
    bench.say(reported(parts=(part,), refused_reason=evil, command_id=b"1" * 8, command_state=PartState.REFUSED))
    for path in (f"/box/{BOX}", f"/box/{BOX}/live"):
        text = client.get(path).text
        assert "<script>alert" not in text
        assert "\u202e" not in text


def test_amounts_in_words() -> None:
    def size(size_bytes: int) -> str:
        total = LedgerSum(reason=DOWN, seconds=0, packets=0, size_bytes=size_bytes, latest_ms=0)
        return view_sums([total], ENGLISH)[0].size

    assert [size(n) for n in (0, 999, 1000, 999_949, 999_950, 2_500_000, 10**9, 3 * 10**15)] == [
        "0 bytes",
        "999 bytes",
        "1.0 KB",
        "999.9 KB",
        "1.0 MB",
        "2.5 MB",
        "1.0 GB",
        "3,000,000.0 GB",
    ]


def test_settings_of_the_factory_say_so(bench: Bench) -> None:
    bench.say(reported(version=0, parts=(), state=PartState.NONE))
    settings = bench.reader.boxes()[0].settings
    assert settings is not None
    assert "出荷時の設定" in view_settings(settings, now_ms=NOW_MS, words=JAPANESE).version


def test_a_ledger_on_the_command_line(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.say(ledger_event(seq=3))
    arguments = ["ledger", "--config", str(bench.configuration(tmp_path)), "--device", BOX]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split("\t")[1:] == ["engine-down", "12", "3400", "2500000\n"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["seq"] == 3
    assert main([*arguments, "--limit", "0"]) == 2
