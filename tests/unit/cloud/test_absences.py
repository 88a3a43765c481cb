"""Absences in the store: from what boxes and the broker say to a row that tells why."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select

from omamori_cloud.config import parse_config
from omamori_cloud.errors import ConfigError
from omamori_cloud.intake import Message
from omamori_cloud.liveness import OutageReason
from omamori_cloud.liveness_worker import LivenessWorker
from omamori_cloud.page.config import PageConfig
from omamori_cloud.store import absences, schema
from omamori_protocol.trouble import Trouble
from omamori_protocol.vocabulary import Leaving, RunEnd

from .makers import BOX, OTHER_BOX, Bench, state
from .watched import OFFLINE_AFTER_S, Watched
from .web_client import WebClient


@pytest.fixture
def watched(bench: Bench) -> Watched:
    return Watched(bench)


def test_a_box_that_is_there_has_no_absence(watched: Watched) -> None:
    watched.birth()
    watched.wait(600, beats=(BOX,))
    assert watched.outages() == []


def test_power_pulled_for_5_s_is_told_and_nobody_is_disturbed(watched: Watched) -> None:
    session = watched.birth(boot=1)
    watched.wait(120, beats=(BOX,))
    heard_ms = watched.bench.now_ms - 40_000
    watched.wait(50)
    watched.birth(boot=2, uptime_s=40, last_end=RunEnd.ABRUPT)
    watched.will(session, boot=1)  # late, as it may be
    watched.wait(300, beats=(BOX,))
    (row,) = watched.outages()
    assert OutageReason(row.reason) is OutageReason.POWER
    assert row.start_ms == heard_ms
    assert (row.end_ms - row.start_ms) // 1000 == 90
    assert row.noticed_ms is None
    assert watched.noticed == 0


def test_a_line_that_is_down_is_told_first_by_silence_then_by_the_box(watched: Watched) -> None:
    session = watched.birth(boot=1)
    watched.will(session, boot=1)
    watched.wait(30)
    assert watched.reasons() == [OutageReason.UNKNOWN]
    watched.wait(600)
    assert watched.reasons() == [OutageReason.LINE_OR_POWER]
    assert watched.noticed == 1
    watched.birth(boot=1, uptime_s=90_000, away_s=620, trouble_before=int(Trouble.NO_INTERNET))
    watched.wait(10)
    (row,) = watched.outages()
    assert OutageReason(row.reason) is OutageReason.LINE
    assert row.end_ms == watched.bench.now_ms - 10_000
    assert row.evidence["trouble"] == Trouble.NO_INTERNET
    assert watched.noticed == 1


def test_silence_alone_is_known_after_the_missed_heartbeats(watched: Watched) -> None:
    watched.birth()
    start_ms = watched.bench.now_ms
    watched.wait(OFFLINE_AFTER_S, looks=True)
    assert watched.outages() == []
    watched.wait(10)
    (row,) = watched.outages()
    assert (row.start_ms, row.end_ms) == (start_ms, None)
    assert row.known_ms <= start_ms + (OFFLINE_AFTER_S + 10) * 1000


def test_a_box_that_never_comes_back_is_dead_in_the_end(watched: Watched) -> None:
    watched.birth()
    watched.wait(200)
    watched.bench.now_ms += 86_400_000
    watched.look()
    watched.look()
    assert watched.reasons() == [OutageReason.DEAD]
    assert watched.noticed == 1


def test_an_announced_restart_is_maintenance_and_silent(watched: Watched) -> None:
    session = watched.birth(boot=1)
    watched.will(session, boot=1, leaving=Leaving.UPDATE, quiet_s=900)
    watched.wait(700)
    assert watched.reasons() == [OutageReason.MAINTENANCE]
    watched.birth(boot=2, uptime_s=30, last_end=RunEnd.ORDERLY)
    watched.wait(60)
    assert watched.reasons() == [OutageReason.MAINTENANCE]
    assert watched.noticed == 0
    assert watched.outages()[0].evidence["goodbye"] == "update"


def test_an_update_that_does_not_come_back_is_overdue_and_told(watched: Watched) -> None:
    session = watched.birth(boot=1)
    watched.will(session, boot=1, leaving=Leaving.UPDATE, quiet_s=300)
    watched.wait(600)
    assert watched.reasons() == [OutageReason.OVERDUE]
    assert watched.noticed == 0
    watched.wait(400)
    assert watched.noticed == 1


def test_a_new_connection_within_a_blink_leaves_no_trace(watched: Watched) -> None:
    session = watched.birth(boot=1)
    watched.wait(60)
    watched.will(session, boot=1, leaving=Leaving.SESSION, quiet_s=60)
    watched.wait(5)
    watched.birth(boot=1, uptime_s=1000, away_s=2)
    watched.wait(300, beats=(BOX,))
    assert watched.outages() == []


def test_a_restart_is_seen_even_if_nobody_noticed_the_silence(watched: Watched) -> None:
    watched.birth(boot=1)
    watched.wait(300, beats=(BOX,), looks=False)
    watched.birth(boot=2, uptime_s=20, last_end=RunEnd.WATCHDOG)
    watched.look()
    assert watched.reasons() == [OutageReason.CRASH]


def test_the_first_birth_of_a_box_ends_no_absence(watched: Watched) -> None:
    watched.birth(boot=7, uptime_s=20, last_end=RunEnd.ABRUPT)
    watched.wait(30)
    assert watched.outages() == []


def test_a_retained_copy_is_no_return(watched: Watched) -> None:
    session = watched.birth(boot=1)
    watched.bench.say(state(session=session, boot=1), retained=True)
    watched.wait(30)
    assert watched.outages() == []
    with watched.bench.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.Return)) == 0


def test_a_birth_that_two_workers_store_ends_an_absence_once(watched: Watched, bench: Bench) -> None:
    watched.birth(boot=1)
    watched.wait(60)
    birth = Message(
        device=BOX,
        body=state(session=b"sessionB", boot=2, uptime_s=20, last_end=RunEnd.ABRUPT),
        received_ms=bench.now_ms,
    )
    bench.writer.store([birth])
    bench.writer.store([birth])
    watched.look()
    bench.writer.store([birth])
    watched.wait(60, beats=(BOX,))
    assert watched.reasons() == [OutageReason.POWER]


def test_heartbeats_on_the_same_connection_end_a_silence(watched: Watched) -> None:
    watched.birth(boot=1)
    watched.wait(200)
    assert [row.end_ms for row in watched.outages()] == [None]
    watched.wait(60, beats=(BOX,))
    (row,) = watched.outages()
    assert row.end_ms is not None
    assert OutageReason(row.reason) is OutageReason.LINE


def crowd_of(watched: Watched, count: int) -> dict[str, bytes]:
    return {device: watched.birth(device, boot=1) for device in (f"ZA35-{number:06}" for number in range(1, count + 1))}


def test_many_that_go_at_once_are_our_own_failure(watched: Watched) -> None:
    sessions = crowd_of(watched, 8)
    lost = dict(list(sessions.items())[:6])
    for device, session in lost.items():
        watched.will(session, device, boot=1)
    watched.wait(60)
    assert set(watched.reasons(None)) == {OutageReason.SERVICE}
    watched.wait(900, beats=tuple(set(sessions) - set(lost)))
    assert watched.noticed == 0
    for device in lost:
        watched.birth(device, boot=1, uptime_s=9000, away_s=900)
    watched.wait(60, beats=tuple(sessions))
    rows = watched.outages(None)
    assert [OutageReason(row.reason) for row in rows] == [OutageReason.SERVICE] * 6
    assert all(row.end_ms is not None for row in rows)
    assert rows[0].evidence["gone_together"] == 6


def test_whoever_stays_away_after_our_own_failure_is_told(watched: Watched) -> None:
    sessions = crowd_of(watched, 8)
    for device, session in sessions.items():
        watched.will(session, device, boot=1)
    watched.wait(60)
    rest = tuple(sessions)[1:]
    for device in rest:
        watched.birth(device, boot=1, uptime_s=9000, away_s=60)
    watched.wait(900, beats=rest)
    assert watched.reasons(BOX) == [OutageReason.LINE_OR_POWER]
    assert watched.noticed == 1


def test_while_nothing_comes_in_no_box_is_called_absent(watched: Watched) -> None:
    watched.birth(boot=1)
    watched.birth(OTHER_BOX, boot=1)
    watched.wait(60, beats=(BOX, OTHER_BOX))
    watched.status.set("the broker cannot be reached: refused")
    watched.wait(600)
    assert watched.outages(None) == []
    assert watched.found[-1].is_blind
    watched.status.set("")
    watched.wait(60)
    (gap,) = watched.service()
    assert (gap.end_ms - gap.start_ms) // 1000 in range(590, 615)
    assert gap.detail.startswith("the broker cannot")
    # The boxes had lost the broker, too.
    watched.birth(boot=1, uptime_s=9000, away_s=600)
    watched.wait(60, beats=(BOX,))
    assert watched.reasons(BOX) == [OutageReason.SERVICE]
    # The other one does not come back: from now on that is its own affair.
    watched.wait(1200, beats=(BOX,))
    assert watched.reasons(OTHER_BOX) == [OutageReason.LINE_OR_POWER]
    assert watched.noticed == 1


def test_a_time_in_which_we_were_stopped_is_noted(watched: Watched) -> None:
    watched.birth(boot=1)
    watched.wait(60, beats=(BOX,))
    stopped_ms = watched.bench.now_ms
    watched.bench.now_ms += 3_600_000
    with watched.bench.engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(schema.WorkerSign.__table__.delete().where(schema.WorkerSign.name == "ingest"))
    watched.look()
    (gap,) = watched.service()
    assert (gap.start_ms, gap.end_ms, gap.detail) == (stopped_ms, watched.bench.now_ms, "")
    assert watched.outages() == []
    watched.wait(OFFLINE_AFTER_S + 10)
    assert watched.reasons() == [OutageReason.LINE_OR_POWER]


def test_a_second_worker_that_went_on_is_enough(watched: Watched) -> None:
    watched.birth(boot=1)
    for _ in range(20):
        watched.bench.now_ms += 5_000
        watched.absences.sign("ingest-b", watched.bench.now_ms, "")
        watched.absences.sign("ingest", watched.bench.now_ms, "the broker refuses us")
        assert not watched.absences.look(watched.bench.now_ms).is_blind
    assert watched.service() == []


def test_absences_of_a_box_are_bounded(watched: Watched) -> None:
    for boot in range(1, 54):
        watched.birth(boot=boot, uptime_s=1, last_end=RunEnd.ABRUPT)
        watched.wait(5)
    assert len(watched.outages()) == 50


def test_a_worker_in_serve_signs_and_looks(watched: Watched) -> None:
    worker = LivenessWorker(
        watched.absences,
        watched.status,
        sign_as="ingest",
        looks=True,
        every_s=1,
        clock=lambda: watched.bench.now_ms,
        stop=threading.Event(),
    )
    watched.birth(boot=1)
    worker.step()
    watched.bench.now_ms += 300_000
    worker.step()
    worker.step()
    with watched.bench.engine.connect() as connection:
        names = set(connection.scalars(select(schema.WorkerSign.name)))
    assert names == {"ingest", "liveness"}


def test_thresholds_must_not_get_smaller() -> None:
    text = b'[broker]\nhost="x"\nca="x"\ncert="x"\nkey="x"\n[liveness]\n'
    assert parse_config(text + b"notice_after_s = 60\n", Path("/")).liveness.notice_after_s == 60
    with pytest.raises(ConfigError):
        parse_config(text + b"notice_after_s = 10\n", Path("/"))
    with pytest.raises(ConfigError):
        parse_config(text + b"unknown = 10\n", Path("/"))


def test_absences_come_back_as_they_went_in(watched: Watched) -> None:
    session = watched.birth(boot=1)
    watched.will(session, boot=1, leaving=Leaving.UPDATE, quiet_s=900)
    watched.wait(60)
    reader = watched.bench.reader
    (lasting,) = reader.outages(BOX)
    assert (lasting.reason, lasting.end_ms) == (OutageReason.MAINTENANCE, None)
    (box,) = reader.boxes()
    assert box.outage == lasting
    watched.birth(boot=2, uptime_s=10, last_end=RunEnd.ORDERLY, trouble=int(Trouble.SWAPPED))
    watched.look()
    (over,) = reader.outages(None)
    assert over.end_ms == watched.bench.now_ms
    assert over.evidence["last_end"] == "orderly"
    (box,) = reader.boxes()
    assert (box.outage, box.trouble) == (None, Trouble.SWAPPED)
    assert reader.outages(OTHER_BOX) == ()
    assert reader.outages(BOX, before=over.id) == ()
    assert [worker.name for worker in reader.workers()] == ["ingest", "liveness"]


def test_the_api_tells_absences_our_own_outages_and_workers(watched: Watched) -> None:
    bench = watched.bench
    watched.birth(boot=1)
    watched.wait(60, beats=(BOX,))
    watched.birth(boot=2, uptime_s=10, last_end=RunEnd.ABRUPT)
    watched.look()
    watched.status.set("the broker cannot be reached")
    watched.wait(20)
    client = WebClient(bench.app(PageConfig(), watched.status))
    answer = client.get(f"/api/v1/outages?device={BOX}").json()
    (outage,) = answer["outages"]
    assert (outage["reason"], outage["noticed"], outage["device"]) == ("power", None, BOX)
    assert outage["seconds"] == 55
    assert outage["evidence"] == {"uptime_s": 10, "last_end": "abrupt"}
    assert [(item["end"], item["detail"]) for item in answer["service"]] == [(None, "the broker cannot be reached")]
    assert [worker["name"] for worker in answer["workers"]] == ["ingest", "liveness"]
    for question in ("device=../x", "limit=501", "before=x", "since=1h"):
        assert client.get(f"/api/v1/outages?{question}").status_code == 400
    client.close()


def test_a_look_is_bounded_and_the_crowd_is_seen_whole(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absences, "_MAX_CHANGES", 3)
    sessions = crowd_of(watched, 7)
    watched.wait(60, beats=tuple(sessions))
    for device in sessions:
        watched.birth(device, boot=1, uptime_s=9000, away_s=30)
    assert [watched.look().ended for _ in range(4)] == [3, 3, 1, 0]
    assert watched.reasons(None) == [OutageReason.SERVICE] * 7
    watched.bench.now_ms += OFFLINE_AFTER_S * 1000 + 5_000
    assert [watched.look().began for _ in range(4)] == [3, 3, 1, 0]
    assert watched.reasons(None)[7:] == [OutageReason.SERVICE] * 7
