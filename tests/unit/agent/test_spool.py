"""The spool keeps events in order, within bounds, through power cuts, corruption and a full disk."""

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess  # noqa: TID251 - a process to kill
import sys
from pathlib import Path

import pytest

from omamori_agent.config import SpoolLimits
from omamori_agent.errors import SetupError, TransientError
from omamori_agent.ports import Cursor
from omamori_agent.spool import BOOT_NAME, DATABASE_NAME, Lane, Spool, SpooledEvent, SpoolUnavailableError
from omamori_agent.spool_database import RESERVE_NAME, SpoolDatabase
from omamori_protocol.errors import ProtocolError
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, Severity
from sim.clock import ManualClock

CLOCK = ManualClock()
FIRST = int(CLOCK.now()) + 1  # boot number of a new spool


def event(text: str = "", severity: Severity = Severity.ONE, **fields: object) -> Event:
    return Event(boot=0, seq=0, at_ms=1, kind=EventKind.ALERT, severity=severity, rule=text or None, **fields)  # type: ignore[arg-type]


def open_spool(directory: Path, **limits: float) -> Spool:
    spool = Spool(directory, SpoolLimits(**limits), CLOCK)  # type: ignore[arg-type]
    spool.open()
    return spool


def waiting(spool: Spool, maximum: int = 1000) -> list[SpooledEvent]:
    """All lanes in the order of putting, unlike the link, which takes the gravest first."""
    return sorted((item for lane in Lane for item in spool.read_after(lane, 0, maximum)), key=lambda e: e.position)


def contents(spool: Spool) -> list[Event]:
    return [Event.decode(item.body) for item in waiting(spool)]


def rules(spool: Spool) -> list[str | None]:
    return [item.rule for item in contents(spool) if item.kind is EventKind.ALERT]


def notices(spool: Spool) -> list[tuple[str | None, int]]:
    return [(item.text, item.count) for item in contents(spool) if item.kind is EventKind.SYSTEM]


def crash(spool: Spool, target: Path) -> Path:
    """Return a copy of the directory as a power cut leaves it: no close, no checkpoint."""
    source = spool._directory
    shutil.copytree(source, target)
    return target


def test_events_come_back_in_order_with_numbers(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a"), event("b", Severity.THREE)])
    spool.put([event("c")])
    assert [(item.rule, item.boot, item.seq) for item in contents(spool)] == [
        ("a", FIRST, 1),
        ("b", FIRST, 2),
        ("c", FIRST, 3),
    ]
    first = spool.read_after(Lane.ONE, 0, 1)
    assert [Event.decode(item.body).rule for item in spool.read_after(Lane.ONE, first[-1].position, 5)] == ["c"]
    assert [Event.decode(item.body).rule for item in spool.read_after(Lane.THREE, 0, 5)] == ["b"]


def test_removed_events_are_gone_after_a_restart(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a"), event("b"), event("c")])
    spool.confirm([item.position for item in spool.read_after(Lane.ONE, 0, 2)] + [99999])
    spool.close()
    again = open_spool(tmp_path)
    assert rules(again) == ["c"]
    assert again.status().events == 1


def test_each_start_has_a_new_boot_number(tmp_path: Path) -> None:
    for expected in (FIRST, FIRST + 1, FIRST + 2):
        spool = open_spool(tmp_path)
        assert spool.boot == expected
        spool.put([event()])
        spool.close()
    found = [(item.boot, item.seq) for item in contents(open_spool(tmp_path))]
    assert found == [(FIRST, 1), (FIRST + 1, 1), (FIRST + 2, 1)]


def test_cursor_is_stored_with_its_events(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    assert spool.cursor("eve") is None
    spool.put([event("a")], Cursor("eve", "10"))
    spool.put([], Cursor("eve", "20"))
    copy = open_spool(crash(spool, tmp_path / "copy"))
    assert copy.cursor("eve") == "20"
    assert rules(copy) == ["a"]


def test_power_cut_after_each_put_keeps_everything_put_so_far(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    spool = open_spool(tmp_path / "live")
    for number in range(1, 6):
        spool.put([event(str(number))], Cursor("eve", str(number)))
        copy = open_spool(crash(spool, tmp_path / f"copy{number}"))
        assert rules(copy) == [str(item) for item in range(1, number + 1)]
        assert copy.cursor("eve") == str(number)
        assert copy.boot == FIRST + 1
        copy.close()


def test_power_cut_inside_a_put_keeps_neither_event_nor_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "live").mkdir()
    spool = open_spool(tmp_path / "live")
    spool.put([event("before")], Cursor("eve", "1"))

    def cut(_connection: sqlite3.Connection) -> None:
        crash(spool, tmp_path / "copy")

    monkeypatch.setattr(spool, "_before_commit", cut)  # the last step before the commit
    spool.put([event("inside")], Cursor("eve", "2"))
    copy = open_spool(tmp_path / "copy")
    assert rules(copy) == ["before"]
    assert copy.cursor("eve") == "1"


def test_kill_9_at_any_moment_loses_nothing_that_was_put(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from test_spool import event, open_spool\n"
        "from omamori_agent.ports import Cursor\n"
        "spool = open_spool(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    spool.put([event(str(n))], Cursor('eve', str(n)))\n"
        "    print(n, flush=True)\n"
    )
    here = Path(__file__)
    arguments = [sys.executable, "-c", code, str(tmp_path), str(here.parent), str(here.parents[2])]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 50:
                break
        os.kill(process.pid, signal.SIGKILL)
        told = [50, *map(int, process.stdout.read().split())]
    spool = open_spool(tmp_path)
    stored = [int(item or 0) for item in rules(spool)]
    assert stored == list(range(1, len(stored) + 1))
    assert len(stored) >= told[-1]
    assert spool.cursor("eve") == str(len(stored))
    assert spool.boot == FIRST + 1


def test_one_event_more_than_allowed_drops_the_oldest_of_the_lowest_severity(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_events=4)
    spool.put([event("old3", Severity.THREE), event("old1"), event("old2", Severity.TWO), event("new1")])
    assert spool.status().lost == 0
    spool.put([event("newer2", Severity.TWO)])
    assert rules(spool) == ["old3", "old2", "new1", "newer2"]
    assert spool.status().lost == 1
    spool.put([event("late1")])
    assert rules(spool) == ["old3", "old2", "newer2", "late1"]


def test_a_new_event_of_low_severity_does_not_push_out_a_grave_one(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_events=2)
    spool.put([event("a3", Severity.THREE), event("b3", Severity.THREE)])
    spool.put([event("c1")])
    assert rules(spool) == ["a3", "b3"]


def test_one_byte_more_than_allowed_drops_too(tmp_path: Path) -> None:
    sample = len(dataclasses.replace(event("x" * 100), boot=FIRST, seq=1).encode())
    spool = open_spool(tmp_path, max_bytes=3 * sample)
    spool.put([event("x" * 100) for _ in range(3)])
    assert (spool.status().lost, spool.status().size_bytes) == (0, 3 * sample)
    spool.put([event("y" * 101)])
    assert spool.status().size_bytes <= 3 * sample
    assert spool.status().lost > 0
    assert rules(spool)[-1] == "y" * 101


def test_an_event_larger_than_the_whole_spool_does_not_hang_it(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=20)
    spool.put([event("x" * 100)])
    assert spool.status().events == 0


def test_loss_is_told_once_when_there_is_room_again_even_after_a_restart(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_events=10)
    spool.put([event(str(number)) for number in range(13)])
    assert notices(spool) == []
    spool.close()
    spool = open_spool(tmp_path, max_events=10)
    spool.confirm([item.position for item in spool.read_after(Lane.ONE, 0, 5)])
    assert notices(spool) == [("spool was full; ★ events lost", 3)]
    spool.put([event("more")])
    assert len(notices(spool)) == 1


def test_corrupt_database_is_set_aside_and_told(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("lost")])
    spool.close()
    database = tmp_path / DATABASE_NAME
    database.write_bytes(b"\xde\xad" * 4096)
    spool = open_spool(tmp_path)
    assert spool.boot == FIRST + 1  # from the file beside it: numbers never repeat
    spool.put([event("new")])
    assert rules(spool) == ["new"]
    assert notices(spool) == [("spool was corrupt and starts empty; events not yet sent are lost", 1)]
    assert (tmp_path / f"{DATABASE_NAME}.corrupt").read_bytes().startswith(b"\xde\xad")


def test_damage_inside_the_database_is_found_at_start(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("x" * 200) for _ in range(200)])
    spool.close()
    database = tmp_path / DATABASE_NAME
    data = bytearray(database.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = os.urandom(64)
    database.write_bytes(data)
    spool = open_spool(tmp_path)
    spool.put([event("new")])
    assert rules(spool) == ["new"]
    assert spool.boot == FIRST + 1


def test_repeated_corruption_keeps_one_old_file(tmp_path: Path) -> None:
    for _ in range(3):
        spool = open_spool(tmp_path)
        spool.put([event()])
        spool.close()
        (tmp_path / DATABASE_NAME).write_bytes(os.urandom(8192))
    open_spool(tmp_path).close()
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(
        [BOOT_NAME, DATABASE_NAME, f"{DATABASE_NAME}.corrupt", RESERVE_NAME]
    )


def test_corruption_while_running_keeps_numbers_and_cursors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("a")], Cursor("eve", "7"))
    real = spool._database.transact
    calls = []

    def corrupt_once(work: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            err = sqlite3.DatabaseError("database disk image is malformed")
            err.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise err
        real(work)  # type: ignore[arg-type]

    monkeypatch.setattr(spool._database, "transact", corrupt_once)
    spool.put([event("b")])
    found = contents(spool)
    assert [(item.boot, item.seq) for item in found] == [(FIRST, 1), (FIRST, 2), (FIRST, 3)]
    assert notices(spool)[0][0] == "spool was damaged; 1 waiting events could be read, others are lost"
    spool.close()
    assert open_spool(tmp_path).cursor("eve") == "7"


def test_both_records_of_the_boot_number_lost_at_once(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.close()
    (tmp_path / DATABASE_NAME).write_bytes(os.urandom(8192))
    (tmp_path / BOOT_NAME).write_bytes(b"\xff\xff")
    later = Spool(tmp_path, SpoolLimits(), ManualClock(CLOCK.now() + 60))
    later.open()
    assert later.boot == FIRST + 60


def test_erased_data_partition_uses_no_number_again(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "erased").mkdir()
    for _ in range(3):
        before = open_spool(tmp_path / "before")
        before.close()
    erased = Spool(tmp_path / "erased", SpoolLimits(), ManualClock(CLOCK.now() + 60))
    erased.open()
    assert erased.boot > before.boot


def test_lost_boot_file_alone_is_no_problem(tmp_path: Path) -> None:
    open_spool(tmp_path).close()
    (tmp_path / BOOT_NAME).unlink()
    assert open_spool(tmp_path).boot == FIRST + 1


class FullDisk:
    """Makes every write of SQLite fail as on a full disk."""

    def __init__(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        real = spool._database.transact

        def transact(work: object) -> None:
            if self.is_full:
                err = sqlite3.OperationalError("database or disk is full")
                err.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise err
            real(work)  # type: ignore[arg-type]

        monkeypatch.setattr(spool._database, "transact", transact)


def test_full_disk_refuses_counts_and_tells_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = open_spool(tmp_path)
    disk = FullDisk(spool, monkeypatch)
    disk.is_full = True
    for _ in range(3):
        with pytest.raises(TransientError):
            spool.put([event("refused")], Cursor("eve", "9"))
    assert spool.cursor("eve") is None
    assert spool.status().failed_writes == 3
    disk.is_full = False
    spool.put([event("taken")], Cursor("eve", "9"))
    assert rules(spool) == ["taken"]
    assert notices(spool) == [("spool could not be written for a while", 3)]
    assert [item.seq for item in contents(spool)] == [1, 2]


def test_database_that_reached_its_page_bound_behaves_like_a_full_disk(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=100_000_000)
    assert spool._database._connection is not None
    spool._database._connection.execute("PRAGMA max_page_count = 20")
    batch = [event("x" * 200) for _ in range(20)]

    def fill() -> None:
        for _ in range(100):
            spool.put(batch)

    with pytest.raises(SpoolUnavailableError, match="full"):
        fill()
    before = spool.status()
    assert before.events == len(contents(spool)) > 0
    spool.confirm([item.position for item in waiting(spool)])
    spool.put([event("again")])
    assert rules(spool) == ["again"]


def test_disk_full_already_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_spool(tmp_path).close()
    spool = Spool(tmp_path, SpoolLimits(), CLOCK)
    disk = FullDisk(spool, monkeypatch)
    disk.is_full = True
    spool.open()
    assert spool.boot == FIRST + 1
    with pytest.raises(SpoolUnavailableError):
        spool.put([event("refused")])
    disk.is_full = False
    spool.put([event("taken")])
    assert [(item.boot, item.seq) for item in contents(spool)][:1] == [(FIRST + 1, 1)]
    spool.close()
    assert open_spool(tmp_path).boot == FIRST + 2


def test_missing_directory_is_a_matter_for_somebody(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="absent"):
        open_spool(tmp_path / "absent")


def test_event_that_breaks_its_bounds_stores_nothing(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(ProtocolError):
        spool.put([event("good"), event("x" * 201)], Cursor("eve", "5"))
    assert contents(spool) == []
    assert spool.cursor("eve") is None
    with pytest.raises(ValueError, match="cursor"):
        spool.put([], Cursor("eve", "x" * 4097))


def test_closed_spool_stays_closed(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.close()
    with pytest.raises(SpoolUnavailableError):
        spool.put([event()])
    assert spool.status().events == 0


def test_listener_hears_of_new_events(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    heard = []
    spool.subscribe(lambda: heard.append(1))
    spool.put([event()])
    assert heard == [1]


def test_a_spool_that_cannot_be_opened_still_knows_how_far_sources_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(tmp_path)
    spool.put([event("first")], Cursor("eve", "1234"))
    spool.close()

    def no_room(_database: SpoolDatabase) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(SpoolDatabase, "open", no_room)
        again = open_spool(tmp_path)
        assert again.cursor("eve") == "1234"
    again.put([event("second")])
    assert again.cursor("eve") == "1234"
    assert rules(again) == ["first", "second"]
