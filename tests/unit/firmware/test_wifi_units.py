"""The access point's units: least privileges, always back, and in step with the wire plan and the agent's paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omamori_agent.config import Paths
from omamori_agent.wifi import BRIDGE, GROUP
from omamori_firmware.dataplane.plan import PLAN
from omamori_firmware.recipe import source_tree

WIFI = source_tree().wifi
OVERLAYS = source_tree().recipe / "overlay"


def unit(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (WIFI / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_hostapd_has_two_capabilities_and_no_other_right() -> None:
    service = unit("omamori-wifi.service")
    assert service["User"] == service["Group"] == [GROUP]
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert service[key] == ["CAP_NET_ADMIN CAP_NET_RAW"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]
    assert "ReadWritePaths" not in service


def test_hostapd_comes_back_as_long_as_there_is_a_configuration() -> None:
    service = unit("omamori-wifi.service")
    assert service["Restart"] == ["always"]
    assert service["StartLimitIntervalSec"] == ["0"]
    config = str(Paths().wifi_config)
    assert service["ExecStart"] == [f"/usr/sbin/hostapd {config}"]
    assert service["ExecCondition"] == [f"/usr/bin/test -e {config}"]
    assert unit("omamori-wifi.path")["PathExists"] == [config]
    assert service["RuntimeDirectory"] == [str(Paths().hostapd.relative_to("/run"))]


def test_the_radio_gets_the_gate_of_the_wire() -> None:
    radio = unit("omamori-radio.service")
    assert PLAN.bridge == BRIDGE
    for key in ("ExecStart", "ExecStop"):
        refresh = f"-/usr/lib/omamori/gate/omamori-wire refresh --pins {PLAN.pin_directory} --bridge {PLAN.bridge}"
        assert radio[key][-1] == refresh
    assert f"/usr/sbin/ip link set dev ${{RADIO}} master {PLAN.bridge}" in radio["ExecStart"]


@pytest.mark.parametrize("path", sorted(WIFI.glob("*.service")), ids=lambda path: path.name)
def test_no_unit_needs_a_shell(path: Path) -> None:
    assert not re.search(r"^Exec\w+=[-+!@:]*\S*/(ba|da)?sh\b", path.read_text(), re.MULTILINE)


def test_only_hostapds_group_reads_the_passphrase() -> None:
    accounts = (OVERLAYS / "common/usr/lib/sysusers.d/omamori.conf").read_text()
    assert re.search(rf"^m omamori-agent +{GROUP}$", accounts, re.MULTILINE)
    assert len(re.findall(rf"^m \S+ +{GROUP}$", accounts, re.MULTILINE)) == 1
    places = (OVERLAYS / "common/usr/lib/tmpfiles.d/omamori.conf").read_text()
    directory = Paths().wifi_config.parent
    assert re.search(rf"^d +{directory} +2750 omamori-agent +{GROUP} ", places, re.MULTILINE)


def test_simulated_radios_are_for_developers_alone() -> None:
    named = [path for path in OVERLAYS.rglob("*") if path.is_file() and "mac80211_hwsim" in path.read_text()]
    assert [path.relative_to(OVERLAYS).parts[0] for path in named] == ["dev"]
