"""Measures a fleet on one machine: what it costs to hold it, how soon alerts are stored, and the storm after a restart.

Boxes, broker, ingest and database share this machine's processors, and the boxes take most of them. So times under
load say what is possible at least; how the processor time divides is told beside them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from . import machine
from .benchmark import Benchmark, Figure
from .fleet import (
    Fleet,
    FleetReport,
    Observer,
    Stored,
    look_at_parts,
    look_at_store,
    percentile,
    wait_until_connected,
)
from .fleet_site import FleetSite, running_site
from .process_usage import Usage
from .progress import Progress
from .waiting import wait_for

NAME = "fleet"
BOXES = 10_000
_MIB = 1 << 20
_PER_S = 200.0  # boxes switched on; about what this machine can simulate
_ALERTS = 50  # of one box of each hundred, within a second
_SPREAD_S = 60.0
_TIMEOUT_S = 300.0
_AROUND_RESTART_S = 2.0  # in the middle of it the broker ends
_TWICE_S = 3.0  # in which an alert that is sent again would come to stand in the store twice
_HEADERS_BYTES = 52  # IPv4 and TCP with time stamps
_PARTS = {"broker": "mosquitto", "ingest": "one ingest worker", "database": "PostgreSQL", "simulation": "the boxes"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Storm:
    """How the boxes came back after the broker's restart; times in seconds from its end.

    Attributes:
        down_s: Until the broker took connections again.
        half_s: Until half of the boxes were back.
        most_s: Until 99 of 100 were.
        all_s: Until all were.
        tries: Connections begun.
        most_connecting: Begun and not answered at the same time.
        peak_per_s: Connections made in the best second.
        failures: Tries that failed, by error.
        broker_cpu_s: Processor time of the new broker meanwhile.
        handshake_p50_s: From a try to the broker's consent.
        handshake_p99_s: The same, of 99 of 100.
    """

    down_s: float
    half_s: float
    most_s: float
    all_s: float
    tries: int
    most_connecting: int
    peak_per_s: float
    failures: Mapping[str, int]
    broker_cpu_s: float
    handshake_p50_s: float
    handshake_p99_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Burst:
    """Alerts that met the fleet: how many, how long until stored (milliseconds), how long until all were (seconds)."""

    alerts: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    all_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetResult:
    """All of one run; `shares` is processor time by part in shares of one core, `resident` memory in bytes."""

    boxes: int
    heartbeat_s: float
    seconds: float
    prepare_s: float
    connect_s: float
    connect_broker_cpu_s: float
    shares: Mapping[str, float]
    resident: Mapping[str, int]
    heartbeats_per_s: float
    heartbeat_bytes: Mapping[int, int]
    spread: Burst
    at_once: Burst
    meanwhile: Burst
    storm: Storm
    stored: Stored
    report: FleetReport


def measure(
    progress: Progress, *, boxes: int = BOXES, seconds: float = 60.0, heartbeat_s: float = 60.0, alerts: int = _ALERTS
) -> FleetResult:
    """Measure one fleet.

    Args:
        progress: Told what is being done.
        boxes: How many.
        seconds: Of steady work.
        heartbeat_s: Between two heartbeats of a box.
        alerts: That one box of each hundred meets within a second.

    Raises:
        SetupError: This machine cannot hold so many, or a program is missing.
        NotReadyError: Something did not come about within minutes.
    """
    began_s = time.monotonic()
    progress.step(f"certificates, broker and store for {boxes} boxes")
    with (
        running_site(boxes, on_postgresql=True) as site,
        Fleet(site, heartbeat_s=heartbeat_s) as fleet,
        Observer(site).looking() as observer,
    ):
        wait_for(lambda: fleet.report(0.2).boxes == boxes, "the processes of the boxes", timeout_s=_TIMEOUT_S)
        prepare_s = time.monotonic() - began_s
        progress.step("the boxes connect")
        before = look_at_parts(site, fleet.report())
        fleet.connect(_PER_S)
        seen = wait_until_connected(fleet, boxes, timeout_s=_TIMEOUT_S, note=progress.moment)
        connected = look_at_parts(site, fleet.report())
        progress.step(f"{seconds:.0f} s of steady work")
        beats, steady = fleet.report().heartbeats, look_at_parts(site, fleet.report())
        spread = _burst(fleet, observer, alerts, spread_s=min(_SPREAD_S, seconds), progress=progress, least_s=seconds)
        report = fleet.report()
        after = look_at_parts(site, report)
        progress.step("alerts everywhere at once")
        at_once = _burst(fleet, observer, alerts, spread_s=0.0, progress=progress)
        progress.step("the broker restarts")
        storm, meanwhile = _storm(site, fleet, observer, alerts, boxes, progress)
        return FleetResult(
            boxes=boxes,
            heartbeat_s=heartbeat_s,
            seconds=seconds,
            prepare_s=prepare_s,
            connect_s=seen[-1][0],
            connect_broker_cpu_s=connected["broker"].cpu_s - before["broker"].cpu_s,
            shares=_shares(steady, after),
            resident={name: part.resident_bytes for name, part in after.items() if part.resident_bytes},
            heartbeats_per_s=(report.heartbeats - beats) / (after["broker"].at_s - steady["broker"].at_s),
            heartbeat_bytes=report.heartbeat_bytes,
            spread=spread,
            at_once=at_once,
            meanwhile=meanwhile,
            storm=storm,
            stored=look_at_store(site),
            report=fleet.report(),
        )


def _alerts_of(result: FleetResult) -> int:
    return result.spread.alerts + result.at_once.alerts + result.meanwhile.alerts


def _burst(
    fleet: Fleet, observer: Observer, alerts: int, *, spread_s: float, progress: Progress, least_s: float = 0.0
) -> Burst:
    """Let one box of each hundred meet threats; wait until all are stored, and for `least_s` seconds in any case."""
    before = observer.stored
    began_s = time.monotonic()
    count = fleet.raise_alerts(alerts, seconds=1.0, spread_s=spread_s)
    return _wait_until_stored(fleet, observer, before, count, began_s, least_s=least_s, progress=progress)


def _wait_until_stored(
    fleet: Fleet, observer: Observer, before: int, count: int, began_s: float, *, least_s: float, progress: Progress
) -> Burst:
    all_s = 0.0
    while observer.stored < before + count or time.monotonic() < began_s + least_s:
        fleet.report(0.1)
        stored = observer.stored - before
        all_s = all_s or (time.monotonic() - began_s if stored >= count else 0.0)
        progress.moment(f"{stored} of {count} alerts stored")
        if time.monotonic() > began_s + _TIMEOUT_S:
            break
    latencies = observer.latencies_ms(before)
    return Burst(
        alerts=count,
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        most_ms=max(latencies, default=0.0),
        all_s=all_s or time.monotonic() - began_s,
    )


def _storm(
    site: FleetSite, fleet: Fleet, observer: Observer, alerts: int, boxes: int, progress: Progress
) -> tuple[Storm, Burst]:
    """Restart the broker while boxes meet threats; wait until all are back, and their alerts stored."""
    before, stored = fleet.report(), observer.stored
    fleet.handshakes_s.clear()
    count = fleet.raise_alerts(alerts, seconds=1.0, spread_s=_AROUND_RESTART_S)
    fleet.report(_AROUND_RESTART_S / 2)
    began_s = time.monotonic()
    site.broker.stop()
    site.broker.start()
    down_s = time.monotonic() - began_s
    # Who has not noticed yet still counts as connected; everybody must have come anew.
    seen: list[tuple[float, int]] = []
    while True:
        report = fleet.report(0.25)
        back = report.connects - before.connects
        seen.append((time.monotonic() - began_s, back))
        progress.moment(f"{back} of {boxes} boxes are back, {report.tries - before.tries} tries")
        if (back >= boxes and report.connected >= boxes) or seen[-1][0] > _TIMEOUT_S:
            break
    storm = Storm(
        down_s=down_s,
        half_s=reached_s(seen, boxes * 0.5),
        most_s=reached_s(seen, boxes * 0.99),
        all_s=reached_s(seen, boxes),
        tries=report.tries - before.tries,
        most_connecting=report.most_connecting,
        peak_per_s=peak_per_s(seen),
        failures=dict(Counter(report.failures) - Counter(before.failures)),
        broker_cpu_s=look_at_parts(site, report)["broker"].cpu_s,
        handshake_p50_s=percentile(fleet.handshakes_s, 0.5),
        handshake_p99_s=percentile(fleet.handshakes_s, 0.99),
    )
    meanwhile = _wait_until_stored(fleet, observer, stored, count, began_s, least_s=0.0, progress=progress)
    fleet.report(_TWICE_S)
    return storm, meanwhile


def reached_s(seen: Sequence[tuple[float, int]], wanted: float) -> float:
    """Return when so many were first seen, in seconds; infinity for never."""
    return next((at_s for at_s, count in seen if count >= wanted), float("inf"))


def peak_per_s(seen: Sequence[tuple[float, int]]) -> float:
    """Return the most that came in about a second."""
    best = 0.0
    first = 0
    for at_s, count in seen:
        while at_s - seen[first][0] > 1.25:
            first += 1
        length_s = at_s - seen[first][0]
        if length_s >= 0.75:
            best = max(best, (count - seen[first][1]) / length_s)
    return best


def _shares(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Return what part of a core each part used between two looks."""
    return {name: (after[name].cpu_s - before[name].cpu_s) / (after[name].at_s - before[name].at_s) for name in _PARTS}


def benchmark(result: FleetResult) -> Benchmark:
    """Return the result as figures."""
    return Benchmark(
        name=NAME,
        title=f"A fleet of {result.boxes:,} boxes".replace(",", " "),
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions={},
        figures=(*_holding(result), *_alerts(result), *_returning(result)),
        remarks=(_STORM_REMARK, _LATENCY_REMARK),
        details=_details(result),
    )


def _holding(result: FleetResult) -> list[Figure]:
    sizes = Counter(result.heartbeat_bytes)
    usual = sizes.most_common(1)[0][0] if sizes else 0
    largest = max(sizes, default=0)
    told = ", ".join(f"{_PARTS[name]} {share:.3f}" for name, share in result.shares.items() if name != "broker")
    per_box = result.resident.get("broker", 0) / result.boxes
    return [
        Figure(
            name="boxes connected",
            value=result.report.connected,
            unit="",
            explanation=f"Each with its own certificate, TLS 1.3 and session, {result.heartbeats_per_s:.0f} heartbeats"
            f" a second in all; switched on over {result.connect_s:.0f} s.",
            budget=f"{result.boxes}",
        ),
        Figure(
            name="broker, processor",
            value=round(100 * result.shares["broker"], 2),
            unit="% of one core",
            explanation=f"mosquitto, over {result.seconds:.0f} s with a heartbeat of each box every"
            f" {result.heartbeat_s:.0f} s and the bursts below; meanwhile in shares of a core: {told}.",
        ),
        Figure(
            name="broker, memory",
            value=round(result.resident.get("broker", 0) / _MIB, 1),
            unit="MiB",
            explanation=f"Resident; {per_box / 1024:.1f} KiB a box, TLS included. The ingest worker:"
            f" {result.resident.get('ingest', 0) / _MIB:.1f} MiB.",
        ),
        Figure(
            name="bytes of a heartbeat",
            value=usual,
            unit="B",
            explanation=f"MQTT packet and TLS record, as TCP was given it, of {sum(sizes.values())} heartbeats after a"
            f" connection's first: the usual size; the largest {largest}. With the headers of IPv4 and TCP"
            f" {usual + _HEADERS_BYTES}.",
            budget="≤ 200",
        ),
    ]


def _alerts(result: FleetResult) -> list[Figure]:
    def figure(name: str, burst: Burst, how: str) -> Figure:
        return Figure(
            name=name,
            value=round(burst.p99_ms / 1000, 3),
            unit="s",
            explanation=f"{how} p50 {burst.p50_ms / 1000:.3f} s, the slowest {burst.most_ms / 1000:.3f} s,"
            f" {burst.alerts} alerts. From the moment a box put an alert into its spool until a look at PostgreSQL,"
            " every 50 ms, showed it.",
        )

    exact = result.stored.alerts == _alerts_of(result)
    return [
        figure(
            "alert → stored, p99",
            result.spread,
            "One box of each hundred meets 50 threats within a second, each hundred at its own moment of the minute:",
        ),
        figure(
            "alert → stored, p99, everywhere at once",
            result.at_once,
            "The same in all hundreds in the same second; the boxes' own work on this machine is most of it:",
        ),
        Figure(
            name="alerts stored",
            value=result.stored.alerts,
            unit="",
            explanation=f"Of {_alerts_of(result)}, all of the above and those of the restart below"
            f" ({'each exactly once' if exact else 'NOT what was raised'}); {result.stored.heartbeats} heartbeats of"
            f" {result.report.heartbeats} sent (they are not repeated) and {result.stored.states} states.",
        ),
    ]


def _returning(result: FleetResult) -> list[Figure]:
    storm = result.storm
    failed = ", ".join(f"{name} {count}" for name, count in sorted(storm.failures.items())) or "none"
    return [
        Figure(
            name="broker restart → all boxes back",
            value=round(storm.all_s, 1),
            unit="s",
            explanation=f"The broker ends in good order and starts again, {storm.down_s:.1f} s later it answers. Half"
            f" of the boxes were back after {storm.half_s:.1f} s, 99 % after {storm.most_s:.1f} s;"
            f" {storm.tries} tries, failed: {failed}.",
            budget="≤ 300",
        ),
        Figure(
            name="alert → stored, p99, during the restart",
            value=round(result.meanwhile.p99_ms / 1000, 1),
            unit="s",
            explanation="Alerts of the second before and the one after the broker's end, one box of each hundred:"
            f" p50 {result.meanwhile.p50_ms / 1000:.1f} s, {result.meanwhile.alerts} alerts. Boxes have to come back"
            " first.",
        ),
        Figure(
            name="storm, peak",
            value=round(storm.peak_per_s),
            unit="connections/s",
            explanation=f"Of the best second; at most {storm.most_connecting} handshakes were under way at once, all"
            f" that the simulation begins. From try to consent p50 {storm.handshake_p50_s:.1f} s,"
            f" p99 {storm.handshake_p99_s:.1f} s. The broker used"
            f" {1000 * storm.broker_cpu_s / result.boxes:.2f} ms of a core a box.",
        ),
    ]


_STORM_REMARK = """**What a storm is made of.** A handshake costs the broker a signature and the check of one, and
the boxes, which share the machine with it here, several times that: the storm's length is this simulation's more than
the broker's. Boxes wait half a second to a second before they try again, and longer each time."""
_LATENCY_REMARK = """**What latency counts.** The box's spool, its link, the broker, ingest and the database, with the
broker's work for all other boxes in between. What is simulated: [ADR 48](adr/0048-a-fleet-in-a-few-processes.md)."""


def _details(result: FleetResult) -> dict[str, Any]:
    body = dataclasses.asdict(result)
    body["heartbeat_bytes"] = {str(size): count for size, count in sorted(result.heartbeat_bytes.items())}
    body["report"] = {
        **dataclasses.asdict(result.report),
        "heartbeat_bytes": {str(size): count for size, count in sorted(result.report.heartbeat_bytes.items())},
    }
    return body
