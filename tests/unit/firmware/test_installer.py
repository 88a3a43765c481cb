"""What an image declares for its successor, and the units that try it."""

from __future__ import annotations

import configparser
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from omamori_firmware import disk, installer
from omamori_firmware.errors import SetupError
from omamori_firmware.recipe import SourceTree, source_tree
from omamori_hw.board import load_board

BOARD = load_board(source_tree().boards / "x86_64-uefi")
COMMON = source_tree().recipe / "overlay/common/usr"
UNITS = COMMON / "lib/systemd/system"


def config(version: str = "1.2.3") -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read_string(installer.rauc_config(BOARD, version))
    return parsed


def test_rauc_takes_only_signed_verity_bundles_of_this_board_that_are_not_older() -> None:
    system = config()["system"]
    assert system["compatible"] == "omamori-x86_64-uefi"
    assert system["bundle-formats"] == "verity"
    assert system["min-bundle-version"] == "1.2.3"
    assert system["activate-installed"] == "false"
    assert dict(config()["keyring"]) == {
        "path": "/usr/lib/omamori/trust/bundle-ca.pem",
        "check-purpose": "codesign",
        "use-bundle-signing-time": "true",
    }


def test_each_slot_is_three_partitions_of_one_letter() -> None:
    found = config()
    names = {partition.name for partition in disk.layout(BOARD.disk)}
    for index, letter in enumerate("AB"):
        parts = {name: found[f"slot.{name}.{index}"] for name in installer.SLOT_CLASSES}
        assert parts["root"]["bootname"] == letter
        assert {part["device"].removeprefix("/dev/omamori/")[-2:] for part in parts.values()} == {f"_{letter.lower()}"}
        assert {part["device"].removeprefix("/dev/omamori/") for part in parts.values()} <= names
        assert {part.get("parent") for part in parts.values()} == {None, f"root.{index}"}


@pytest.mark.parametrize("version", ["0.1.0", "10.20.30", "999999.0.1", "1.2.3-dev.0", "1.2.3-dev.12"])
def test_versions_that_can_be_compared(version: str) -> None:
    assert installer.check_version(version) == version


@pytest.mark.parametrize(
    "version", ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.02.3", "1.2.3-rc1", "1.2.3\n", "1000000.0.0"]
)
def test_versions_that_cannot(version: str) -> None:
    with pytest.raises(SetupError):
        installer.check_version(version)


def test_identifiers_are_those_of_the_disk() -> None:
    lines = installer.partition_file().splitlines()
    assert lines == [f"SLOT_{letter}_GUID={disk.slot_guids()[letter].upper()}" for letter in "AB"]


@pytest.mark.parametrize(
    "text", ["", "security_epoch = 0\n", "security_epoch = true\n", "security_epoch = 1\nmore = 2\n"]
)
def test_epoch_has_to_be_declared(tmp_path: Path, text: str) -> None:
    tree = SourceTree(tmp_path)
    tree.recipe.mkdir(parents=True)
    (tree.recipe / "release.toml").write_text(text)
    with pytest.raises(SetupError):
        installer.security_epoch(tree)
    assert installer.security_epoch(source_tree()) >= 1


@pytest.mark.parametrize(("steps", "version"), [([], 1), (["step_0002.py"], 2), (["step_0002.py", "step_0003.py"], 3)])
def test_data_version_follows_the_steps(tmp_path: Path, steps: list[str], version: int) -> None:
    place = tmp_path / "agent/omamori_agent/migration/steps"
    place.mkdir(parents=True)
    for name in ("__init__.py", *steps):
        (place / name).touch()
    assert installer.data_version(SourceTree(tmp_path)) == version


@pytest.mark.parametrize("name", ["step_0003.py", "step_2.py", "step_0002_ring.py"])
def test_steps_with_gaps_or_other_names_are_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "agent/omamori_agent/migration/steps"
    place.mkdir(parents=True)
    (place / name).touch()
    with pytest.raises(SetupError):
        installer.data_version(SourceTree(tmp_path))


def test_only_the_agent_may_ask_for_an_installation() -> None:
    policy = ET.parse(COMMON / "share/dbus-1/system.d/de.pengutronix.rauc.conf").getroot()
    default = next(part for part in policy if part.get("context") == "default")
    assert {rule.tag for rule in default} == {"deny"}
    assert {part.get("user") for part in policy if part.get("user")} == {"root", "omamori-agent"}


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_no_unit_needs_a_shell(path: Path) -> None:
    assert not re.search(r"^Exec\w+=[-+!@:]*\S*/(ba|da)?sh\b", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["omamori-slots.service", "omamori-trial@.service", "omamori-migrate.service"])
def test_what_runs_at_every_start_has_no_capability(name: str) -> None:
    text = (UNITS / name).read_text()
    assert "\nCapabilityBoundingSet=\n" in text
    assert "\nNoNewPrivileges=yes\n" in text
    assert "\nProtectSystem=strict\n" in text


def test_trial_ends_in_a_restart() -> None:
    text = (UNITS / "omamori-trial@.service").read_text()
    assert "FailureAction=reboot" in text
    assert f"ExecStart={installer.CHOOSER_PATH} %i" in text
    agent = (source_tree().units / "omamori-agent.service").read_text()
    assert "OnFailure=omamori-trial@strike.service" in agent
    assert "OnFailure=omamori-trial@migration.service" in (UNITS / "omamori-migrate.service").read_text()
    assert "Unit=omamori-trial@deadline.service" in (UNITS / "omamori-trial.timer").read_text()


def test_disk_holds_a_bundle_beside_everything_else() -> None:
    sizes = BOARD.disk
    bundle_mib = sizes.slot_mib + 230
    assert sizes.data_mib >= 2 * bundle_mib
    assert sizes.total_mib <= BOARD.limits.disk_minimum_mib
