"""What the watch makes of the kernel's table of queues. The table is a file here, the engine a program that sleeps.

No test measures time: each waits for what the watch says, or shows that it says nothing while it looks many times.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess  # noqa: TID251 - runs the program under test
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omamori_firmware.dataplane.build import WATCH, build_gate
from omamori_lab.waiting import wait_for

FOREVER = "3600000"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("clang") is None or shutil.which("gcc") is None:
        pytest.skip("no compilers")
    directory = tmp_path_factory.mktemp("gate")
    build_gate(directory)
    return directory / WATCH


class Rig:
    """A watch, its world in files, and an engine that can be killed."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory
        self._watch: subprocess.Popen[bytes] | None = None
        self.log = directory / "log"
        self.engine = subprocess.Popen(["sleep", "600"])
        self.bystander = subprocess.Popen(["sleep", "600"])
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(directory / "notify"))
        self.notices.settimeout(20)
        self.processes(self.engine.pid)
        self.table()

    def processes(self, *pids: int) -> None:
        (self._directory / "processes").write_text("".join(f"{pid}\n" for pid in pids))

    def table(self, *queues: tuple[int, int, int, int]) -> None:
        """Write queue, listener, packets waiting, number of the newest; in place, as the kernel's file has it."""
        lines = "".join(
            f"{queue:5} {who:6} {wait:5} 2 65531     0     0 {new:8}  1\n" for queue, who, wait, new in queues
        )
        path = self._directory / "table"
        fresh = path.with_suffix(".fresh")
        fresh.write_text(lines)
        # One write of the whole file: the watch holds it open.
        with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
            file.write(lines.encode().ljust(200, b"\n"))

    def start(self, *options: str) -> None:
        files = {name: str(self._directory / name) for name in ("table", "processes", "control", "state")}
        line = [str(self._program), "--queues", "0-1", *(word for name in files for word in (f"--{name}", files[name]))]
        environment = {"NOTIFY_SOCKET": str(self._directory / "notify"), "WATCHDOG_USEC": "5000000"}
        with self.log.open("ab") as log:
            self._watch = subprocess.Popen([*line, *options], stderr=log, env=environment)
        assert self.notices.recv(100) == b"READY=1"

    def looks(self, times: int) -> None:
        """Wait until the watch has lived for a while: it feeds its own watchdog every twentieth look or so."""
        for _ in range(times):
            assert self.notices.recv(100) == b"WATCHDOG=1"

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self._directory / "state").read_text()))

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        wait_for(lambda: condition(self.state()), "state of the watch", timeout_s=20, every_s=0.01)

    def pause(self) -> None:
        assert self._watch is not None
        self._watch.send_signal(signal.SIGUSR1)

    def end(self) -> None:
        for process in (self._watch, self.engine, self.bystander):
            if process is not None:
                process.terminate()
                process.wait(10)
        self.notices.close()


@pytest.fixture
def rig(program: Path, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(program, tmp_path)
    yield made
    made.end()


def test_packets_that_wait_for_ever_cost_the_engine_its_life_and_nobody_else(rig: Rig) -> None:
    rig.table((0, 7, 0, 100), (1, 8, 0, 50))
    rig.start("--kill-ms", "300")
    rig.table((0, 7, 3, 103), (1, 8, 0, 50))
    rig.until(lambda state: state["is_hung"])
    assert rig.engine.wait(20) == -signal.SIGKILL
    assert rig.bystander.poll() is None
    rig.table()
    rig.until(lambda state: not state["is_hung"])
    assert (rig.state()["hangs"], rig.state()["kills"], rig.state()["recoveries"]) == (1, 1, 0)
    assert "3 packets wait in queue 0" in rig.log.read_text()


def test_one_queue_that_hangs_is_not_hidden_by_the_other(rig: Rig) -> None:
    rig.table((0, 7, 0, 100), (1, 8, 1, 51))
    rig.start("--kill-ms", FOREVER)
    newest = 100
    while not rig.state()["is_hung"]:
        newest += 5
        rig.table((0, 7, 1, newest), (1, 8, 1, 51))
    assert "in queue 1" in rig.log.read_text()


def test_verdicts_end_the_hang_without_a_kill(rig: Rig) -> None:
    rig.table((0, 7, 9, 100))
    rig.start("--kill-ms", FOREVER)
    rig.until(lambda state: state["is_hung"])
    rig.table((0, 7, 0, 100))
    rig.until(lambda state: not state["is_hung"])
    assert (rig.state()["kills"], rig.state()["recoveries"]) == (0, 1)
    assert rig.engine.poll() is None


@pytest.mark.parametrize(
    "table",
    [[], [(0, 7, 0, 100), (1, 8, 0, 3)], [(5, 7, 90, 100)]],
    ids=["no engine", "nothing waits", "somebody else's queue"],
)
def test_nothing_is_done_without_need(rig: Rig, table: list[tuple[int, int, int, int]]) -> None:
    rig.table(*table)
    rig.start()
    rig.looks(3)
    assert rig.state()["hangs"] == 0
    assert rig.engine.poll() is None


def test_packets_lost_at_the_listener_are_no_verdicts(rig: Rig) -> None:
    """The newest number grows, the number of those waiting does not move: the socket is full, nobody reads."""
    newest = 9000
    rig.table((0, 7, 3000, newest))
    rig.start("--kill-ms", FOREVER)
    while not rig.state()["is_hung"]:
        newest += 10
        rig.table((0, 7, 3000, newest))


def test_engine_that_has_never_answered_is_starting(rig: Rig) -> None:
    rig.table((0, 7, 4, 4))
    rig.start("--kill-ms", "0")
    rig.until(lambda state: state["is_hung"])
    rig.looks(3)
    assert rig.engine.poll() is None
    assert "is not ready" in rig.log.read_text()


def test_new_listener_begins_anew(rig: Rig) -> None:
    rig.table((0, 7, 9, 100))
    rig.start("--kill-ms", FOREVER)
    rig.until(lambda state: state["is_hung"])
    rig.table((0, 77, 0, 0))
    rig.until(lambda state: not state["is_hung"])


def test_pause_ends_when_the_queues_are_closed(rig: Rig) -> None:
    rig.table((0, 7, 0, 100))
    rig.start()
    rig.pause()
    rig.until(lambda state: state["is_paused"])
    rig.table()
    rig.until(lambda state: not state["is_paused"])
    assert rig.state()["hangs"] == 0


@pytest.mark.parametrize("text", ["", "nonsense\n", "1\n0\n-5\n99999999999\n", "7" * 5000])
def test_list_of_processes_that_names_nobody(rig: Rig, text: str, tmp_path: Path) -> None:
    (tmp_path / "processes").write_text(text)
    rig.table((0, 7, 3, 103))
    rig.start("--kill-ms", "0")
    rig.until(lambda state: state["is_hung"])
    rig.looks(3)
    assert rig.state()["kills"] == 0
    assert rig.engine.poll() is None
    assert rig.bystander.poll() is None


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--control", "c", "--processes", "p"],
        ["--control", "c", "--processes", "p", "--queues", "1-0"],
        ["--control", "c", "--processes", "p", "--queues", "0-16"],
        ["--control", "c", "--processes", "p", "--queues", "0-1x"],
        ["--control", "c", "--processes", "p", "--queues", "0-1", "--kill-ms", "-1"],
        ["--control", "c", "--processes", "p", "--queues", "0-1", "--hold-ms", "60001"],
        ["--control", "c", "--processes", "p", "--queues", "0-1", "--button-minutes", "1441"],
        ["--control", "c", "--processes", "p", "--queues", "0-1", "more"],
    ],
)
def test_options_it_does_not_take(program: Path, options: list[str]) -> None:
    ended = subprocess.run([program, *options], capture_output=True, timeout=10, check=False)
    assert ended.returncode == 2
    assert b"usage:" in ended.stderr
