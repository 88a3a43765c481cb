"""A backup is one moment of the whole store, and becomes the same store elsewhere, on either engine."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from omamori_cloud.cli import main
from omamori_cloud.config import Limits
from omamori_cloud.intake import Message
from omamori_cloud.store.backup import read_backup, write_backup
from omamori_cloud.store.database import migrate, open_database
from omamori_cloud.store.reader import Reader
from omamori_cloud.store.writer import Writer
from sim.postgres import Postgres

from .makers import BOTH, BOX, NOW_MS, Bench, OpenElsewhere, alert, heartbeat, ledger_event, reported, state
from .test_migrations import REVISIONS, content, fill, go_to

ENGINES = BOTH


def say_everything(bench: Bench, number: int = 0) -> None:
    bodies = [state(), reported(), heartbeat(seq=number)]
    bodies += [
        alert(seq=2 * number, destination="日本語 ☂ \"quoted\" \\ 'x'"),
        ledger_event(seq=2 * number + 1, packets=1),
    ]
    bench.writer.store([Message(device=BOX, body=body, received_ms=NOW_MS) for body in bodies])


def test_the_same_content_elsewhere(bench: Bench, elsewhere: OpenElsewhere, tmp_path: Path) -> None:
    fill(bench.engine)
    for number in range(5):
        say_everything(bench, number + 10)
    path = tmp_path / "backup.gz"
    report = write_backup(bench.engine, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {item.name for item in tmp_path.iterdir() if "backup" in item.name} == {"backup.gz"}
    other = elsewhere()
    assert read_backup(other, path) == report
    assert content(other) == content(bench.engine)
    assert sum(report.rows.values()) == sum(len(rows) for rows in content(other).values())
    # and what is made of it is the same again
    again = tmp_path / "again.gz"
    assert write_backup(other, again).rows == report.rows
    body = alert(boot=9, seq=9)
    assert Writer(other, Limits()).store([Message(device=BOX, body=body, received_ms=NOW_MS)]).events == 1


def test_under_load_it_is_one_moment(bench: Bench, tmp_path: Path) -> None:
    say_everything(bench)
    stop, failures, stored = threading.Event(), [], [0]

    def ingest() -> None:
        try:
            while not stop.wait(0.001):
                stored[0] += 1
                say_everything(bench, stored[0])
        except Exception as err:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(err)

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        reports = []
        while len(reports) < 4 or reports[-1].rows["events"] < 30:
            reports.append(write_backup(bench.engine, tmp_path / f"{len(reports)}.gz"))
    finally:
        stop.set()
        thread.join(60)
    assert failures == []
    assert stored[0] >= 29  # nobody was held up
    other = open_database(f"sqlite:///{tmp_path / 'other.db'}")
    assert read_backup(other, tmp_path / f"{len(reports) - 1}.gz") == reports[-1]
    found = content(other)
    events = len(found["events"])
    assert {len(found[name]) for name in ("events", "ledger_entries", "heartbeats")} == {events}
    assert [row["packets"] for row in found["ledger_totals"]] == [events]
    (box,) = Reader(other).boxes()
    assert box.uptime_s is not None  # the heartbeat that describes it is there
    other.dispose()


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_backup_of_an_older_version(revision: str, tmp_path: Path, postgres: Postgres) -> None:
    old = open_database(f"sqlite:///{tmp_path / 'old.db'}")
    go_to(old, revision)
    fill(old)
    write_backup(old, tmp_path / "old.gz")
    new = open_database(postgres.database(), password_file=postgres.password_file)
    assert read_backup(new, tmp_path / "old.gz").schema == revision
    migrate(old)
    assert content(new) == content(old)
    for engine in (old, new):
        engine.dispose()


def test_numbers_are_not_used_again(bench: Bench, elsewhere: OpenElsewhere, tmp_path: Path) -> None:
    fill(bench.engine)
    with bench.engine.begin() as connection:
        connection.execute(text("DELETE FROM reports"))  # number 2 stands in a feed and in somebody's mail
    write_backup(bench.engine, tmp_path / "backup.gz")
    other = elsewhere()
    read_backup(other, tmp_path / "backup.gz")
    with other.begin() as connection:
        columns = "created_ms, kind, indicator, note, reporter, times, device, state, decided_by, reason"
        connection.execute(text(f"INSERT INTO reports ({columns}) VALUES (1, 'x', 'x', '', '', 1, '', 1, '', '')"))
        assert connection.execute(text("SELECT id FROM reports")).scalar() == 3


def test_on_the_command_line(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.say(alert(seq=1))
    config, out = str(bench.configuration(tmp_path)), str(tmp_path / "out.gz")
    assert main(["backup", "--config", config, "--out", out]) == 0
    said = capsys.readouterr().out
    assert "events: 1\n" in said
    assert main(["backup", "--config", config, "--out", out]) == 1
    assert main(["restore", "--config", config, out]) == 1
    assert "not empty" in capsys.readouterr().err
    folder = tmp_path / "new"
    folder.mkdir()
    shutil.copy(config, folder)
    new = folder / "cloud.toml"
    new.write_text(new.read_text().replace(bench.url, f"sqlite:///{folder / 'cloud.db'}"))
    assert main(["restore", "--config", str(new), out]) == 0
    assert capsys.readouterr().out == said
