"""How the run before ended is found out, and why the agent leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omamori_agent.last_run import MAX_BYTES, LastRun, RunRecord, judge_end, parse_record
from omamori_agent.leaving import quiet_s, why_leaving
from omamori_agent.run import CommandError
from omamori_protocol.vocabulary import Leaving, RunEnd


def run(root: Path, boot_id: str) -> LastRun:
    return LastRun(root / "last-run.json", boot_id=boot_id, watchdogs=root / "watchdog")


def test_the_first_run_knows_of_none_before(tmp_path: Path) -> None:
    assert run(tmp_path, "a").end is RunEnd.UNKNOWN


def test_a_run_that_was_closed_ended_in_an_orderly_way(tmp_path: Path) -> None:
    run(tmp_path, "a").close()
    assert run(tmp_path, "b").end is RunEnd.ORDERLY


def test_a_run_that_was_not_closed_ended_with_the_power(tmp_path: Path) -> None:
    run(tmp_path, "a")
    assert run(tmp_path, "b").end is RunEnd.ABRUPT


def test_the_watchdog_leaves_a_trace(tmp_path: Path) -> None:
    run(tmp_path, "a")
    status = tmp_path / "watchdog/watchdog0/bootstatus"
    status.parent.mkdir(parents=True)
    status.write_text("32\n")
    assert run(tmp_path, "b").end is RunEnd.WATCHDOG
    status.write_text("0\n")
    assert run(tmp_path, "c").end is RunEnd.ABRUPT


def test_a_restart_of_the_agent_alone_tells_the_same_again(tmp_path: Path) -> None:
    run(tmp_path, "a")
    run(tmp_path, "b").close()
    assert run(tmp_path, "b").end is RunEnd.ABRUPT
    assert run(tmp_path, "b").end is RunEnd.ABRUPT
    run(tmp_path, "b").close()
    assert run(tmp_path, "c").end is RunEnd.ORDERLY


def test_an_agent_that_was_killed_after_an_orderly_restart_of_itself_counts(tmp_path: Path) -> None:
    run(tmp_path, "a").close()
    run(tmp_path, "a")
    assert run(tmp_path, "b").end is RunEnd.ABRUPT


def test_trouble_is_remembered_over_a_power_cut(tmp_path: Path) -> None:
    first = run(tmp_path, "a")
    first.note_trouble(7311)
    assert run(tmp_path, "b").trouble == 7311
    first.note_trouble(0)
    assert run(tmp_path, "b").trouble == 0


RECORD = RunRecord(boot_id="a", is_closed=True, last_end=RunEnd.ORDERLY, trouble=0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 40,
        b"[]",
        b"{}",
        RECORD.encode()[:-3],
        RECORD.encode().replace(b'"format": 1', b'"format": 2'),
        RECORD.encode().replace(b"true", b"1"),
        RECORD.encode().replace(b'"trouble": 0', b'"trouble": 10000'),
        RECORD.encode().replace(b'"last_end": 1', b'"last_end": 99'),
        json.dumps({**json.loads(RECORD.encode()), "more": 1}).encode(),
        RECORD.encode().rstrip() + b" " * MAX_BYTES,
    ],
)
def test_a_damaged_record_is_no_reason_to_stop(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "last-run.json").write_bytes(data)
    assert run(tmp_path, "b").end is RunEnd.UNKNOWN
    assert run(tmp_path, "c").end is RunEnd.ABRUPT


def test_a_disk_that_takes_nothing_is_no_reason_to_stop(tmp_path: Path) -> None:
    broken = LastRun(tmp_path / "none/last-run.json", boot_id="a", watchdogs=tmp_path)
    broken.note_trouble(7111)
    broken.close()
    assert broken.end is RunEnd.UNKNOWN


def test_the_record_is_read_as_written() -> None:
    assert parse_record(RECORD.encode()) == RECORD
    assert judge_end(RECORD, boot_id="b", watchdog_fired=True) is RunEnd.ORDERLY


@pytest.mark.parametrize(
    ("request_text", "jobs", "leaving"),
    [
        ("firmware\n", "", Leaving.UPDATE),
        ("command\n", "", Leaving.REBOOT),
        (None, "71 reboot.target start waiting\n", Leaving.REBOOT),
        (None, "71 poweroff.target start waiting\n", Leaving.OFF),
        (None, "71 omamori-agent.service restart running\n", Leaving.PROGRAM),
        (None, "No jobs running.\n", Leaving.PROGRAM),
    ],
)
def test_why_the_agent_leaves(tmp_path: Path, request_text: str | None, jobs: str, leaving: Leaving) -> None:
    path = tmp_path / "reboot"
    if request_text is not None:
        path.write_text(request_text)
    assert why_leaving(path, jobs=lambda: jobs) is leaving


def test_a_service_manager_that_does_not_answer(tmp_path: Path) -> None:
    def jobs() -> str:
        raise CommandError("systemctl", "did not end in time")

    assert why_leaving(tmp_path / "reboot", jobs=jobs) is Leaving.PROGRAM


def test_every_goodbye_says_for_how_long() -> None:
    assert [quiet_s(leaving) >= 0 for leaving in Leaving] == [True] * len(Leaving)
    assert quiet_s(Leaving.UPDATE) >= 600
