"""A small fleet against a real broker, real ingest and a real store: what `omamori-lab fleet` does with more boxes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from omamori_lab.cli import main
from omamori_lab.fleet import Fleet, Observer, look_at_store, wait_until_connected
from omamori_lab.fleet_site import running_site

BOXES = 20
WAIT_S = 90.0


def until(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_boxes_connect_beat_alert_and_come_back_after_a_restart() -> None:
    with (
        running_site(BOXES, on_postgresql=False) as site,
        Fleet(site, heartbeat_s=1, per_process=12) as fleet,
        Observer(site).looking() as observer,
    ):
        until(lambda: fleet.report(0.1).boxes == BOXES)
        fleet.connect(100)
        wait_until_connected(fleet, BOXES, timeout_s=WAIT_S, note=lambda _text: None)
        raised = fleet.raise_alerts(30, seconds=0.5, spread_s=0)
        assert raised == 60  # two processes, each with a part of a hundred
        until(lambda: fleet.report(0.1).alerts == raised and observer.stored == raised)

        # The broker is away while others happen.
        before = fleet.report()
        site.broker.stop()
        raised += fleet.raise_alerts(30, seconds=0.5, spread_s=0)
        until(lambda: fleet.report(0.1).alerts == raised)
        site.broker.start()
        until(lambda: (now := fleet.report(0.1)).connects >= before.connects + BOXES and now.connected == BOXES)
        until(lambda: observer.stored >= raised)
        until(lambda: look_at_store(site).heartbeats > 2 * BOXES)
        fleet.report(1.0)

        stored, report = look_at_store(site), fleet.report()
        assert (stored.alerts, stored.beating, stored.states) == (raised, BOXES, BOXES)
        assert report.heartbeat_bytes
        # MQTT and TLS; with the headers of TCP and IPv4 still within 200.
        assert max(report.heartbeat_bytes) <= 148
        folder, homes = site.folder, site.homes
    assert not folder.exists()
    assert not homes.exists()


def test_the_command_says_what_came_to_stand_in_the_store(tmp_path: Path) -> None:
    target, before = tmp_path / "fleet.json", children()
    assert main(["fleet", "--boxes", "5", "--seconds", "2", "--alerts", "10", "--json", str(target)]) == 0
    body = json.loads(target.read_text())
    assert body["ok"]
    assert body["stored"]["alerts"] == 10
    assert body["fleet"]["connected"] == 5
    assert children() == before
