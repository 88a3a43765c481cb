"""What boxes say about firmware updates: kept, newest first, told in words, and a reason to look when it went wrong."""

from __future__ import annotations

from typing import Any

import pytest

from omamori_cloud.as_json import box_object
from omamori_cloud.health import Finding, assess
from omamori_cloud.intake import Delivery, Message, Refusal, take_in
from omamori_cloud.page.firmware_view import view_firmware
from omamori_cloud.store.writer import Writer
from omamori_cloud.wording import ENGLISH, JAPANESE
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, FirmwareReason, FirmwareState, Slot

from .makers import BOTH, BOX, NOW_MS, OTHER_BOX, Bench, heartbeat, state

ENGINES = BOTH


def said(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "boot": 3,
        "seq": 5,
        "at_ms": NOW_MS,
        "kind": EventKind.FIRMWARE,
        "firmware": "1.4.0",
        "firmware_state": FirmwareState.ROLLED_BACK,
        "firmware_reason": FirmwareReason.ENGINE_DOWN,
        "text": "not well 540 s after the start",
        "booted_slot": Slot.A,
        "running_firmware": "1.3.2",
    }
    return Event(**(values | changes))


def test_newest_word_counts_whatever_order_it_comes_in(bench: Bench) -> None:
    bench.say(said(seq=6))
    bench.say(said(seq=5, firmware_state=FirmwareState.TRYING, firmware_reason=FirmwareReason.NONE, text=None))
    bench.say(said(boot=2, seq=900, firmware_state=FirmwareState.DOWNLOADING))
    bench.say(said(seq=6))  # delivered twice
    box = bench.reader.box(BOX)
    assert box is not None
    assert box.update is not None
    assert (box.update.version, box.update.state, box.update.reason) == (
        "1.4.0",
        FirmwareState.ROLLED_BACK,
        FirmwareReason.ENGINE_DOWN,
    )
    assert (box.update.slot, box.update.running) == (Slot.A, "1.3.2")
    bench.say(said(boot=4, seq=1, firmware_state=FirmwareState.COMMITTED, firmware_reason=FirmwareReason.NONE))
    box = bench.reader.box(BOX)
    assert box is not None
    assert box.update is not None
    assert box.update.state is FirmwareState.COMMITTED
    assert len(bench.reader.happenings(50)) == 4


def test_events_are_told_in_one_line(bench: Bench) -> None:
    bench.say(said())
    bench.say(said(seq=6, firmware_state=FirmwareState.IDLE, firmware_reason=None, text=None))
    assert [event.text for event in bench.reader.happenings(5)][::-1] == [
        "firmware 1.4.0: rolled-back: engine-down: not well 540 s after the start",
        "firmware 1.4.0: idle",
    ]


def test_long_text_fits(bench: Bench) -> None:
    bench.say(said(text="x" * 300))
    (event,) = bench.reader.happenings(5)
    assert event.text is not None
    assert len(event.text) == 300


@pytest.mark.parametrize("changes", [{"firmware": None}, {"firmware": ""}, {"firmware_state": None}])
def test_event_without_version_or_state_is_refused(changes: dict[str, Any]) -> None:
    def deliver(event: Event) -> Message | Refusal:
        return take_in(Delivery(topic=f"omamori/v1/{BOX}/evt", payload=event.encode(), received_ms=NOW_MS))

    assert isinstance(deliver(said()), Message)
    assert isinstance(deliver(said(firmware_state=FirmwareState.IDLE)), Message)
    refused = deliver(said(**changes))
    assert isinstance(refused, Refusal)
    assert refused.reason == "malformed"


def test_box_without_a_word_about_updates(bench: Bench) -> None:
    bench.say(said(), device=OTHER_BOX)
    bench.say(heartbeat())
    box = bench.reader.box(BOX)
    assert box is not None
    assert box.update is None


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({}, Finding.FIRMWARE_ROLLED_BACK),
        ({"firmware_state": FirmwareState.FAILED}, Finding.FIRMWARE_FAILED),
        ({"firmware_state": FirmwareState.COMMITTED}, None),
        ({"firmware_state": FirmwareState.REBOOT_PENDING}, None),
        ({"firmware": "2026.11.1"}, None),  # it runs that one by now
    ],
)
def test_update_that_went_wrong_is_a_finding(bench: Bench, changes: dict[str, Any], finding: Finding | None) -> None:
    bench.say(state())
    bench.say(heartbeat(firmware="2026.11.1"))
    bench.say(said(**changes))
    (box,) = bench.reader.boxes()
    findings = set(assess(box, now_ms=NOW_MS, offline_after_s=180).findings)
    assert findings & {Finding.FIRMWARE_FAILED, Finding.FIRMWARE_ROLLED_BACK} == ({finding} if finding else set())


def test_words_and_objects(bench: Bench) -> None:
    bench.say(state())
    bench.say(said(text="<script>alert(1)</script>", running_firmware="1.3.2"))
    (box,) = bench.reader.boxes()
    assert box.update is not None
    japanese = view_firmware(box.update, now_ms=NOW_MS, words=JAPANESE)
    assert (japanese.version, japanese.state, japanese.tone) == (
        "バージョン 1.4.0",
        "元のファームウェアに戻しました",
        "danger",
    )
    assert "検査エンジン" in japanese.reason
    assert japanese.running == "動いているもの: 1.3.2（スロットA）"
    assert view_firmware(box.update, now_ms=NOW_MS, words=ENGLISH).running == "Running: 1.3.2 (slot A)"
    health = assess(box, now_ms=NOW_MS, offline_after_s=180)
    assert box_object(box, health, None)["update"] == {
        "version": "1.4.0",
        "state": "rolled-back",
        "reason": "engine-down",
        "detail": "<script>alert(1)</script>",
        "occurred": "2026-09-21T14:13:20.000Z",
        "running": {"version": "1.3.2", "slot": "A"},
    }


def test_state_of_a_newer_box_is_not_known(bench: Bench) -> None:
    bench.say(said())
    with bench.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE firmware SET state = 99")
    box = bench.reader.box(BOX)
    assert box is not None
    assert box.update is None


def test_writer_of_another_process(bench: Bench) -> None:
    Writer(bench.engine, bench.limits).store(
        [Message(device=BOX, body=said(seq=9), received_ms=NOW_MS, retained=False)]
    )
    bench.say(said(seq=8, firmware_state=FirmwareState.TRYING))
    box = bench.reader.box(BOX)
    assert box is not None
    assert box.update is not None
    assert box.update.state is FirmwareState.ROLLED_BACK
