"""The supervisor's real firmware on the emulated chip, alone: what it does with relay, reset line and lamp."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.files import sha256_file
from omamori_firmware.recipe import source_tree
from omamori_firmware.supervisor import VARIANTS, SupervisorFirmware, build_supervisor, publish
from omamori_firmware.supervisor_machine import SupervisorConfig, SupervisorMachine
from omamori_hw.errors import RefusedError
from omamori_hw.supervisor.frames import encode
from omamori_hw.supervisor.link import SupervisorLink
from omamori_hw.supervisor.messages import BoxState, Cause, EventKind, Kind, PowerKind, Reason, Show, State, build
from rig.conftest import talking, wait_for

MAX_MS = 100


def protecting(machine: SupervisorMachine, link: SupervisorLink) -> None:
    link.say(BoxState.FORWARDING)
    wait_for("the wire through the box", machine.through)


def test_the_relay_follows_the_box(supervisor: SupervisorMachine, link: SupervisorLink) -> None:
    assert not supervisor.through()
    assert link.status().state is State.STARTING
    protecting(supervisor, link)
    wait_for("green", lambda: supervisor.lamp() == "green")
    link.say(BoxState.STOPPING)
    wait_for("the wire past the box", lambda: not supervisor.through())
    assert link.status().cause is Cause.STOPPED


def test_a_box_that_falls_silent_is_passed_by_then_reset(supervisor: SupervisorMachine) -> None:
    with talking(supervisor) as (link, lines):
        link.settle(boot_s=30, silence_s=5, resets=1)
        protecting(supervisor, link)
        lines[0].noise = 0.5  # nothing that is sent arrives any more
        wait_for("the wire past the box", lambda: not supervisor.through())
        wait_for("the reset line", supervisor.pulls_reset)
        wait_for("its end", lambda: not supervisor.pulls_reset())
        lines[0].noise = 0.0
        wait_for("the wire through the box again", supervisor.through)
        assert link.status().resets == 1
        assert len(supervisor.console_log.read_text().splitlines()) == 1


def test_an_announced_restart_is_waited_for(supervisor: SupervisorMachine) -> None:
    with talking(supervisor, lease_ms=300) as (link, _):
        protecting(supervisor, link)
        link.announce(Reason.UPDATE, 900)
        assert not supervisor.through()
        heard = link.status().good
        wait_for("more reports of the old program", lambda: link.status().good > heard + 10)
        assert not supervisor.through()
        assert link.status().state is State.UPDATING
    with talking(supervisor) as (after, _):  # the box comes back as another boot
        protecting(supervisor, after)
        after.show(Show.UPDATE_DONE, 60)
        after.set_code(4711)
        assert after.status().code == 4711


def test_the_button(supervisor: SupervisorMachine, link: SupervisorLink) -> None:
    protecting(supervisor, link)
    supervisor.button(pressed=True)
    wait_for("the wire past the box", lambda: not supervisor.through())
    supervisor.button(pressed=False)
    assert link.status().state is State.PASSING
    wait_for("amber", lambda: supervisor.lamp() == "amber")
    with pytest.raises(RefusedError):
        link.pass_by(0)
    supervisor.button(pressed=True)
    wait_for("the wire through the box", supervisor.through)
    supervisor.button(pressed=False)


def test_a_short_press_shows_the_code(supervisor: SupervisorMachine, link: SupervisorLink) -> None:
    protecting(supervisor, link)
    link.take_events()
    supervisor.button(pressed=True)
    time.sleep(0.2)
    supervisor.button(pressed=False)
    events: list[tuple[EventKind, int]] = []

    def told() -> bool:
        events.extend(link.take_events())
        return bool(events)

    wait_for("the button's event", told)
    if events[0][0] is EventKind.BUTTON_SHORT:  # a busy machine can make a long press of it
        wait_for("red blinks", lambda: supervisor.lamp() == "red")
        assert events == [(EventKind.BUTTON_SHORT, link.status().code)]
        assert supervisor.through()


def test_the_plug(supervisor: SupervisorMachine) -> None:
    with talking(supervisor) as (link, _):
        protecting(supervisor, link)
        supervisor.plug(present=False)
        wait_for("the wire past the box", lambda: not supervisor.through())
        time.sleep(1.0)  # this is the outage
        supervisor.plug(present=True)
        wait_for("the wire through the box", supervisor.through)
    with talking(supervisor) as (after, _):
        assert after.welcome is not None
        assert after.welcome.power in {PowerKind.SHORT_PULL, PowerKind.LONG_PULL}
        assert after.welcome.outage_ms >= 900


def test_telemetry(supervisor: SupervisorMachine) -> None:
    supervisor.temperature(-7)
    supervisor.rail(2900)
    with talking(supervisor) as (link, _):

        def measured() -> bool:
            found = link.telemetry()
            return found["temp"].value == -7 and found["rail"].value == 2900

        wait_for("the new values", measured)
        found = link.telemetry()
        assert (found["temp"].unit, found["rail"].unit, found["through"].value) == ("Cel", "mV", False)
        assert link.status().code % 10 == 4  # the supply, see docs/supervisor.md
    with talking(supervisor) as (after, _):
        assert after.welcome is not None
        assert after.welcome.power is PowerKind.BROWN_OUT


def test_a_line_with_one_flipped_bit_in_a_hundred(supervisor: SupervisorMachine) -> None:
    with talking(supervisor) as (link, lines):
        lines[0].noise = 0.01
        for number in range(500):
            lines[0].write(encode(number, build(Kind.REPORT, int(BoxState.FORWARDING), 2000)))
        lines[0].noise = 0.0
        protecting(supervisor, link)
        status = link.status()
        assert status.damaged > 100
        assert (status.unknown, status.restarts, link.unknown) == (0, 0, 0)


def test_garbage_changes_nothing(supervisor: SupervisorMachine) -> None:
    dice = random.Random(3)
    with talking(supervisor) as (link, lines):
        protecting(supervisor, link)
        for _ in range(100):
            lines[0].write(dice.randbytes(256))
        status = link.status()
        assert status.damaged > 10
        assert (status.unknown, status.restarts) == (0, 0)
        wait_for("the wire through the box", supervisor.through)


def test_from_cause_to_relay(firmware: SupervisorFirmware, tmp_path: Path) -> None:
    """What the firmware measures by itself, in time that goes by instructions as on the real chip."""
    config = SupervisorConfig(firmware.elf, tmp_path, tmp_path / "link", exact_time=True)
    with SupervisorMachine(config, firmware.tools) as machine:
        machine.go()
        with talking(machine, lease_ms=500) as (link, _):
            for _ in range(3):
                protecting(machine, link)
                link.say(BoxState.STOPPING)
                wait_for("the wire past the box", lambda: not machine.through())
            protecting(machine, link)
            link.announce(Reason.REBOOT, 1)
            link.say(BoxState.STARTING)
            wait_for("the end of the announcement", lambda: link.status().state is not State.UPDATING)
            protecting(machine, link)
            machine.plug(present=False)
            wait_for("the wire past the box", lambda: not machine.through())
            machine.plug(present=True)
            protecting(machine, link)
            machine.button(pressed=True)
            wait_for("the wire past the box", lambda: not machine.through())
            machine.button(pressed=False)
        with talking(machine) as (link, _):
            status = link.status()
            print(f"{status.moves} moves, the slowest {status.slowest_ms} ms after its cause")
            assert status.moves >= 10
            assert status.slowest_ms <= MAX_MS, f"slowest {status.slowest_ms} ms"


def test_two_builds_give_the_same_bytes(firmware: SupervisorFirmware, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    build_supervisor(source_tree(), Cache(default_directory()), into=again)
    for name in VARIANTS:
        assert sha256_file(again / name) == sha256_file(firmware.directory / name)
    described = publish(firmware, tmp_path / "out")
    assert set(described["files"]) == set(VARIANTS)  # type: ignore[call-overload]
