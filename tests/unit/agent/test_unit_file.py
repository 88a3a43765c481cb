"""The unit comes back always, gives the process no privilege, and may write only what the agent writes."""

import configparser
from pathlib import Path

import pytest

from omamori_agent.config import AgentConfig, Paths
from omamori_agent.identity.tpm import DEVICE

UNIT = Path(__file__).parents[3] / "agent/units/omamori-agent.service"


@pytest.fixture
def service() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def test_it_is_a_unit_file() -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(UNIT.read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]


def test_it_always_comes_back(service: dict[str, list[str]]) -> None:
    assert service["Service.Restart"] == ["always"]
    assert service["Unit.StartLimitIntervalSec"] == ["0"]
    assert service["Service.Type"] == ["notify"]
    assert int(service["Service.WatchdogSec"][0]) > 0


def test_time_to_stop_is_more_than_the_agent_takes(service: dict[str, list[str]]) -> None:
    stop_s = AgentConfig.__dataclass_fields__["stop_s"].default
    assert isinstance(stop_s, float)
    assert int(service["Service.TimeoutStopSec"][0]) > stop_s < 3


def test_it_has_no_privilege(service: dict[str, list[str]]) -> None:
    assert service["Service.User"] == ["omamori-agent"]
    assert service["Service.CapabilityBoundingSet"] == [""]
    assert service["Service.NoNewPrivileges"] == ["yes"]
    assert service["Service.ProtectSystem"] == ["strict"]


def test_it_alone_may_use_the_tpm(service: dict[str, list[str]]) -> None:
    recipe = UNIT.parents[2] / "firmware/recipe/overlay/common/usr/lib"
    assert f"{DEVICE} rw" in service["Service.DeviceAllow"]
    assert service["Service.DevicePolicy"] == ["closed"]
    (group,) = service["Service.SupplementaryGroups"]
    assert f"z {DEVICE} 0660 root {group} -" in " ".join((recipe / "tmpfiles.d/omamori.conf").read_text().split())
    users = (recipe / "sysusers.d/omamori.conf").read_text().splitlines()
    assert [line.split()[0] for line in users if group in line.split()] == ["g"], "a group of nobody else"


def test_it_may_write_where_the_agent_keeps_things(service: dict[str, list[str]]) -> None:
    paths = Paths()
    writable = [Path(word.lstrip("-")) for value in service["Service.ReadWritePaths"] for word in value.split()]
    ours = (paths.identity, paths.spool, paths.feed, paths.desired, paths.address, paths.firmware)
    for needed in (*ours, paths.last_run, paths.time_known, paths.time_wanted, paths.eve.parent):
        assert any(needed.is_relative_to(place) for place in writable), needed
    for forbidden in (paths.provision, paths.image, paths.slot.parent.parent):
        assert not any(forbidden.is_relative_to(place) for place in writable), forbidden
