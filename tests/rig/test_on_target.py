"""The supervisor's tests on the (emulated) microcontroller, case by case, and what only the chip itself can show.

pytest-embedded reads the console. With `--port` it is a real chip's, on which `supervisor-test.elf` was started.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_embedded import Dut

from omamori_firmware.recipe import source_tree
from omamori_firmware.supervisor import SupervisorFirmware
from omamori_firmware.supervisor_machine import SupervisorConfig, SupervisorMachine
from omamori_hw.supervisor.messages import BoxState
from rig.conftest import talking, wait_for

ON_CHIP_S = 100
HANG, FAIL = "led14", "led15"
TESTS = source_tree().top / "hw" / "supervisor" / "tests"


@pytest.fixture(scope="module")
def machine(firmware: SupervisorFirmware, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisorMachine]:
    work = tmp_path_factory.mktemp("chip")
    config = SupervisorConfig(firmware.test_elf, work, work / "link")
    with SupervisorMachine(config, firmware.tools) as made:
        yield made


@pytest.fixture
def port(request: pytest.FixtureRequest) -> str:
    """Replace pytest-embedded's command line option, unless it was given."""
    given = request.config.getoption("port")
    return given or request.getfixturevalue("machine").console


def started(machine: SupervisorMachine, lines: int) -> list[str]:
    """Wait until the program has said so many times how it started, and return what it said."""
    machine.go()

    def said() -> list[str]:
        text = machine.console_log.read_text()
        return [line for line in text.splitlines() if line.startswith("supervisor: start")]

    wait_for(f"{lines} starts", lambda: len(said()) >= lines, ON_CHIP_S)
    return said()


@pytest.mark.parametrize("embedded_services", ["serial"], indirect=True)
def test_every_case_on_the_chip(request: pytest.FixtureRequest, dut: Dut) -> None:
    if not request.config.getoption("port"):
        request.getfixturevalue("machine").go()
    dut.expect_unity_test_output(timeout=ON_CHIP_S)
    cases = sum(path.read_text().count("    def test_") for path in TESTS.glob("test_*.py"))
    assert len(dut.testsuite.testcases) == cases


def test_a_hang_restarts_the_program_and_not_the_relay(machine: SupervisorMachine) -> None:
    before = started(machine, 1)
    with talking(machine) as (link, _):
        link.say(BoxState.FORWARDING)
        wait_for("the wire through the box", machine.through)
        moves = link.status().moves
        machine.qmp("qom-set", path="/machine/peripheral/pins", property=HANG, value="on")
        # Nobody talks with a hanging program; the watchdog ends that after a second.
        wait_for("the watchdog", lambda: len(started(machine, 1)) > len(before))
        machine.qmp("qom-set", path="/machine/peripheral/pins", property=HANG, value="off")
        status = link.status()
        assert status.restarts >= 1
        assert status.moves == moves
        assert machine.through()
    assert "how=warm state=2 through=1" in started(machine, len(before) + 1)[len(before)]


def test_a_program_that_fails_again_and_again_lets_go_of_the_relay(machine: SupervisorMachine) -> None:
    before = started(machine, 1)
    with talking(machine) as (link, _):
        link.say(BoxState.FORWARDING)
        wait_for("the wire through the box", machine.through)
        machine.qmp("qom-set", path="/machine/peripheral/pins", property=FAIL, value="on")
        wait_for("the wire past the box", lambda: not machine.through())
        machine.qmp("qom-set", path="/machine/peripheral/pins", property=FAIL, value="off")
        assert "asked to fail" in machine.console_log.read_text()
        wait_for("the wire through the box", machine.through)
    assert len(started(machine, 1)) > len(before)
