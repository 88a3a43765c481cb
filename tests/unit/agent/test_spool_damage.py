"""The spool through kill -9 at random moments, a power cut at every write, a full disk, and damage on the disk."""

import json
import random
import shutil
import subprocess  # noqa: TID251 - processes to kill, and a file system of their own
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.spool import BOOT_NAME, DATABASE_NAME, SpooledEvent, SpoolUnavailableError
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Severity
from sim.write_log import cut_states, watched_run

from .test_spool import FIRST, contents, event, notices, open_spool, rules, waiting

HERE = Path(__file__)
PRELUDE = f"import sys; sys.path[:0] = [{str(HERE.parents[2])!r}]\n"
IMPORTS = "from unit.agent.test_spool import event, open_spool, waiting\n"
LANES = (Severity.ONE, Severity.TWO, Severity.THREE)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory: a thousand synced files cost nothing there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


# A process that forks writers and kills each one at a random moment; only the first start costs time.
NURSERY = """
import os, random, signal, time
from pathlib import Path
from omamori_agent.ports import Cursor
from omamori_protocol.vocabulary import Severity
LANES = (Severity.ONE, Severity.TWO, Severity.THREE)

def write(directory, told):
    spool = open_spool(directory, kept_events=20)
    n = int(spool.cursor('eve') or 0)
    while True:
        n += 1
        os.write(told, b'+%d\\n' % n)
        spool.put([event(str(n), LANES[n % 3])], Cursor('eve', str(n)))
        os.write(told, b'=%d\\n' % n)
        if n % 5 == 0:
            old = waiting(spool, 100)[:3]
            for item in old:
                os.write(told, b'-%d\\n' % item.position)
            spool.confirm([item.position for item in old])

directory, rounds = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(4711)
read, told = os.pipe()
log = open(sys.argv[3], 'wb')
for _ in range(rounds):
    pid = os.fork()
    if pid == 0:
        write(directory, told)
    first = os.read(read, 65536)  # it has begun
    time.sleep(chance.random() * 0.03)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.write(told, b'.\\n')
    log.write(first)
    while not first.endswith(b'.\\n'):
        first = os.read(read, 65536)
        log.write(first)
"""


def test_kill_9_at_many_random_moments(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    log = tmp_path / "log"
    rounds = 40
    program = PRELUDE + IMPORTS + NURSERY
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "spool"), str(rounds), str(log)], check=True)
    told = log.read_text().split()
    stored = [int(line[1:]) for line in told if line[0] == "="]
    confirmed = {int(line[1:]) for line in told if line[0] == "-"}
    assert len(stored) > rounds
    spool = open_spool(tmp_path / "spool")
    assert spool.boot == FIRST + rounds
    found = waiting(spool, 100_000)
    numbers = {item.position: int(rule or 0) for item, rule in zip(found, rules_of(found), strict=True)}
    last = int(spool.cursor("eve") or 0)
    assert last >= stored[-1]
    # Each number was put once; what is missing was confirmed, and nothing else.
    assert len(set(numbers.values())) == len(numbers)
    assert set(range(1, last + 1)) - set(numbers.values()) <= confirmed
    assert notices(spool) == []


def rules_of(items: list[SpooledEvent]) -> list[str | None]:
    return [Event.decode(item.body).rule for item in items]


WRITER = """
import os
from pathlib import Path
from omamori_agent.ports import Cursor
from omamori_protocol.vocabulary import Severity
log = int(os.environ['OMAMORI_WRITE_LOG_FD'])
spool = open_spool(Path(sys.argv[1]), reserve_bytes=0, kept_events=2)
spool._database._connection.execute('PRAGMA wal_autocheckpoint = 4')
for n in range(1, 13):
    spool.put([event(str(n) * 60, list(Severity)[n % 3])], Cursor('eve', str(n)))
    os.write(log, b'mark 0 0 put %d\\n' % n)
    if n % 4 == 0:
        spool.confirm([item.position for item in waiting(spool)[:2]])
        os.write(log, b'mark 0 0 confirmed %d\\n' % n)
spool.close()
"""


def test_power_cut_at_every_write(tmp_path: Path, memory_path: Path) -> None:
    """Every change of a file is a moment to cut at, and what was not synced survives in part only."""
    live = tmp_path / "live"
    live.mkdir()
    changes = watched_run([sys.executable, "-c", PRELUDE + IMPORTS + WRITER, str(live)], live, tmp_path)
    assert sum(change.operation == "sync" for change in changes) > 20
    chance = random.Random(20261122)
    states = 0
    seen: set[int] = set()
    for state, marks in cut_states(changes, chance, 3):
        key = hash(tuple(sorted(state.items())))
        if key in seen:
            continue
        seen.add(key)
        states += 1
        copy = memory_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path, content in state.items():
            if path.endswith("-shm"):
                continue  # memory shared between processes; nothing of it is promised to survive
            (copy / Path(path).name).write_bytes(content)
        puts = [int(mark.split()[1]) for mark in marks if mark.startswith("put")]
        spool = open_spool(copy, reserve_bytes=0)
        found = [int(rule[: len(rule) // 60]) for rule in rules(spool) if rule]
        last = int(spool.cursor("eve") or 0)
        what = f"after {len(marks)} marks, {states} states"
        assert last >= max(puts, default=0), what
        assert found == sorted(set(found)), what
        # At most the two confirmed after each fourth put are missing, always the oldest.
        gone = set(range(1, last + 1)) - set(found)
        confirms = sum(mark.startswith("confirmed") for mark in marks)
        assert gone == set(range(1, len(gone) + 1)), what
        assert 2 * confirms <= len(gone) <= 2 * confirms + 2, what
        assert notices(spool) == [], what
        if puts:
            assert spool.boot == FIRST + 1, what
        spool.put([event("after")])
        spool.close()
    print(f"{len(changes)} changes, {states} different states")
    assert states > 100


FULL_DISK = """
import errno, os, subprocess
from pathlib import Path
from omamori_agent.ports import Cursor
from omamori_agent.spool import SpoolUnavailableError
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Severity
import json
disk = Path(sys.argv[1])
subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', str(disk)], check=True)
spool = open_spool(disk, min_free_bytes=0)
batch = [event(f'low{n:04}' + 'x' * 150) for n in range(400)]
spool.put([event('first grave', Severity.THREE)])
for _ in range(4):
    spool.put(batch)
before = spool.status().events

def fill():
    with open(disk / 'ballast', 'ab', buffering=0) as ballast:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError as err:
                assert err.errno == errno.ENOSPC

fill()
# Without something lower, a put is refused as soon as the file has to grow; with it, it is not.
refused = 0
for n in range(50):
    try:
        spool.put([event(f'one{n}' + 'y' * 190) for _ in range(40)], Cursor('eve', str(n)))
    except SpoolUnavailableError:
        refused += 1
grave = 0
for n in range(300):
    spool.put([event(f'grave{n}', Severity.THREE)])
    grave += 1
    if n % 50 == 0:
        fill()
told = [Event.decode(item.body) for item in waiting(spool, 100000)]
kept = sum((item.rule or '').startswith('grave') for item in told)
lost = spool.status().lost
spool.close()
(disk / 'ballast').unlink()
spool = open_spool(disk, min_free_bytes=0)
spool.put([event('again')], Cursor('eve', 'end'))
texts = {item.text: item.count for item in (Event.decode(row.body) for row in waiting(spool, 100000)) if item.text}
print(json.dumps({'before': before, 'refused': refused, 'kept': kept, 'lost': lost, 'texts': texts,
                  'first': any(item.rule == 'first grave' for item in told),
                  'reserve': (disk / 'reserve').stat().st_size, 'cursor': spool.cursor('eve'), 'boot': spool.boot}))
"""


@pytest.mark.root
def test_full_disk_lets_grave_events_in_and_tells_what_it_cost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program = PRELUDE + IMPORTS + FULL_DISK
    answer = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", program, str(disk)], check=False, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    print(found)
    assert found["refused"] > 0  # equals do not push out equals
    assert found["kept"] == 300
    assert found["first"]
    assert found["lost"] > 0
    assert found["texts"]["spool was full; ★ events lost"] == found["lost"]
    assert found["reserve"] == 1024 * 1024  # there again
    assert (found["cursor"], found["boot"]) == ("end", FIRST + 1)


def damage(path: Path, chance: random.Random) -> str:
    """Spoil a file in one of the ways of worn flash and cut writes."""
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data))
    way = chance.choice(("flip", "zeros", "noise", "cut", "sector"))
    if way == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif way == "zeros":
        data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    elif way == "noise":
        data[at : at + 200] = chance.randbytes(len(data[at : at + 200]))
    elif way == "cut":
        del data[at:]
    else:
        start = at // 512 * 512
        data[start : start + 512] = data[: len(data[start : start + 512])]
    path.write_bytes(data)
    return f"{way} at {at} of {path.name}"


def test_damage_at_random_places_garbles_and_doubles_nothing(memory_path: Path) -> None:
    """What comes out is what went in, or is missing and told; and the next event is taken as if nothing had been."""
    live = memory_path / "live"
    live.mkdir()
    spool = open_spool(live, reserve_bytes=0)
    assert spool._database._connection is not None
    spool._database._connection.execute("PRAGMA wal_autocheckpoint = 40")
    put = {f"event {number} " + chr(97 + number % 26) * 100 for number in range(300)}
    for rule in sorted(put):
        spool.put([event(rule, LANES[len(rule) % 3])])
    files = sorted(path.name for path in live.iterdir() if not path.name.endswith("-shm"))
    assert files == [BOOT_NAME, DATABASE_NAME, f"{DATABASE_NAME}-wal"]
    chance = random.Random(99)
    rescued = told = 0
    for number in range(60):
        copy = memory_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for name in files:
            shutil.copy(live / name, copy / name)
        victim = chance.choice((DATABASE_NAME, DATABASE_NAME, f"{DATABASE_NAME}-wal"))
        what = f"{number}: {damage(copy / victim, chance)}"
        again = open_spool(copy, reserve_bytes=0)
        assert again.boot == FIRST + 1, what
        for _ in range(3):
            again.put([event("after", Severity.THREE)])
        found = [rule for rule in rules(again) if rule and rule != "after"]
        assert len(found) == len(set(found)), what
        assert set(found) <= put, what
        if len(found) < len(put) and victim == DATABASE_NAME:
            told += 1
            again.put([])
            assert any("spool" in (text or "") for text, _count in notices(again)), what
            rescued += bool(found)
        assert rules(again).count("after") == 3, what
        assert len({(item.boot, item.seq) for item in contents(again)}) == len(contents(again)), what
        again.close()
    spool.close()
    print(f"{told} of 60 lost something and told it; {rescued} of them kept the rest")
    assert rescued > 10


def test_file_that_cannot_be_written_any_more_is_borne(tmp_path: Path) -> None:
    """A file system that failed: refused, counted, and nothing ends."""
    spool = open_spool(tmp_path)
    spool.put([event("a")])
    assert spool._database._connection is not None
    spool._database._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(SpoolUnavailableError):
        spool.put([event("b")])
    spool._database._connection.execute("PRAGMA query_only = 0")
    spool.put([event("c")])
    assert rules(spool) == ["a", "c"]


FULL_AT_START = """
import os, subprocess
from pathlib import Path
from omamori_agent.ports import Cursor
disk = Path(sys.argv[1])
subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', str(disk)], check=True)
pid = os.fork()
if pid == 0:
    spool = open_spool(disk, min_free_bytes=0)
    for number in range(5):
        spool.put([event(f'one{number}')], Cursor('eve', str(number)))
    os.kill(os.getpid(), 9)  # what is in the log stays there
os.waitpid(pid, 0)
for name in ('spool.db-shm', 'reserve'):
    (disk / name).unlink(missing_ok=True)
with open(disk / 'ballast', 'wb', buffering=0) as ballast:
    try:
        while True:
            ballast.write(b'x' * 4096)
    except OSError:
        pass
spool = open_spool(disk, min_free_bytes=0)
print(spool.cursor('eve'))
(disk / 'ballast').unlink()
spool.put([event('again')], Cursor('other', 'x'))
print(spool.cursor('eve'), len(waiting(spool, 100)))
"""


@pytest.mark.root
def test_disk_that_is_full_at_the_start_hides_no_cursor(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    program = PRELUDE + IMPORTS + FULL_AT_START
    answer = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", program, str(disk)], check=False, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split()[:2] == ["4", "4"]
    assert int(answer.stdout.split()[2]) >= 6
