"""The supervisor's firmware in its virtual machine, and the box's end of the line to talk with it.

A test on a bench with a real chip names its console: `pytest tests/rig --port /dev/ttyUSB0`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.recipe import source_tree
from omamori_firmware.supervisor import SupervisorFirmware, build_supervisor
from omamori_firmware.supervisor_machine import SupervisorConfig, SupervisorMachine
from omamori_hw.supervisor.line import Line, open_line
from omamori_hw.supervisor.link import LinkConfig, SupervisorLink

# Generous: nothing here is judged by how long it takes, and the machine may be busy with other things.
PATIENCE_S = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.timeout(900))  # the first one may have to make the compiler's tree


def wait_for(
    what: str, condition: Callable[[], bool], timeout_s: float = PATIENCE_S, *, is_required: bool = True
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            if not is_required:
                return
            pytest.fail(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.01)


class NoisyLine(Line):
    """A line on which each bit flips with a probability of `noise`."""

    def __init__(self, descriptor: int, seed: int = 1) -> None:
        super().__init__(descriptor)
        self.noise = 0.0
        self._dice = random.Random(seed)

    def read(self, timeout_s: float) -> bytes:
        return self._disturb(super().read(timeout_s))

    def write(self, data: bytes) -> None:
        super().write(self._disturb(data))

    def _disturb(self, data: bytes) -> bytes:
        if not self.noise:
            return data
        raw = bytearray(data)
        for bit in range(8 * len(raw)):
            if self._dice.random() < self.noise:
                raw[bit >> 3] ^= 1 << (bit & 7)
        return bytes(raw)


@pytest.fixture(scope="session")
def firmware() -> SupervisorFirmware:
    return build_supervisor(source_tree(), Cache(default_directory()))


@pytest.fixture
def supervisor(firmware: SupervisorFirmware, tmp_path: Path) -> Iterator[SupervisorMachine]:
    with SupervisorMachine(SupervisorConfig(firmware.elf, tmp_path, tmp_path / "link"), firmware.tools) as machine:
        machine.go()
        yield machine


@contextmanager
def talking(machine: SupervisorMachine, lease_ms: int = 2000) -> Iterator[tuple[SupervisorLink, list[NoisyLine]]]:
    """Talk with a supervisor as the box does; the list holds the line once it is open."""
    lines: list[NoisyLine] = []

    def open_noisy(path: Path) -> Line:
        line = open_line(path)
        descriptor, line._descriptor = line._descriptor, -1
        lines[:] = [NoisyLine(descriptor)]
        return lines[0]

    config = LinkConfig(device=machine.config.link, version="1.2.3", lease_ms=lease_ms, answer_s=PATIENCE_S)
    link = SupervisorLink(config, open_=open_noisy)
    link.start()
    try:
        wait_for("the supervisor's first word", lambda: link.welcome is not None)
        yield link, lines
    finally:
        link.stop()


@pytest.fixture
def link(supervisor: SupervisorMachine) -> Iterator[SupervisorLink]:
    with talking(supervisor) as (made, _):
        yield made
