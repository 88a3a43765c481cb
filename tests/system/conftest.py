"""One lab for the whole session; its box is reached through its serial console with pytest-embedded's `serial` service.

The console's mirror is a pty that stays the same through power cuts, so one device under test outlives them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_lab.box import BoxState
from omamori_lab.lab import Lab
from omamori_lab.power_cut.rehearsal import RecordedUpdate, disk_log_length, keep_update
from omamori_lab.results import SceneResult
from omamori_lab.scenes import Scene, choose, play
from omamori_lab.settings import LabSettings

from .outcome_table import Outcome, render


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("power cuts")
    group.addoption("--subsets", type=int, default=1, help="power cuts drawn behind each flush (default: 1)")
    group.addoption(
        "--boots", type=int, default=6, help="power cuts after which the box is really started (default: 6)"
    )


class Office:
    """The lab of a session, moved from state to state by the tests."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.failure: str | None = None
        self._update: RecordedUpdate | None = None
        self._stack = contextlib.ExitStack()

    def open(self) -> None:
        self._stack.enter_context(self.lab.running())

    def close(self) -> None:
        self._stack.close()

    def protecting(self) -> Lab:
        """Return the lab with its box protecting; a box that once did not get there is not waited for again."""
        if self.failure is not None:
            pytest.fail(f"the box did not start: {self.failure}")
        if self.lab.box.state is BoxState.OFF:
            try:
                self.lab.boot()
            except Exception as err:
                self.failure = str(err).splitlines()[0]
                raise
        return self.lab

    def play(self, scene: Scene) -> SceneResult:
        """Play a scene; the one with an update also leaves the recording of every write in it."""
        lab = self.protecting()
        if scene.name != "firmware":
            return play(scene, lab)
        begin = disk_log_length(lab)
        result = play(scene, lab)
        if result.error is None:
            self._update = keep_update(lab, begin)
        return result

    def recorded_update(self) -> RecordedUpdate:
        """Return the recording of an update, whose box is off now; one is made if none was."""
        if self._update is None:
            result = self.play(choose(["firmware"])[0])
            assert result.error is None, result.error
        assert self._update is not None
        self.lab.box.cut_power()
        return self._update


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    recordings = tmp_path_factory.mktemp("recordings")
    made = Office(Lab(LabSettings(state=tmp_path_factory.mktemp("lab"), page_port=0, recordings=recordings)))
    made.open()
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(recordings)  # some gigabytes


@pytest.fixture(scope="session")
def mirror(office: Office) -> str:
    return office.lab.box.console.mirror


@pytest.fixture
def port(mirror: str) -> str:
    """Replace pytest-embedded's command line option."""
    return mirror


@pytest.fixture
def logs(office: Office) -> Path:
    return office.lab.settings.logs


_TABLE = pytest.StashKey[list[Outcome]]()


@pytest.fixture(scope="session")
def outcomes(pytestconfig: pytest.Config) -> list[Outcome]:
    """What became of bad firmware; printed when all is over."""
    return pytestconfig.stash.setdefault(_TABLE, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if table := config.stash.get(_TABLE, []):
        terminalreporter.section("bad firmware")
        for line in render(table):
            terminalreporter.write_line(line)
