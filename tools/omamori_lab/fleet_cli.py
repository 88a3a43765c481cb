"""The command `omamori-lab fleet`: boxes that work until somebody has seen enough."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from omamori_protocol.durable import write_atomic

from .display import Display
from .fleet import (
    Fleet,
    FleetReport,
    Observer,
    look_at_parts,
    look_at_store,
    percentile,
    wait_until_connected,
)
from .fleet_site import FleetSite, running_site
from .waiting import wait_for

_READY_S = 300.0
_TELL_EVERY_S = 10.0
_STORE_S = 120.0


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `omamori-lab fleet`."""
    command.add_argument("--boxes", type=_positive, default=100, metavar="N", help="how many, %(default)s")
    command.add_argument("--seconds", type=_positive, metavar="S", help="end by itself; without: at Ctrl-C")
    command.add_argument(
        "--heartbeat-s", type=_positive, default=60, metavar="S", help="between two heartbeats, %(default)s"
    )
    command.add_argument(
        "--alerts",
        type=int,
        default=50,
        metavar="N",
        help="threats that one box of each hundred meets within a second, once a minute; 0: none; %(default)s",
    )
    command.add_argument(
        "--connects-per-s", type=_positive, default=200, metavar="N", help="boxes switched on, %(default)s"
    )
    command.add_argument("--postgresql", action="store_true", help="store in a PostgreSQL of its own, not in SQLite")
    command.add_argument("--json", type=Path, metavar="FILE", help="write what happened, at the end")


def run_fleet(options: argparse.Namespace) -> int:
    """Run the fleet; return 0 if every alert came to stand in the store exactly once."""
    with Display(Console(highlight=False, soft_wrap=True)) as display:
        display.step(f"certificates, broker and store for {options.boxes} boxes")
        with (
            running_site(options.boxes, on_postgresql=options.postgresql) as site,
            Fleet(site, heartbeat_s=options.heartbeat_s) as fleet,
            Observer(site).looking() as observer,
        ):
            wait_for(lambda: fleet.report(0.2).boxes == options.boxes, "the boxes", timeout_s=_READY_S)
            display.step("the boxes connect")
            fleet.connect(options.connects_per_s)
            wait_until_connected(fleet, options.boxes, timeout_s=_READY_S, note=display.moment)
            raised = _work(options, fleet, observer, display)
            deadline_s = time.monotonic() + _STORE_S
            while observer.stored < raised and time.monotonic() < deadline_s:
                fleet.report(0.2)
            body = summary(site, fleet.report(0.5), observer, raised)
    if options.json is not None:
        write_atomic(options.json, (json.dumps(body, indent=2) + "\n").encode())
    print(_line(body))  # noqa: T201 - a command
    return 0 if body["ok"] else 1


def _work(options: argparse.Namespace, fleet: Fleet, observer: Observer, display: Display) -> int:
    """Let the boxes work; returns how many alerts they raised."""
    raised = 0
    began_s = time.monotonic()
    burst_s, tell_s = began_s, began_s
    while options.seconds is None or time.monotonic() - began_s < options.seconds:
        now_s = time.monotonic()
        if options.alerts and now_s >= burst_s:
            spread_s = min(60.0, options.seconds or 60.0)
            raised += fleet.raise_alerts(options.alerts, seconds=1.0, spread_s=spread_s)
            burst_s = now_s + 60.0
        report = fleet.report(0.5)
        if now_s >= tell_s:
            tell_s = now_s + _TELL_EVERY_S
            display.step(_told(report, observer))
    # Those that begin at the very end have begun.
    wait_for(lambda: fleet.report(0.2).alerts >= raised, "the last alerts", timeout_s=_READY_S)
    return raised


def _told(report: FleetReport, observer: Observer) -> str:
    late = percentile(observer.latencies_ms(), 0.99)
    return (
        f"{report.connected} of {report.boxes} connected, {report.heartbeats} heartbeats, "
        f"{observer.stored} of {report.alerts} alerts stored (p99 {late / 1000:.2f} s)"
    )


def summary(site: FleetSite, report: FleetReport, observer: Observer, raised: int) -> dict[str, Any]:
    """Return what happened as plain values; `ok` if the store holds what was raised."""
    stored = look_at_store(site)
    latencies = observer.latencies_ms()
    return {
        "ok": report.connected == report.boxes and stored.alerts == raised == report.alerts,
        "raised": raised,
        "fleet": {
            **dataclasses.asdict(report),
            "heartbeat_bytes": {str(size): count for size, count in sorted(report.heartbeat_bytes.items())},
        },
        "stored": dataclasses.asdict(stored),
        "latency_ms": {"p50": percentile(latencies, 0.5), "p99": percentile(latencies, 0.99)},
        "parts": {
            name: {"cpu_s": round(part.cpu_s, 2), "resident_bytes": part.resident_bytes}
            for name, part in look_at_parts(site, report).items()
        },
    }


def _line(body: dict[str, Any]) -> str:
    fleet, stored = body["fleet"], body["stored"]
    return (
        f"{fleet['connected']} of {fleet['boxes']} boxes connected after {fleet['tries']} tries; "
        f"{stored['alerts']} of {body['raised']} alerts stored, p99 {body['latency_ms']['p99'] / 1000:.2f} s; "
        f"{stored['heartbeats']} heartbeats"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
