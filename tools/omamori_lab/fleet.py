"""A fleet of simulated boxes: processes with some thousand each, what they tell, and when their alerts are stored.

Real are the agent's link, spool and heartbeat, the certificates, the broker and its configuration, ingest and store.
What is simulated, docs/adr/0048-a-fleet-in-a-few-processes.md says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from sqlalchemy import func, select

from omamori_cloud.store.schema import Event, Heartbeat, State
from omamori_protocol.vocabulary import EventKind

from .errors import LabError, NotReadyError
from .fleet_process import Plan
from .fleet_site import ADDRESS, BOXES_PER_PROCESS, HOST, FleetSite
from .process_usage import Usage, usage
from .run import Process, end, spawn

_MAX_REPORT_BYTES = 4 << 20
_LOOK_EVERY_S = 0.05  # at the store; so exact are the times until something is stored
_ROWS = 20_000  # of one look


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetReport:
    """What all boxes together have done so far.

    Attributes:
        boxes: How many there are.
        connected: Of them, now.
        connects: How often one got a connection.
        tries: How often one tried.
        connecting: How many are trying now.
        most_connecting: How many tried at the same time, at most (the sum over the processes).
        heartbeats: That went out.
        alerts: That were raised.
        heartbeat_bytes: How often a heartbeat took so many bytes of the connection.
        failures: Tries that failed, by error.
        cpu_s: Processor time of the simulation.
    """

    boxes: int = 0
    connected: int = 0
    connects: int = 0
    tries: int = 0
    connecting: int = 0
    most_connecting: int = 0
    heartbeats: int = 0
    alerts: int = 0
    heartbeat_bytes: dict[int, int] = dataclasses.field(default_factory=dict)
    failures: dict[str, int] = dataclasses.field(default_factory=dict)
    cpu_s: float = 0.0


def sum_reports(reports: Sequence[Mapping[str, Any]]) -> FleetReport:
    """Return one report of the processes' last ones."""
    names = ("boxes", "connected", "connects", "tries", "connecting", "most_connecting", "heartbeats", "alerts")
    sizes: Counter[int] = Counter()
    failures: Counter[str] = Counter()
    for report in reports:
        sizes.update({int(size): count for size, count in report["heartbeat_bytes"].items()})
        failures.update(report["failures"])
    sums = {name: sum(report[name] for report in reports) for name in names}
    cpu_s = sum(report["cpu_s"] for report in reports)
    return FleetReport(**sums, heartbeat_bytes=dict(sizes), failures=dict(failures), cpu_s=cpu_s)


class Fleet:
    """The processes; use it as a context.

    Args:
        site: Where they report to.
        heartbeat_s: Between two heartbeats of a box.
        per_process: Boxes of one process, at most.
    """

    def __init__(self, site: FleetSite, *, heartbeat_s: float, per_process: int = BOXES_PER_PROCESS) -> None:
        self._site = site
        self._heartbeat_s = heartbeat_s
        self._per_process = per_process
        self._processes: list[tuple[Process, socket.socket]] = []
        self._selector = selectors.DefaultSelector()
        self._received: dict[int, bytearray] = {}
        self._last: dict[int, dict[str, Any]] = {}
        self.handshakes_s: list[float] = []  # from SYN to the broker's consent, of all connections

    def __enter__(self) -> Self:
        try:
            for first in range(0, len(self._site.devices), self._per_process):
                self._start(first)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def connect(self, per_s: float) -> None:
        """Switch all boxes on, so many a second."""
        self._order({"do": "connect", "per_s": per_s / len(self._processes)})

    def raise_alerts(self, count: int, *, seconds: float, spread_s: float) -> int:
        """Let one box of each hundred meet `count` threats within `seconds`; returns how many that will be in all.

        Args:
            count: Of one box.
            seconds: In which it meets them, evenly.
            spread_s: The hundreds begin somewhere within so many seconds.
        """
        self._order({"do": "alerts", "count": count, "seconds": seconds, "spread_s": spread_s})
        sizes = [
            min(self._per_process, len(self._site.devices) - first)
            for first in range(0, len(self._site.devices), self._per_process)
        ]
        return count * sum(-(-size // 100) for size in sizes)

    def report(self, wait_s: float = 0.0) -> FleetReport:
        """Return what the boxes have done, after taking in what comes within `wait_s`.

        Raises:
            LabError: A process has ended.
        """
        deadline_s = time.monotonic() + wait_s
        while True:
            for key, _events in self._selector.select(max(0.0, deadline_s - time.monotonic())):
                self._take(key.fd, key.fileobj)
            if time.monotonic() >= deadline_s:
                return sum_reports(list(self._last.values()))

    def _start(self, first: int) -> None:
        site, number = self._site, len(self._processes)
        plan = Plan(
            devices=site.devices[first : first + self._per_process],
            identities=str(site.folder / "boxes"),
            homes=str(site.homes),
            service_ca=str(site.service_ca),
            host=HOST,
            address=ADDRESS,
            port=site.broker.port,
            first=first,
            expires_s=site.expires_s,
            heartbeat_s=self._heartbeat_s,
        )
        path = site.folder / f"boxes-{number}.json"
        path.write_text(json.dumps(dataclasses.asdict(plan)))
        ours, theirs = socket.socketpair()
        with theirs, (site.folder / f"boxes-{number}.log").open("ab") as log:
            line: list[str | Path] = [sys.executable, "-m", "omamori_lab.fleet_process", path, str(theirs.fileno())]
            process = spawn(line, log=log, pass_fds=[theirs.fileno()])
        self._processes.append((process, ours))
        self._received[ours.fileno()] = bytearray()
        self._selector.register(ours, selectors.EVENT_READ, number)

    def _take(self, descriptor: int, file: Any) -> None:
        data = file.recv(1 << 16)
        received = self._received[descriptor]
        received += data
        if not data or len(received) > _MAX_REPORT_BYTES:
            number = self._selector.get_key(file).data
            log = (self._site.folder / f"boxes-{number}.log").read_text()[-2000:]
            raise LabError(f"a process of boxes ended:\n{log}")
        *lines, rest = bytes(received).split(b"\n")
        received[:] = rest
        for line in lines:
            report = json.loads(line)
            self.handshakes_s += report.pop("handshake_s")
            self._last[descriptor] = report

    def _order(self, order: Mapping[str, Any]) -> None:
        for _process, control in self._processes:
            control.sendall(json.dumps(order).encode() + b"\n")

    def _end(self) -> None:
        for _process, control in self._processes:
            with contextlib.suppress(OSError):
                control.close()
        for process, _control in self._processes:
            end(process)
        self._selector.close()


class Observer:
    """Looks at the store all the time and notes when each alert came to stand in it.

    Attributes:
        latencies_ms: From the moment the box met the threat until a look at the store showed it.
        stored: How many alerts the store shows.
    """

    def __init__(self, site: FleetSite) -> None:
        self._engine = site.engine
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._latencies_ms: list[float] = []
        self._newest = 0
        self._trouble = ""

    @contextlib.contextmanager
    def looking(self) -> Iterator[Self]:
        """Look as long as the context lasts."""
        thread = threading.Thread(target=self._look_on, name="observer", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(10)

    @property
    def stored(self) -> int:
        """How many alerts have been seen.

        Raises:
            LabError: The store does not answer.
        """
        if self._trouble:
            raise LabError(f"the store does not answer: {self._trouble}")
        with self._lock:
            return len(self._latencies_ms)

    def latencies_ms(self, since: int = 0) -> list[float]:
        """Return how long each alert took, from the `since`-th on."""
        with self._lock:
            return self._latencies_ms[since:]

    def _look_on(self) -> None:
        try:
            while not self._stop.wait(_LOOK_EVERY_S):
                self._look()
        except Exception as err:  # noqa: BLE001 - told by `stored`
            self._trouble = str(err)[:300] or type(err).__name__

    def _look(self) -> None:
        wanted = select(Event.id, Event.at_ms).where(Event.id > self._newest, Event.kind == int(EventKind.ALERT))
        with self._engine.connect() as connection:
            rows = connection.execute(wanted.order_by(Event.id).limit(_ROWS)).all()
        now_ms = time.time() * 1000
        if rows:
            self._newest = rows[-1].id
            with self._lock:
                self._latencies_ms += [max(0.0, now_ms - row.at_ms) for row in rows]


@dataclasses.dataclass(frozen=True)
class Stored:
    """What the store holds: rows, and how many boxes they are of."""

    alerts: int
    alerting: int
    heartbeats: int
    beating: int
    states: int


def look_at_store(site: FleetSite) -> Stored:
    """Count."""
    alert = Event.kind == int(EventKind.ALERT)
    with site.engine.connect() as connection:

        def count(column: Any, *conditions: Any) -> int:
            return int(connection.execute(select(column).where(*conditions)).scalar_one())

        return Stored(
            alerts=count(func.count(Event.id), alert),
            alerting=count(func.count(Event.device_id.distinct()), alert),
            heartbeats=count(func.count(Heartbeat.id)),
            beating=count(func.count(Heartbeat.device_id.distinct())),
            states=count(func.count(State.device_id)),
        )


def look_at_parts(site: FleetSite, fleet: FleetReport) -> dict[str, Usage]:
    """Return what broker, ingest, database and the simulation have used so far."""
    parts = {name: usage(pid) for name, pid in {"broker": site.broker.pid, **site.pids}.items()}
    return {**parts, "simulation": Usage(fleet.cpu_s, 0, time.monotonic())}


def wait_until_connected(fleet: Fleet, wanted: int, *, timeout_s: float, note: Any) -> list[tuple[float, FleetReport]]:
    """Wait until so many boxes are connected; return what was seen on the way, with seconds from the beginning.

    Raises:
        NotReadyError: They were not in time.
    """
    began_s = time.monotonic()
    seen: list[tuple[float, FleetReport]] = []
    while True:
        report = fleet.report(0.5)
        seen.append((time.monotonic() - began_s, report))
        note(f"{report.connected} of {wanted} boxes connected, {report.tries} tries")
        if report.connected >= wanted:
            return seen
        if seen[-1][0] > timeout_s:
            detail = f"{report.connected} of {wanted}; failures: {dict(report.failures)}"
            raise NotReadyError("all boxes connected", timeout_s, detail=detail)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1))]
