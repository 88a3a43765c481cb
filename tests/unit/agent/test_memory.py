"""Giving memory back: only code of files is unmapped, and everything works afterwards."""

from __future__ import annotations

import hashlib
import ssl
import threading

from omamori_agent.memory import Tidier, code_mappings, give_back, resident_bytes
from omamori_agent.notify import Notifier
from omamori_agent.supervisor import Supervisor

MAPS = """\
00400000-00420000 r--p 00000000 fe:00 123 /usr/bin/python3.13
00420000-00520000 r-xp 00020000 fe:00 123 /usr/bin/python3.13
00520000-00540000 rw-p 00120000 fe:00 123 /usr/bin/python3.13
00540000-00560000 rwxp 00120000 fe:00 123 /usr/lib/odd.so
00560000-00580000 r-xs 00000000 fe:00 123 /usr/lib/shared.so
01000000-01021000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 r-xp 00000000 00:00 0
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
"""


def test_only_private_code_of_files() -> None:
    assert list(code_mappings(MAPS)) == [(0x420000, 0x100000)]


def test_everything_works_afterwards() -> None:
    before = hashlib.sha256(b"x").hexdigest()
    for _ in range(3):
        give_back()
    assert hashlib.sha256(b"x").hexdigest() == before
    assert ssl.create_default_context() is not None


class Memory:
    """A process that grows, a clock, and what giving memory back did."""

    def __init__(self, resident: int, *, after: int) -> None:
        self.resident, self.after, self.now_s, self.tidied = resident, after, 0.0, 0
        self.look = Tidier(self._tidy, resident=lambda: self.resident, now=lambda: self.now_s)

    def _tidy(self) -> None:
        self.tidied += 1
        self.resident = self.after


SMALL, LARGE = 40 << 20, 45 << 20


def test_memory_is_given_back_at_once_and_then_every_minute() -> None:
    memory = Memory(SMALL, after=SMALL)
    for second in range(121):
        memory.now_s = second
        memory.look()
    assert memory.tidied == 3


def test_much_memory_is_given_back_sooner_but_not_all_the_time() -> None:
    memory = Memory(LARGE, after=SMALL)
    memory.look()
    memory.resident = LARGE
    memory.now_s = 4.9
    memory.look()
    assert memory.tidied == 1
    memory.now_s = 5.0
    memory.look()
    assert (memory.tidied, memory.resident) == (2, SMALL)


def test_what_did_not_help_waits_for_its_minute() -> None:
    memory = Memory(LARGE, after=LARGE)
    for second in range(60):
        memory.now_s = second
        memory.look()
    assert memory.tidied == 1
    memory.now_s = 60.0
    memory.look()
    assert memory.tidied == 2


def test_own_memory_is_known() -> None:
    assert 4 << 20 < resident_bytes() < 4 << 30


def test_supervisor_tidies() -> None:
    stop, tidied = threading.Event(), threading.Event()

    class Worker:
        name = "idle"

        def run(self, stop: threading.Event) -> None:
            stop.wait()

    def tidy() -> None:
        tidied.set()
        stop.set()

    made = Supervisor([Worker()], notifier=Notifier(), stop=stop, stop_s=1, describe=str, tidy=tidy)
    assert made.run() == 0
    assert tidied.is_set()
