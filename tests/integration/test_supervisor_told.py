"""What the supervisor told the herald reaches the cloud: real processes of agent, broker and cloud."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.box import CLAIM, DEVICE
from sim.enrolment import SimulatedEnrolment, enrolment_server
from sim.herald_file import write_herald_file

from .agent_site import Site
from .cloud_rig import Rig, running_rig, wait_for

pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 60.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path, extra="[liveness]\nevery_s = 1\nblink_s = 2\n") as made:
        yield made


@pytest.fixture
def site(rig: Rig, tmp_path: Path) -> Iterator[Site]:
    enrolment = SimulatedEnrolment(rig.pki.devices, {DEVICE: CLAIM})
    with contextlib.ExitStack() as stack:
        stack.enter_context(enrolment_server(enrolment, rig.pki.service, tmp_path))
        made = Site(tmp_path, rig.pki.service, rig.pki.devices, rig.broker, enrolment.url)
        stack.callback(made.close)
        yield made


def power_on(site: Site, number: int) -> None:
    """Start the agent as the first one of a new run of the kernel."""
    site.paths.boot_id.write_text(f"00000000-0000-4000-8000-{number:012}\n")
    (site.paths.proc / "uptime").write_text("0.40 0.40\n")
    site.start()


def powers(rig: Rig) -> list[tuple[int, str, int]]:
    events = rig.cloud.get("/api/v1/events")["events"]
    return [
        (item["power"]["number"], item["power"]["kind"], item["power"]["length_ms"])
        for item in events[::-1]
        if item["power"]
    ]


def test_figures_wire_and_power_reach_the_cloud_each_power_event_once(rig: Rig, site: Site) -> None:
    def await_supervisor(what: str, **wanted: Any) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            told = rig.cloud.box(DEVICE).get("supervisor") or {}
            return told if all(told.get(name) == value for name, value in wanted.items()) else None

        return dict(wait_for(look, f"{what}\n{site.log()}", within_s=PATIENCE_S))

    write_herald_file(site.paths.supervisor, power=(1, "cold", 0), past_s=12)
    power_on(site, 1)
    rail = wait_for(
        lambda: (rig.cloud.box(DEVICE).get("supervisor") or {}).get("rail", {}).get("millivolts"),
        "a heartbeat",
        within_s=PATIENCE_S,
    )
    assert rail == 3300
    told = await_supervisor("the facts", answers=True, version="1.4.0")
    assert told["wire"] == {"through": True, "moves": 1, "past_s": 12, "lease_ms": 150}
    wait_for(lambda: powers(rig) == [(1, "cold", 0)], "the power event", within_s=PATIENCE_S)

    write_herald_file(site.paths.supervisor, power=(1, "cold", 0), past_s=19, through=0, moves=2, uptime_s=60)
    wire = {"through": False, "moves": 2, "past_s": 19, "lease_ms": 150}
    await_supervisor("the relay's move", wire=wire)

    site.kill()  # with the whole box
    time.sleep(1.0)  # of darkness: longer than the new run will be old
    write_herald_file(site.paths.supervisor, power=(2, "short-pull", 5012), past_s=24, moves=3, uptime_s=70)
    power_on(site, 2)
    wait_for(lambda: powers(rig) == [(1, "cold", 0), (2, "short-pull", 5012)], "the pull", within_s=PATIENCE_S)

    def absence() -> dict[str, Any] | None:
        found = rig.cloud.get(f"/api/v1/outages?device={DEVICE}")["outages"]
        return found[0] if found and found[0]["end"] else None

    outage = wait_for(absence, "the absence to be over", within_s=PATIENCE_S)
    assert outage["reason"] == "power"
    assert (outage["evidence"]["power"], outage["evidence"]["power_ms"]) == ("short-pull", 5012)

    write_herald_file(site.paths.supervisor, power=(3, "brown-out", 0), past_s=24, moves=3, uptime_s=90)
    wait_for(lambda: len(powers(rig)) >= 3, "the brown-out", within_s=PATIENCE_S)
    assert powers(rig)[1:] == [(2, "short-pull", 5012), (3, "brown-out", 0)]

    site.paths.supervisor.write_text("{")
    await_supervisor("silence", answers=False, version="1.4.0")
