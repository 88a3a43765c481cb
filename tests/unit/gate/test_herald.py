"""The herald against the supervisor's own rules. Ports and queues are files here, the line is a socket.

Times are those of a box in a hurry; each test waits for what comes of it and measures nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess  # noqa: TID251 - runs the program under test
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from omamori_agent.telemetry.state_file import PowerEvent, parse
from omamori_firmware.dataplane.build import HERALD, build_gate
from omamori_protocol import cbor
from omamori_protocol.vocabulary import PowerKind
from sim.supervisor_chip import Chip, wait_for

# Words of the chip's rules (docs/supervisor.md).
STATE_STARTING, STATE_PROTECTING, STATE_UPDATING, STATE_RECOVERING = 1, 2, 4, 5
SILENCE, STOPPED, ANNOUNCED, BOX_RESTARTED = 2, 3, 4, 8
LEASE_MS = 2000
# The words of ptrace(2) and wait(2).
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("clang") is None or shutil.which("gcc") is None:
        pytest.skip("no compilers")
    directory = tmp_path_factory.mktemp("gate")
    build_gate(directory)
    return directory / HERALD


def trace(request: int, thread: int) -> None:
    """ptrace(2)."""
    if ctypes.CDLL(None, use_errno=True).ptrace(request, thread, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


class Rig:
    """A herald, its machine in files, and a supervisor at the other end of the line."""

    def __init__(self, program: Path, directory: Path, chip: Chip) -> None:
        self._program = program
        self._directory = directory
        self._herald: subprocess.Popen[bytes] | None = None
        self.chip = chip
        self.state_path = directory / "run" / "state.json"
        self.state_path.parent.mkdir()
        self.code, self.result, self.update = (directory / name for name in ("code", "result", "update"))
        self.boot("one")
        for name in ("br0", "wan", "lan1"):
            self.port(name)
        (directory / "net" / "br0" / "brif").mkdir()
        for name in ("wan", "lan1"):
            (directory / "net" / "br0" / "brif" / name).mkdir()
        self.table()
        self.watch(is_hung=False)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "line"))
        self._listener.listen()
        self._listener.settimeout(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.kill()
        self._listener.close()

    def boot(self, name: str) -> None:
        (self._directory / "boot_id").write_text(f"{name}\n")

    def port(self, name: str, *, flags: int = 0x1003, carrier: int = 1, state: int = 3) -> None:
        directory = self._directory / "net" / name
        (directory / "brport").mkdir(parents=True, exist_ok=True)
        (directory / "flags").write_text(f"{flags:#x}\n")
        (directory / "carrier").write_text(f"{carrier}\n")
        (directory / "brport" / "state").write_text(f"{state}\n")

    def table(self, *queues: tuple[int, int, int]) -> None:
        """Write queue, packets waiting, number of the newest."""
        lines = "".join(f"{queue:5}    100 {wait:5} 2 65531     0     0 {new:8}  1\n" for queue, wait, new in queues)
        fresh = self._directory / "table.fresh"
        fresh.write_text(lines)
        fresh.rename(self._directory / "table")

    def watch(self, *, is_hung: bool) -> None:
        (self._directory / "watch").write_text(json.dumps({"version": 1, "is_hung": is_hung, "is_paused": False}))

    def start(self, *options: str) -> None:
        directory = self._directory
        line: list[str | Path] = [self._program, "--device", directory / "line", "--version", "1.2.3"]
        line += ["--lease-ms", str(LEASE_MS), "--boot-s", "500", "--net", directory / "net"]
        line += ["--table", directory / "table", "--watch", directory / "watch", "--state", self.state_path]
        line += ["--boot-id", directory / "boot_id", "--code", self.code, "--result", self.result]
        line += ["--update", self.update, "--processor-ms", "0", *options]
        with (directory / "log").open("ab") as log:
            self._herald = subprocess.Popen(line, stdout=log, stderr=log)
        self.answer()

    def answer(self) -> None:
        connection, _ = self._listener.accept()
        self.chip.join(connection)

    def end(self) -> int:
        assert self._herald is not None
        herald, self._herald = self._herald, None
        herald.send_signal(signal.SIGTERM)
        return herald.wait(30)

    def kill(self) -> None:
        if self._herald is not None:
            self._herald.kill()
            self._herald.wait()
            self._herald = None

    def stop_running(self, *, is_stopped: bool) -> None:
        assert self._herald is not None
        self._herald.send_signal(signal.SIGSTOP if is_stopped else signal.SIGCONT)

    @contextlib.contextmanager
    def processor_still(self) -> Iterator[None]:
        """Hold the one thread that shows that a processor runs, and nothing else of the program."""
        assert self._herald is not None
        others = (int(task.name) for task in Path(f"/proc/{self._herald.pid}/task").iterdir())
        thread = next(task for task in others if task != self._herald.pid)
        trace(PTRACE_ATTACH, thread)
        os.waitpid(thread, WALL)
        try:
            yield
        finally:
            trace(PTRACE_DETACH, thread)

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.state_path.read_text()))

    def log(self) -> str:
        return (self._directory / "log").read_text()

    def await_through(self, *, through: bool = True) -> None:
        wait_for(f"through={through}", lambda: self.chip.keeper.through is through)


@pytest.fixture
def rig(program: Path, tmp_path: Path) -> Iterator[Rig]:
    with Chip() as chip, Rig(program, tmp_path, chip) as made:
        yield made


def test_a_box_that_forwards_gets_the_wire_and_the_supervisor_is_told_of(rig: Rig) -> None:
    records = [{-2: "supervisor", 0: "temp", 1: "Cel", 2: -3}, {0: "through", 4: True}, {0: "past", 1: "s", 2: 123}]
    rig.chip.pack = cbor.encode(records)
    rig.start()
    rig.await_through()
    assert rig.chip.keeper.boot_ms == 500_000
    wait_for("telemetry", lambda: rig.state()["past_s"] == 123)
    wait_for("a status", lambda: rig.state()["through"] == 1)
    state = rig.state()
    assert (state["version"], state["is_up"], state["said"]) == (1, True, "forwarding")
    assert state["power"] == {"serial": 1, "kind": "cold", "outage_ms": 0}
    assert (state["state"], state["celsius"], state["millivolts"]) == (STATE_PROTECTING, -3, None)
    assert state["line_damaged"] == state["line_unknown"] == 0
    assert rig.chip.decoder.damaged == 0


@pytest.mark.parametrize("broken", ["bridge down", "port down", "port kept back", "no way out", "verdicts missing"])
def test_a_box_that_does_not_forward_gives_the_wire_up(rig: Rig, broken: str, tmp_path: Path) -> None:
    rig.start()
    rig.await_through()
    if broken == "bridge down":
        rig.port("br0", flags=0x1002)
    elif broken == "port down":
        rig.port("lan1", flags=0x1002)
    elif broken == "port kept back":
        rig.port("wan", state=1)
    elif broken == "no way out":
        (tmp_path / "net" / "br0" / "brif" / "wan").rmdir()
    else:
        rig.table((0, 3, 100))
    rig.await_through(through=False)
    assert rig.chip.keeper.cause == STOPPED
    wait_for("what it said", lambda: rig.state()["said"] == "starting")


def test_a_lease_counts_from_when_every_processor_ran(rig: Rig) -> None:
    rig.start("--processor-ms", "60000")
    rig.await_through()
    with rig.processor_still():
        rig.await_through(through=False)
        assert rig.chip.keeper.cause == SILENCE
    rig.await_through()


def test_a_port_without_cable_is_no_failure(rig: Rig) -> None:
    rig.port("wan", carrier=0, state=0)
    rig.start()
    rig.await_through()


def test_packets_that_wait_are_no_failure_while_the_watch_helps_or_verdicts_come(rig: Rig) -> None:
    rig.table((0, 3, 100))
    rig.watch(is_hung=True)
    rig.start()
    rig.await_through()
    rig.watch(is_hung=False)
    rig.await_through(through=False)
    number = 100

    def verdicts_come() -> bool:
        nonlocal number
        number += 1
        rig.table((0, 3, number))
        return bool(rig.chip.keeper.through)

    wait_for("the wire", verdicts_come)


def test_silence_ends_the_lease_and_the_same_boot_comes_back(rig: Rig) -> None:
    rig.start("--lease-ms", "150")
    rig.await_through()
    rig.stop_running(is_stopped=True)
    rig.await_through(through=False)
    assert (rig.chip.keeper.cause, rig.chip.keeper.state) == (SILENCE, STATE_RECOVERING)
    rig.stop_running(is_stopped=False)
    rig.await_through()
    # Who is as late as that asks for a longer lease.
    wait_for("a longer lease", lambda: rig.state()["lease_ms"] >= 300)


def test_a_lease_that_ends_though_it_was_renewed_is_doubled(rig: Rig) -> None:
    rig.start("--lease-ms", "500")
    rig.await_through()
    wait_for("a status", lambda: rig.state()["through"] == 1)
    before = rig.state()["lease_ms"]
    rig.chip.frozen = rig.chip.now() + 10_000  # the supervisor was not run for so long
    rig.await_through(through=False)
    wait_for("a longer lease", lambda: rig.state()["lease_ms"] >= min(2000, 2 * before))


def test_a_farewell_is_an_announcement_and_a_new_herald_takes_it_back(rig: Rig) -> None:
    rig.start()
    rig.await_through()
    assert rig.end() == 0
    assert (rig.chip.keeper.through, rig.chip.keeper.cause) == (False, ANNOUNCED)
    assert rig.chip.keeper.state == STATE_UPDATING
    rig.start()
    rig.await_through()


def test_another_boot_is_told_as_one(rig: Rig) -> None:
    rig.start()
    rig.await_through()
    rig.kill()
    rig.boot("two")
    rig.start()
    wait_for("another opening", lambda: rig.chip.keeper.moves >= 3)
    assert rig.chip.keeper.cause == BOX_RESTARTED


def test_code_and_result_are_shown(rig: Rig) -> None:
    rig.start()
    rig.await_through()
    rig.code.write_text("4321\n")
    wait_for("the code", lambda: rig.chip.keeper.code() == 4321)
    for bad in ("10000\n", "x\n"):
        rig.code.write_text(bad)
        wait_for("the supervisor's own", lambda: rig.chip.keeper.code() // 1000 == STATE_PROTECTING)
        rig.code.write_text("4321\n")
        wait_for("the code", lambda: rig.chip.keeper.code() == 4321)
    rig.result.write_text("taken-back\n")
    wait_for("the result", lambda: rig.chip.keeper.result == 2)
    rig.result.write_text("done\n")
    wait_for("the result", lambda: rig.chip.keeper.result == 1)


def test_what_happens_to_the_power_of_a_box_that_runs_on_is_known(rig: Rig) -> None:
    rig.start()
    rig.await_through()
    assert rig.state()["power"] == {"serial": 1, "kind": "cold", "outage_ms": 0}
    rig.chip.keeper.rail(2900)
    wait_for("the brown-out", lambda: rig.state()["power"]["kind"] == "brown-out")
    rig.chip.keeper.power(rig.chip.now(), present=False)
    rig.chip.keeper.power(rig.chip.now() + 120, present=True)
    wait_for("the dip", lambda: rig.state()["power"]["kind"] == "dip")
    assert rig.state()["power"]["serial"] == 3
    rig.await_through()


def test_the_agent_believes_what_is_written(rig: Rig) -> None:
    rig.chip.pack = cbor.encode(
        [{0: "temp", 1: "Cel", 2: -3}, {0: "rail", 1: "mV", 2: 3300}, {0: "past", 1: "s", 2: 9}]
    )
    rig.start()
    wait_for("a state", rig.state_path.exists)
    parse(rig.state_path.read_bytes())  # also before anybody has told anything
    rig.await_through()
    wait_for("telemetry and a status", lambda: None not in (rig.state()["past_s"], rig.state()["through"]))
    found = parse(rig.state_path.read_bytes())
    assert (found.is_up, found.through, found.celsius, found.millivolts, found.past_s) == (True, True, -3, 3300, 9)
    assert found.power == PowerEvent(serial=1, kind=PowerKind.COLD, outage_ms=0)


def test_a_line_that_breaks_is_opened_again(rig: Rig) -> None:
    rig.start()
    rig.await_through()
    rig.chip.unplug()
    rig.answer()
    wait_for("an answer", lambda: rig.state()["is_up"])
    rig.await_through()


def test_noise_is_counted_and_changes_nothing(rig: Rig) -> None:
    rig.start()
    rig.await_through()
    rig.chip.send(b"\0noise\0" + bytes(range(256)) * 64 + b"\0\0")
    # A whole frame that is no message of a supervisor, and one with a field out of its range.
    frames = rig.chip._frames
    rig.chip.send(frames.encode(9001, b"\xa1\x00\x01"))
    rig.chip.send(frames.encode(9002, bytes.fromhex("a3001401184d02182a")))
    wait_for("the counters", lambda: rig.state()["line_unknown"] >= 2 and rig.state()["line_damaged"] >= 2)
    assert rig.chip.keeper.through


def test_a_line_on_which_nothing_holds_is_none(program: Path, tmp_path: Path) -> None:
    absent = [program, "--device", tmp_path / "none", "--detect-s", "1"]
    found = subprocess.run(absent, timeout=30, check=False, capture_output=True, text=True)
    assert (found.returncode, "no supervisor" in found.stderr) == (0, True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "line"))
        listener.listen()
        line: list[str | Path] = [program, "--device", tmp_path / "line", "--detect-s", "1"]
        with subprocess.Popen(line, stderr=subprocess.PIPE) as herald:
            listener.settimeout(30)
            listener.accept()[0].close()
            listener.close()
            assert herald.wait(30) == 0


def test_a_machine_without_supervisor_has_no_herald(program: Path, tmp_path: Path) -> None:
    line: list[str | Path] = [program, "--device", ""]
    assert subprocess.run(line, timeout=30, check=False).returncode == 0
    for wrong in (["--device", "x", "--lease-ms", "49"], ["--device", "x", "--resets", "10"], []):
        assert subprocess.run([program, *wrong], timeout=30, check=False, capture_output=True).returncode == 2
