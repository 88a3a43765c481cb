"""The scenes judge: with a plain cable in place of the box, what must be blocked is not, and the scenes say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from omamori_lab.errors import NotReadyError
from omamori_lab.lab import Lab
from omamori_lab.scenes import SCENES, play, scene
from omamori_lab.settings import LabSettings

from .lab_cable import Cable

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

# They speak with the box itself.
NEEDS_A_BOX = {
    "feed-refused",
    "wifi",
    "bypass",
    "exemptions",
    "address",
    "failures",
    "engine-hang",
    "engine-memory",
    "wire-faults",
    "fail-closed",
    "firmware",
    "power-cut",
    "feed-rings",
}
UNPROTECTED = [each for each in SCENES if each.name not in NEEDS_A_BOX | {"transparent", "feed-update"}]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory):
    state = tmp_path_factory.mktemp("lab")
    made = Lab(LabSettings(state=state, keys=state / "keys", page_port=0))
    with made.surrounded():
        topology = made.surroundings.topology
        with Cable(topology.wan_tap, topology.lan_tap):
            yield made


def test_ordinary_traffic_over_a_cable_is_transparent(lab: Lab) -> None:
    transparent = next(each for each in SCENES if each.name == "transparent")
    result = play(transparent, lab)
    assert result.ok, result.summary


@pytest.mark.parametrize("unprotected", UNPROTECTED, ids=lambda each: str(each.name))
def test_an_unprotected_office_is_noticed(lab: Lab, monkeypatch: pytest.MonkeyPatch, unprotected: scene.Scene) -> None:
    monkeypatch.setattr("omamori_lab.portal.wait_for", lambda probe, *_, **__: probe() or _missing())
    result = play(unprotected, lab)
    wrong = {check.name for check in result.checks if not check.ok}
    assert not result.ok
    assert "alert" in wrong
    if unprotected.name != "category":
        assert wrong - {"alert"}, "what had to be blocked passed, and no check saw it"


def _missing() -> None:
    raise NotReadyError("alerts", 0)


def test_the_logs_of_the_servers_are_kept(lab: Lab) -> None:
    names = {path.name for path in Path(lab.settings.logs).iterdir()}
    assert {"dnsmasq.log", "nginx.log", "mosquitto.log", "enrolment.log", "cloud.log"} <= names
