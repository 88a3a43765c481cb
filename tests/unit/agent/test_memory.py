"""Giving memory back: only code of files is unmapped, and everything works afterwards."""

from __future__ import annotations

import hashlib
import ssl
import threading

from omamori_agent import supervisor
from omamori_agent.memory import code_mappings, give_back
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


def test_supervisor_tidies_once_things_are_calm(monkeypatch: object) -> None:
    stop, tidied = threading.Event(), threading.Event()

    class Worker:
        name = "idle"

        def run(self, stop: threading.Event) -> None:
            stop.wait()

    def tidy() -> None:
        tidied.set()
        stop.set()

    monkeypatch.setattr(supervisor, "_FIRST_TIDY_S", 0.0)  # type: ignore[attr-defined]
    made = Supervisor([Worker()], notifier=Notifier(), stop=stop, stop_s=1, describe=str, tidy=tidy)
    assert made.run() == 0
    assert tidied.is_set()
