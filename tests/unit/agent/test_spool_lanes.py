"""Lanes by severity: what goes first, what stays, what comes back, and what a damaged row costs."""

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from omamori_agent.spool import DATABASE_NAME, Lane
from omamori_protocol.vocabulary import Severity

from .test_spool import FIRST, contents, event, notices, open_spool, rules, waiting


def test_three_stars_exceed_the_bounds_while_disk_is_left(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_events=3, min_free_bytes=0)
    for number in range(5):
        spool.put([event(str(number), Severity.THREE)])
    spool.put([event("low"), event("middle", Severity.TWO)])
    assert rules(spool) == ["0", "1", "2", "3", "4"]
    assert spool.status().lost == 2


def test_three_stars_keep_the_bounds_when_no_disk_is_left(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_events=3, min_free_bytes=2**60)
    for number in range(5):
        spool.put([event(str(number), Severity.THREE)])
    assert rules(spool) == ["2", "3", "4"]
    spool.confirm([item.position for item in waiting(spool)[:2]])
    assert ("spool was full; ★★★ events lost", 2) in notices(spool)


def test_losses_are_told_for_each_lane_even_after_a_restart(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_events=10)
    spool.put([event(str(number), Severity.TWO) for number in range(12)])
    spool.put([event("one")])
    spool.close()
    spool = open_spool(tmp_path, max_events=10)
    spool.confirm([item.position for item in waiting(spool)[:5]])
    assert sorted(notices(spool)) == [("spool was full; ★ events lost", 1), ("spool was full; ★★ events lost", 2)]


def test_confirmed_events_come_back_when_the_broker_forgot_them(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a"), event("b", Severity.TWO), event("c")])
    spool.confirm([item.position for item in waiting(spool)])
    assert (rules(spool), spool.status().events) == ([], 0)
    spool.close()
    spool = open_spool(tmp_path)
    assert spool.recall() == 3
    assert [(item.rule, item.boot, item.seq) for item in contents(spool)] == [
        ("a", FIRST, 1),
        ("b", FIRST, 2),
        ("c", FIRST, 3),
    ]
    assert (spool.status().events, spool.status().again) == (0, 3)
    assert spool.recall() == 0
    spool.confirm([item.position for item in waiting(spool)])
    assert (spool.status().again, spool.recall()) == (0, 3)


def test_what_is_sent_again_has_a_lane_of_its_own_even_after_a_restart(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a", Severity.THREE)])
    spool.confirm([item.position for item in waiting(spool)])
    spool.recall()
    spool.put([event("b", Severity.THREE)])
    spool.close()
    spool = open_spool(tmp_path)
    assert [item.position for item in spool.read_after(Lane.AGAIN, 0, 5)] == [1]
    assert [item.position for item in spool.read_after(Lane.THREE, 0, 5)] == [2]
    assert (spool.status().events, spool.status().again) == (1, 1)


def test_some_of_the_confirmed_events_come_back(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a"), event("b"), event("c")])
    positions = [item.position for item in waiting(spool)]
    spool.confirm(positions[:2])
    assert spool.recall([positions[1], positions[2], 77]) == 1
    assert rules(spool) == ["b", "c"]


def test_one_confirmed_event_more_than_kept_goes(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, kept_events=2)
    spool.put([event(str(number)) for number in range(4)])
    positions = [item.position for item in waiting(spool)]
    spool.confirm(positions[:2])
    spool.confirm(positions[2:3])
    assert spool.recall() == 2
    assert rules(spool) == ["1", "2", "3"]


def test_one_confirmed_byte_more_than_kept_goes(tmp_path: Path) -> None:
    size = len(dataclasses.replace(event("x" * 50), boot=FIRST, seq=1).encode())
    spool = open_spool(tmp_path, kept_bytes=2 * size)
    spool.put([event("x" * 50) for _ in range(3)])
    spool.confirm([item.position for item in waiting(spool)])
    assert spool.recall() == 2


def test_confirmed_events_make_room_before_any_waiting_one_does(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_events=4)
    spool.put([event("a"), event("b"), event("c")])
    spool.confirm([item.position for item in waiting(spool)[1:]])
    spool.put([event("d"), event("e")])
    assert spool.status().lost == 0
    spool.put([event("f")])
    assert rules(spool) == ["a", "d", "e", "f"]
    assert (spool.status().lost, spool.recall()) == (0, 0)


def test_confirming_twice_or_what_is_unknown_counts_nothing_twice(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a"), event("b")])
    positions = [item.position for item in waiting(spool)]
    for _ in range(3):
        spool.confirm([positions[0], 99])
    assert spool.status().events == 1
    assert spool.recall() == 1


@pytest.mark.parametrize(
    "damage",
    ["UPDATE event SET body = x'a0' WHERE id = 2", "UPDATE event SET severity = 9 WHERE id = 2"],
)
def test_event_that_changed_on_the_disk_is_dropped_and_told(tmp_path: Path, damage: str) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a"), event("b"), event("c")])
    spool.close()
    database = sqlite3.connect(tmp_path / DATABASE_NAME)
    database.execute(damage)
    database.commit()
    database.close()
    spool = open_spool(tmp_path)
    assert rules(spool) == ["a", "c"]
    spool.put([event("d")])
    assert notices(spool) == [("spool events changed on the disk and were dropped", 1)]
    spool.put([event("e")])
    assert len(notices(spool)) == 1


OLD_SCHEMA = """
CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, severity INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX event_by_severity ON event (severity, id);
CREATE TABLE cursor (name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE number (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO number VALUES ('boot', 6), ('lost', 2);
INSERT INTO cursor VALUES ('eve', '5');
"""


def test_file_of_the_firmware_before_is_taken_over_and_can_go_back(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / DATABASE_NAME)
    database.executescript(OLD_SCHEMA)
    database.execute("INSERT INTO event (severity, body) VALUES (1, ?)", (event("old").encode(),))
    database.commit()
    database.close()
    spool = open_spool(tmp_path)
    assert (spool.boot, spool.cursor("eve"), rules(spool)) == (7, "5", ["old"])
    spool.put([event("new", Severity.TWO)])
    assert notices(spool) == [("spool was full; ★ events lost", 2)]
    spool.close()
    database = sqlite3.connect(tmp_path / DATABASE_NAME)
    database.execute("INSERT INTO event (severity, body) VALUES (2, ?)", (event("back", Severity.TWO).encode(),))
    database.execute("DELETE FROM event WHERE id = 1")
    database.commit()
    database.close()
    assert rules(open_spool(tmp_path)) == ["new", "back"]
