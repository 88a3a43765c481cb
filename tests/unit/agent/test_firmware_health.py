"""The gate of a trial: rules with a clock of their own, probes on a directory that looks like a box."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from omamori_agent.firmware.health_gate import BoxProbes, HealthGate, Verdict, is_writable, ports_forward
from omamori_agent.status import StatusBoard
from omamori_protocol.vocabulary import EngineState, FirmwareReason
from sim.box import make_box
from sim.firmware_box import NEVER, WELL

ILL = dataclasses.replace(WELL, inspects=False)


def gate(*, needs_cloud: bool = True) -> HealthGate:
    return HealthGate(settle_s=20.0, deadline_s=540.0, needs_cloud=needs_cloud)


def test_well_for_a_while_is_kept() -> None:
    judge = gate()
    assert [judge.look(WELL, moment) for moment in (50.0, 60.0, 69.9)] == [Verdict.UNDECIDED] * 3
    assert judge.look(WELL, 70.0) is Verdict.KEEP


def test_a_moment_of_illness_begins_the_while_anew() -> None:
    judge = gate()
    judge.look(WELL, 50.0)
    judge.look(ILL, 60.0)
    assert judge.problem is FirmwareReason.ENGINE_DOWN
    judge.look(WELL, 65.0)
    assert judge.look(WELL, 84.0) is Verdict.UNDECIDED
    assert judge.look(WELL, 85.0) is Verdict.KEEP


def test_ill_at_the_deadline_is_given_up() -> None:
    judge = gate()
    assert judge.look(ILL, 539.9) is Verdict.UNDECIDED
    assert judge.look(ILL, 540.0) is Verdict.GIVE_UP


def test_just_well_at_the_deadline_gets_its_while() -> None:
    judge = gate()
    judge.look(WELL, 535.0)
    assert judge.look(WELL, 545.0) is Verdict.UNDECIDED
    assert judge.look(WELL, 555.0) is Verdict.KEEP


def test_canary_that_cannot_be_asked_says_nothing_and_cloud_counts_only_if_it_was_there() -> None:
    assert dataclasses.replace(WELL, canary=None).problem(needs_cloud=True) is FirmwareReason.NONE
    offline = dataclasses.replace(WELL, is_connected=False)
    assert offline.problem(needs_cloud=False) is FirmwareReason.NONE
    assert offline.problem(needs_cloud=True) is FirmwareReason.CLOUD_LOST


@pytest.fixture
def bridge(tmp_path: Path) -> Path:
    paths = make_box(tmp_path)
    for port, carrier, state in (("wan", "1", "3"), ("lan1", "1", "3"), ("lan2", "0", "0")):
        (paths.bridge.parent / port).mkdir(parents=True)
        (paths.bridge.parent / port / "carrier").write_text(carrier + "\n")
        (paths.bridge / "brif" / port).mkdir(parents=True)
        (paths.bridge / "brif" / port / "state").write_text(state + "\n")
    return paths.bridge


def test_ports_that_forward(bridge: Path) -> None:
    assert ports_forward(bridge)
    (bridge / "brif/lan1/state").write_text("1\n")
    assert not ports_forward(bridge)
    (bridge.parent / "lan1/carrier").write_text("0\n")
    assert ports_forward(bridge)  # nobody has plugged anything in there
    assert not ports_forward(bridge.parent / "br9")


def test_one_port_is_no_bridge(bridge: Path) -> None:
    for port in ("lan1", "lan2"):
        (bridge / "brif" / port / "state").unlink()
        (bridge / "brif" / port).rmdir()
    assert not ports_forward(bridge)


def test_data_partition(tmp_path: Path) -> None:
    assert is_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not is_writable(tmp_path / "none")


def test_probes(tmp_path: Path, bridge: Path) -> None:
    paths = make_box(tmp_path / "box")
    status = StatusBoard()
    probes = BoxProbes(paths, status, None)
    ill = probes.look(NEVER, had_identity=True)
    assert (ill.forwards, ill.inspects, ill.canary, ill.data_is_writable, ill.has_identity) == (
        False,
        False,
        None,
        False,
        False,
    )
    assert probes.look(NEVER, had_identity=False).has_identity
    paths.firmware.mkdir()
    paths.identity.mkdir(exist_ok=True)
    (paths.identity / "device.key").write_text("key")
    (paths.identity / "device.crt").write_text("certificate")
    status.update(engine=EngineState.INSPECTING, connected=True)
    well = probes.look(NEVER, had_identity=True)
    assert (well.inspects, well.data_is_writable, well.has_identity, well.is_connected) == (True, True, True, True)
