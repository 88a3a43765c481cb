"""Ingest against a real broker: once each, nothing lost, nothing fatal."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import FeedState, Presence
from unit.cloud.makers import alert, diagnostics, feed_event, heartbeat, ledger_event, reported, state

from .cloud_rig import Rig, running_rig, wait_for

BOX = "ZA35-000001"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as made:
        yield made


def test_heartbeat_state_and_event_arrive(rig: Rig) -> None:
    box = rig.box()
    box.say("state", state().encode())
    box.say("hb", heartbeat().encode())
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode())
    found = wait_for(lambda: rig.cloud.box(BOX), "the box")
    wait_for(lambda: rig.cloud.box(BOX)["engine"], "the heartbeat")
    found = rig.cloud.box(BOX)
    assert (found["online"], found["level"], found["engine"]) == (True, "ok", "inspecting")
    (stored,) = wait_for(rig.cloud.alerts, "the alert")
    assert (stored["device"], stored["destination"]) == (BOX, "phishing.test")


def test_the_same_event_twice_is_stored_once(rig: Rig) -> None:
    box = rig.box()
    event = alert(seq=1, at_ms=now_ms()).encode()
    for _ in range(3):
        box.say("evt", event)
    box.say("evt", alert(seq=2, at_ms=now_ms()).encode())
    wait_for(lambda: len(rig.cloud.alerts()) == 2, "both alerts")


def test_a_ledger_and_a_report_on_settings_arrive_once(rig: Rig) -> None:
    box = rig.box()
    entry = ledger_event(seq=1, at_ms=now_ms()).encode()
    for _ in range(3):
        box.say("evt", entry)
    box.say("reported", reported(version=6, at_s=now_ms() // 1000).encode())
    box.say("reported", reported(version=7, at_s=now_ms() // 1000).encode())
    wait_for(lambda: (rig.cloud.box(BOX).get("settings") or {}).get("version") == 7, "the report")
    wait_for(lambda: rig.cloud.box(BOX)["ledger"], "the ledger")
    assert rig.cloud.box(BOX)["ledger"]["engine-down"]["packets"] == 3_400
    (stored,) = rig.cloud.get(f"/api/v1/ledger?device={BOX}")["entries"]
    assert (stored["reason"], stored["seconds"], stored["bytes"]) == ("engine-down", 12, 2_500_000)
    rig.cloud.stop()
    rig.cloud.start()  # the broker hands over its retained copy again
    assert rig.cloud.box(BOX)["settings"]["version"] == 7
    assert rig.cloud.box(BOX)["ledger"]["engine-down"]["packets"] == 3_400


def test_what_a_box_tells_about_itself_arrives(rig: Rig) -> None:
    box = rig.box()
    told = diagnostics({"format": 1, "log": ["x"]}, at_s=now_ms() // 1000)
    box.say(f"job/{told.command_id.hex()}", told.encode())
    box.say(f"job/{bytes(8).hex()}", b"junk")
    path = f"/api/v1/diagnostics?device={BOX}"
    assert wait_for(lambda: rig.cloud.get(path)["diagnostics"], "what it told")["content"]["log"] == ["x"]
    wait_for(lambda: rig.cloud.box(BOX)["refused_messages"] == 1, "the refusal")


def test_what_happens_while_the_cloud_is_away_arrives_afterwards_once(rig: Rig) -> None:
    box = rig.box()
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode())
    wait_for(rig.cloud.alerts, "the first alert")
    assert rig.cloud.stop() == 0
    for number in range(2, 300):
        box.say("evt", alert(seq=number, at_ms=now_ms()).encode(), wait=False)
    box.say("evt", alert(seq=300, at_ms=now_ms()).encode())
    rig.cloud.start()
    wait_for(lambda: len(rig.cloud.alerts()) == 300, "all alerts")
    assert {item["seq"] for item in rig.cloud.alerts()} == set(range(1, 301))


def test_a_killed_cloud_loses_and_doubles_nothing(rig: Rig) -> None:
    box = rig.box()
    for number in range(400):
        box.say("evt", alert(seq=number, at_ms=now_ms()).encode(), wait=False)
        if number in (100, 250):
            rig.cloud.stop(signal.SIGKILL)
            rig.cloud.start()
    wait_for(lambda: len(rig.cloud.alerts()) == 400, "all alerts", within_s=40)
    time.sleep(0.3)
    assert len(rig.cloud.alerts()) == 400


def test_nothing_is_acknowledged_before_it_is_stored(rig: Rig) -> None:
    """With the database locked, a stop loses what was received: so the broker must still have it."""
    box = rig.box()
    box.say("hb", heartbeat().encode())
    wait_for(lambda: rig.cloud.box(BOX), "the box")
    lock = sqlite3.connect(rig.cloud.folder / "state" / "cloud.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    for number in range(20):
        box.say("evt", alert(seq=number, at_ms=now_ms()).encode())
    time.sleep(1)
    rig.cloud.stop(signal.SIGKILL)
    lock.execute("ROLLBACK")
    lock.close()
    rig.cloud.start()
    wait_for(lambda: len(rig.cloud.alerts()) == 20, "all alerts")


def test_a_database_that_is_locked_for_a_while(rig: Rig) -> None:
    box = rig.box()
    box.say("hb", heartbeat().encode())
    wait_for(lambda: rig.cloud.box(BOX), "the box")
    lock = sqlite3.connect(rig.cloud.folder / "state" / "cloud.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode())
    assert wait_for(lambda: rig.cloud.health().get("trouble"), "the trouble to show").startswith("database")
    lock.execute("ROLLBACK")
    lock.close()
    wait_for(rig.cloud.alerts, "the alert")
    wait_for(lambda: rig.cloud.health()["trouble"] is None, "the trouble to end")


def test_a_broker_restart_is_survived(rig: Rig) -> None:
    box = rig.box()
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode())
    wait_for(rig.cloud.alerts, "the first alert")
    rig.broker.stop()
    wait_for(lambda: rig.cloud.health()["ingest"] == "disconnected", "the loss to show")
    assert rig.cloud.health()["trouble"]
    rig.broker.start()
    wait_for(lambda: rig.cloud.health()["ingest"] == "connected", "ingest to come back")
    wait_for(box._client.is_connected, "the box to come back")
    box.say("evt", alert(seq=2, at_ms=now_ms()).encode())
    wait_for(lambda: len(rig.cloud.alerts()) == 2, "the second alert")


def test_a_broker_that_is_not_there_at_first(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    try:
        rig.cloud.start(connected=False)
        assert "cannot be reached" in rig.cloud.health()["trouble"]
        rig.broker.start()
        wait_for(lambda: rig.cloud.health()["ingest"] == "connected", "ingest to connect")
    finally:
        rig.close()


def test_a_will_makes_the_box_offline_at_once(rig: Rig) -> None:
    will = state(presence=Presence.OFFLINE).encode()
    box = rig.box(will=will)
    box.say("state", state().encode())
    wait_for(lambda: rig.cloud.box(BOX).get("online"), "the box")
    box.vanish()
    wait_for(lambda: rig.cloud.box(BOX).get("online") is False, "the box to be offline")
    assert rig.cloud.box(BOX)["findings"] == ["offline"]


def test_a_late_will_of_an_older_session_is_ignored(rig: Rig) -> None:
    box = rig.box()
    box.say("state", state(session=b"sessionA", since_s=100).encode())
    box.say("state", state(session=b"sessionB", since_s=200).encode())
    box.say("state", state(session=b"sessionA", since_s=100, presence=Presence.OFFLINE).encode())
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode())
    wait_for(rig.cloud.alerts, "what came after the will")
    assert rig.cloud.box(BOX)["online"] is True


def test_a_refused_feed_shows_its_reason(rig: Rig) -> None:
    box = rig.box()
    box.say("state", state(feed_state=FeedState.REFUSED, feed_reason="timestamp expired").encode())
    box.say("evt", feed_event(seq=1, at_ms=now_ms(), feed_state=FeedState.REFUSED, text="timestamp expired").encode())
    wait_for(lambda: rig.cloud.get("/api/v1/events")["events"], "the event")
    assert rig.cloud.box(BOX)["feed"] == {"serial": 12, "state": "refused", "reason": "timestamp expired"}


HOSTILE = {
    "empty": b"",
    "noise": bytes(range(256)),
    "text": b'{"boot": 1}',
    "unknown version": cbor2.dumps({0: 2, 1: 1}, canonical=True),
    "another box's name in the payload": cbor2.dumps({0: 1, 1: "ZA35-000002"}, canonical=True),
    "huge declared length": b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "deep nesting": b"\x81" * 1000 + b"\x00",
    "one byte too many": b"\x00" * (Event.MAX_BYTES + 1),
    "much too large": b"\x00" * 60_000,
    "something after the end": alert(seq=9).encode() + b"\x00",
}


def test_hostile_payloads_are_counted_and_nothing_else_happens(rig: Rig) -> None:
    box = rig.box()
    for payload in HOSTILE.values():
        for leaf in ("evt", "state", "hb"):
            box.say(leaf, payload)
    # An empty retained state deletes the retained copy; it is still a message, and still malformed.
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode(), content_type="application/json")
    box.say("evt", alert(seq=2, at_ms=now_ms()).encode())
    (stored,) = wait_for(rig.cloud.alerts, "the good one")
    assert stored["seq"] == 2
    wait_for(lambda: rig.cloud.box(BOX)["refused_messages"] == 3 * len(HOSTILE) + 1, "all refusals")
    page = rig.cloud.get("/api/v1/boxes")["boxes"]
    assert [item["device"] for item in page] == [BOX]


def test_a_packet_beyond_the_largest_is_never_seen(rig: Rig) -> None:
    box = rig.box()
    box.say("evt", b"\x00" * 70_000)
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode())
    wait_for(rig.cloud.alerts, "the good one")
    assert rig.cloud.health()["ingest"] == "connected"


def test_a_box_cannot_speak_for_another(rig: Rig) -> None:
    """The access list ties the topic to the certificate; the cloud takes the name from nowhere else."""
    box = rig.box("ZA35-000002")
    # mosquitto 2.0 ends the connection after a denied message; the second one is sent after the reconnection.
    box.say("evt", alert(seq=1, at_ms=now_ms()).encode(), device=BOX, wait=False)
    box.say("evt", alert(seq=2, at_ms=now_ms()).encode(), wait=False)
    (stored,) = wait_for(rig.cloud.alerts, "its own alert")
    assert (stored["device"], stored["seq"]) == ("ZA35-000002", 2)
    assert rig.cloud.box(BOX) == {}


def test_two_thousand_events_in_good_time(rig: Rig) -> None:
    box = rig.box()
    for number in range(1999):
        box.say("evt", alert(seq=number, at_ms=now_ms()).encode(), wait=False)
    box.say("evt", alert(seq=1999, at_ms=now_ms()).encode())

    def stored() -> bool:
        with sqlite3.connect(f"file:{rig.cloud.folder}/state/cloud.db?mode=ro", uri=True) as connection:
            (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
        connection.close()
        return bool(count == 2000)

    wait_for(stored, "all events", within_s=60)
