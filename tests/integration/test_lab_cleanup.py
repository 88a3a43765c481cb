"""A lab leaves nothing behind: processes, namespaces, mounts, taps; however it ends."""

import signal
import socket
import sys
import textwrap
import time
from pathlib import Path

import pytest

from omamori_lab.cleaning import clean
from omamori_lab.errors import SetupError
from omamori_lab.journal import NETNS, processes_inside
from omamori_lab.lab import Lab
from omamori_lab.run import Process, spawn
from omamori_lab.settings import LabSettings
from omamori_lab.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

# A lab without a box: everything around it is what has to vanish; the box is one more process in the same journal.
PROGRAM = textwrap.dedent(
    """
    import signal, sys, time
    from pathlib import Path
    from omamori_lab import cli
    from omamori_lab.lab import Lab
    from omamori_lab.progress import Silence
    from omamori_lab.settings import LabSettings

    class Steps(Silence):
        def step(self, text):
            print(text, flush=True)

    state = Path(sys.argv[1])
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, cli._interrupt)
    try:
        with Lab(LabSettings(state=state, keys=state / "keys", page_port=0), Steps()).surrounded():
            print("everything runs", flush=True)
            time.sleep(60)
    except cli.Interrupted as err:
        print("interrupted", flush=True)
        sys.exit(128 + err.signum)
    """
)


class RunningLab:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.output = state.parent / "output.txt"
        with self.output.open("wb") as log:
            self.process: Process = spawn([sys.executable, "-c", PROGRAM, state], log=log)

    def await_step(self, text: str) -> None:
        def seen() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return text in self.output.read_text()

        wait_for(seen, text, timeout_s=40, every_s=0.005, detail=self.output.read_text)


def namespaces() -> set[str]:
    return {entry.name for entry in NETNS.iterdir() if entry.name.startswith("om")} if NETNS.exists() else set()


def processes() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


@pytest.fixture
def lab(tmp_path: Path):
    before = namespaces()
    made = RunningLab(tmp_path / "lab")
    yield made
    made.process.kill()
    made.process.wait()
    clean(made.state)
    assert namespaces() <= before


def descendants(root: int) -> set[int]:
    parents = {}
    for pid in processes():
        try:
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def mine(lab: RunningLab) -> set[str]:
    """Return the namespaces that hold a process of this lab, or were made by it."""
    text = (lab.state / "journal.json").read_text() if (lab.state / "journal.json").exists() else ""
    return {name for name in namespaces() if name in text}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda value: value.name)
def test_a_signal_ends_everything(lab: RunningLab, signum: signal.Signals) -> None:
    lab.await_step("everything runs")
    names, children = mine(lab), descendants(lab.process.pid)
    assert len(names) == 6
    assert len(children) >= 5
    lab.process.send_signal(signum)
    assert lab.process.wait(30) == 128 + signum
    assert_gone(lab, names, children)


@pytest.mark.parametrize("step", ["network namespaces", "feed and repository", "dnsmasq", "mosquitto", "enrolment"])
def test_ctrl_c_in_the_middle_of_the_start(lab: RunningLab, step: str) -> None:
    lab.await_step(step)
    names, children = mine(lab), descendants(lab.process.pid)
    lab.process.send_signal(signal.SIGINT)
    assert lab.process.wait(30) == 130, lab.output.read_text()
    assert_gone(lab, names, children)


def test_an_impatient_second_ctrl_c_changes_nothing(lab: RunningLab) -> None:
    lab.await_step("everything runs")
    names, children = mine(lab), descendants(lab.process.pid)
    for _ in range(5):
        lab.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert lab.process.wait(30) == 130
    assert_gone(lab, names, children)


def test_clean_removes_what_a_killed_lab_left(lab: RunningLab) -> None:
    lab.await_step("everything runs")
    names, children = mine(lab), descendants(lab.process.pid)
    lab.process.kill()
    lab.process.wait()
    assert mine(lab) == names
    removed = clean(lab.state)
    assert set(removed.namespaces) == names
    assert {mark.pid for mark in removed.processes} >= {pid for pid in children if Path(f"/proc/{pid}").exists()}
    assert_gone(lab, names, children)


def assert_gone(lab: RunningLab, names: set[str], children: set[int]) -> None:
    assert not names & namespaces()
    assert not [mark for name in names for mark in processes_inside(name)]
    assert not [mount for mount in mounts() if any(name in mount for name in names) or str(lab.state) in mount]
    wait_for(lambda: not [pid for pid in children if is_running(pid)], "the end of every child", timeout_s=5)
    assert not (lab.state / "journal.json").exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_page_s_port_is_taken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = namespaces()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = LabSettings(state=tmp_path / "lab", keys=tmp_path / "keys", page_port=taken.getsockname()[1])
        with pytest.raises(SetupError, match="is taken") as caught, Lab(settings).surrounded():
            pass
    assert caught.value.hint is not None
    assert namespaces() == before
    assert {entry.name for entry in (tmp_path / "lab").iterdir()} == {"lock", "run"}
