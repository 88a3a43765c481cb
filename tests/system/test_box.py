"""The firmware image between an office and an internet: every scene, and nothing left at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from omamori_lab.box import ENROLLED, FORWARDING, PROTECTING, RELEASE, BoxState
from omamori_lab.journal import NETNS, processes_inside, start_ticks
from omamori_lab.power_cut.rehearsal import rehearse
from omamori_lab.scenes import SCENES, Scene, play

from .power_cuts import judge_of, want
from .refused_firmware import RefusedFirmwareScene

if TYPE_CHECKING:
    from pytest_embedded import Dut

    from .conftest import Office
    from .outcome_table import Outcome

pytestmark = [
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::pytest.PytestExperimentalApiWarning"),
]
with_console = pytest.mark.parametrize("embedded_services", ["serial"], indirect=True)

# What the console must have said while a scene was played, in this order.
CONSOLE = {
    "feed-update": [r"omamori: feed serial=\d+ state=active"],
    "feed-refused": [r"omamori: feed serial=\d+ state=refused reason=\S"] * 3
    + [r"omamori: feed serial=\d+ state=stale reason=expired"]
    + [r"omamori: feed serial=\d+ state=active"],
    # The channel's pack, the candidate, the way back, and the one for everyone.
    "feed-rings": [r"omamori: feed serial=\d+ state=active"] * 4,
    "failures": [PROTECTING, PROTECTING],
    "engine-hang": [PROTECTING],
    "engine-memory": [PROTECTING],
    "wire-faults": [PROTECTING],
    "fail-closed": [PROTECTING],
    "firmware": [
        r"omamori: firmware version=\S+ state=verified slot=A",
        r"omamori: firmware version=\S+ state=reboot-pending slot=A",
        FORWARDING,
        RELEASE,
        PROTECTING,
        r"omamori: firmware version=\S+ state=committed slot=B",
    ],
    "power-cut": [FORWARDING, RELEASE, PROTECTING],
}


@with_console
@pytest.mark.timeout(2400)  # builds the image when it is not there yet
def test_the_box_starts_by_itself_and_protects(office: Office, dut: Dut) -> None:
    box = office.lab.box
    assert box.state is BoxState.OFF
    office.protecting()
    forwarding = dut.expect(FORWARDING, timeout=30)
    release = dut.expect(RELEASE, timeout=30)
    dut.expect("DEVELOPMENT IMAGE - root console on ttyS1", timeout=30)
    enrolled = dut.expect(ENROLLED, timeout=30)
    protecting = dut.expect(PROTECTING, timeout=30)
    assert enrolled["device"].decode() == office.lab.serial
    assert release["slot"] == b"A"
    assert float(forwarding["uptime"]) < 30 < 120 > float(protecting["uptime"])
    assert box.state is BoxState.PROTECTING


@with_console
@pytest.mark.timeout(1500)  # one of them builds another image
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.name))
def test_scene(office: Office, dut: Dut, scene: Scene) -> None:
    result = office.play(scene)
    wrong = [check for check in result.checks if not check.ok]
    assert result.error is None, result.error
    assert not wrong, "\n".join(f"{check.name}: expected {check.expected}, seen {check.seen}" for check in wrong)
    for line in CONSOLE.get(scene.name, []):
        dut.expect(line, timeout=20)


@pytest.mark.timeout(900)
def test_firmware_that_must_never_be_taken(office: Office, outcomes: list[Outcome], tmp_path: Path) -> None:
    result = play(RefusedFirmwareScene(tmp_path, outcomes), office.protecting())
    wrong = [check for check in result.checks if not check.ok]
    assert result.error is None, result.error
    assert not wrong, "\n".join(f"{check.name}: expected {check.expected}, seen {check.seen}" for check in wrong)


@pytest.mark.timeout(1500)
def test_update_survives_power_cuts(
    office: Office, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample: every write to the firmware's variables, the flushes around them, some others, and one start."""
    update = office.recorded_update()
    with judge_of(update, tmp_path_factory) as judge:
        first = judge.timeline.boundary_at(update.begin)
        report = judge.run(judge.timeline.spread(first, 20), seeds=[first])
    with capsys.disabled():
        print(f"\n{report}")
    assert not report.faults
    # Fetched, and not yet written: the box has to go all the way once more, alone.
    fetched = next(
        moments[-1] for outcome, moments in report.examples.items() if "next: write the other slot" in outcome
    )
    want(office.lab, update.update.versions["B"])  # whatever was wished since
    with judge_of(update, tmp_path_factory) as judge:
        assert rehearse(office.lab, update, judge, fetched) == "committed"


def test_a_box_without_a_tpm_keeps_its_key_in_a_file_that_only_the_agent_can_read(office: Office) -> None:
    lab = office.protecting()
    place = "/var/lib/omamori/identity"
    seen = lab.box.shell(
        f"ls /dev/tpm* 2>/dev/null; stat -c '%U:%a' {place} {place}/device.key; grep -o 'BEGIN.*' {place}/device.key"
    )
    assert seen.output.split("\n") == ["omamori-agent:700", "omamori-agent:600", "BEGIN " + "PRIVATE KEY-----"]


def test_no_unit_has_failed_and_the_agent_is_small(office: Office) -> None:
    lab = office.protecting()
    failed = lab.box.shell("systemctl --failed --no-legend --plain").output
    assert failed == ""
    # The disk is a file, and each write to it is logged: neither may fail.
    assert lab.box.shell("journalctl --dmesg --no-pager --quiet --grep 'I/O error' | head -3").output == ""
    rss = int(
        lab.box.shell(
            "systemctl show -p MainPID --value omamori-agent | xargs -I{} awk '/VmRSS/{print $2}' /proc/{}/status"
        ).output
    )
    assert rss <= 48 * 1024


def test_nothing_is_left_when_the_lab_ends(office: Office) -> None:
    lab = office.lab
    run_id = lab.surroundings.internet.name.partition("-")[0]
    names = [entry.name for entry in NETNS.iterdir() if entry.name.startswith(f"{run_id}-")]
    assert len(names) == 6
    inside = [mark for name in names for mark in processes_inside(name)]
    machine = lab.box.pid
    assert machine is not None
    assert inside
    qemu = start_ticks(machine)
    office.close()
    assert not [name for name in names if (NETNS / name).exists()]
    assert not [mark for mark in inside if mark.alive]
    assert start_ticks(machine) != qemu
    assert str(lab.settings.state) not in Path("/proc/self/mountinfo").read_text()
    assert not (lab.settings.state / "journal.json").exists()
