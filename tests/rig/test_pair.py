"""Box and supervisor together, two devices under test with a console each: what each says, and how the wire leads.

On a bench with a real pair: connect both consoles, start `pytest tests/rig/test_pair.py -m long --port BOX|SUPERVISOR`,
and switch both on when it says so. What needs a hand on the virtual board (panic, plug) is left out there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from pytest_embedded import Dut

from omamori_lab import products
from omamori_lab.box import Box
from omamori_lab.journal import Journal
from omamori_lab.settings import LabSettings
from omamori_lab.supervised import Supervisor
from omamori_lab.topology import Topology
from rig.conftest import wait_for

BOOT_S = 300.0
TWO = pytest.mark.parametrize(("count", "embedded_services"), [(2, "serial")], indirect=True, ids=["box+supervisor"])
pytestmark = [pytest.mark.long, pytest.mark.image, TWO]


class Pair:
    """A virtual box between two taps, its supervisor, and the relay's cables."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        settings = LabSettings()
        products.ensure_keys(settings.keys)
        products.build_image(settings.keys, settings.image, "dev")
        self._directory.mkdir()
        with contextlib.ExitStack() as stack:
            journal = Journal(self._directory)
            stack.callback(journal.close)
            topology = Topology(journal, has_relay=True)
            stack.enter_context(topology.running())
            assert topology.relay is not None
            place = self._directory / "supervisor"
            self.supervisor = Supervisor(topology.relay, journal, place, reset=self._reset)
            stack.enter_context(self.supervisor.running())
            disk, variables = self._directory / "disk.raw", self._directory / "vars.fd"
            shutil.copyfile(settings.image / "disk.raw", disk)
            shutil.copyfile(settings.image / "vars.fd", variables)
            self.box = Box(
                disk=disk,
                variables=variables,
                topology=topology,
                journal=journal,
                workdir=self._directory / "box",
                supervisor=self.supervisor,
            )
            stack.callback(self.box.close)
            self._stack = stack.pop_all()
        return self

    def _reset(self) -> None:
        self.box.reset()

    def __exit__(self, *unused: object) -> None:
        self._stack.close()


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair | None]:
    """The virtual pair, with the box's plug out; None on a bench."""
    if request.config.getoption("port"):
        yield None
        return
    with Pair(tmp_path / "pair") as made:
        yield made


@pytest.fixture
def port(request: pytest.FixtureRequest, pair: Pair | None) -> tuple[str, ...]:
    """Replace pytest-embedded's option: the consoles of box and supervisor."""
    if pair is None:
        return tuple(str(request.config.getoption("port")).split("|"))
    return pair.box.console.mirror, pair.supervisor.machine.console


def test_a_panic_leads_the_wire_past_the_box_and_the_next_start_brings_it_back(
    pair: Pair | None, dut: tuple[Dut, Dut]
) -> None:
    box, chip = dut
    if pair is None:
        print("switch box and supervisor on now")
    else:
        pair.box.power_on()
    box.expect("omamori: forwarding uptime=", timeout=BOOT_S)
    box.expect("omamori: release version=", timeout=BOOT_S)
    if pair is None:
        chip.expect("supervisor: start how=", timeout=BOOT_S)
        return
    supervisor = pair.supervisor
    wait_for("the wire through the box", lambda: supervisor.is_through, BOOT_S)
    pair.box.shell("(sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &", timeout_s=BOOT_S)
    box.expect("Kernel panic", timeout=BOOT_S)
    wait_for("the wire past the box", lambda: not supervisor.is_through)
    pair.box.restarts_by_itself()
    box.expect("omamori: forwarding uptime=", timeout=BOOT_S)
    wait_for("the wire through the box", lambda: supervisor.is_through, BOOT_S)
    moves = [move.through for move in supervisor.follower.moves]
    # On a busy host a lease may end that was renewed in time: more pairs of moves, but never one without the other.
    assert moves == [number % 2 == 0 for number in range(len(moves))]
    assert len(moves) >= 3
    assert not supervisor.resets  # it started again by itself
