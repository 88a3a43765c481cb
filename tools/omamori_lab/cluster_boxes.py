"""A process with a handful of boxes at a broker that has several nodes: `python -m omamori_lab.cluster_boxes PLAN`.

Each box is the agent's own link with its own spool and certificate, in its own thread; it finds a node by the broker's
name, as a real one does. What becomes of them is written to the plan's report file, again and again; SIGTERM ends all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omamori_agent.clock import SystemClock
from omamori_agent.config import AgentConfig, LinkLimits, Paths, Release, SpoolLimits
from omamori_agent.identity import Identity, IdentityHolder
from omamori_agent.link import LinkWorker, MQTTBroker, Road
from omamori_agent.link.websocket import WebSocket
from omamori_agent.spool import Spool
from omamori_agent.status import StatusBoard
from omamori_protocol.durable import write_atomic
from omamori_protocol.messages import Event, Heartbeat
from omamori_protocol.provision import Provision
from omamori_protocol.vocabulary import EngineState, EventKind, FeedState, Severity, Slot

_REPORT_S = 0.25
_EVENTS_PER_HEARTBEAT = 10
_RELEASE = Release(
    version="2026.11.12", flavour="release", board="x86_64-uefi", model="ZA-SA3500N", build_time=0, kernel="6.12.0"
)
# Quicker than a real box, so that a test need not wait for the back-off of a bad line.
_LIMITS = LinkLimits(
    keepalive_s=10, reconnect_first_s=0.3, reconnect_cap_s=3.0, ack_timeout_s=20.0, backlog_spread_cap_s=5.0
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxesPlan:
    """What the process is made from.

    Attributes:
        devices: Ids of the boxes; ``<id>.key`` and ``<id>.crt`` lie in `identities`.
        identities: See above.
        homes: Where each box has its spool.
        service_ca: Who signed the broker's certificate.
        host: The broker's name.
        port: Its port.
        websocket_port: Every other box comes as a WebSocket to this one.
        events: How many each box has to tell, ``<id> <number>``.
        every_s: Seconds between two events of a box.
        report: File with the newest report.
    """

    devices: Sequence[str]
    identities: str
    homes: str
    service_ca: str
    host: str
    port: int
    websocket_port: int
    events: int
    every_s: float
    report: str


@dataclasses.dataclass(frozen=True)
class _WatchedRoad(Road):
    """A way that tells which node it led to."""

    led_to: Callable[[str], None] = print

    def open(self, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket | WebSocket:
        sock = super().open(context, timeout_s)
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            self.led_to(str(same.getpeername()[0]))
        return sock


class _Desk:
    """The link's `DesiredPort`: remembers what came."""

    def __init__(self) -> None:
        self.documents: list[str] = []
        self.commands: list[str] = []

    def offer_document(self, signed: bytes) -> None:
        """Remember a document by its hash."""
        self.documents.append(hashlib.sha256(signed).hexdigest())

    def offer_command(self, signed: bytes) -> None:
        """Remember a command by its hash."""
        self.commands.append(hashlib.sha256(signed).hexdigest())

    def reported(self) -> bytes | None:
        """Return no report."""
        return None

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Never call it."""


class _Box:
    def __init__(self, plan: BoxesPlan, device: str, expires_s: int) -> None:
        self.device = device
        self.node = ""
        self.connections = 0
        self.put = 0
        self._plan = plan
        identities = Path(plan.identities)
        paths = Paths(Path(plan.homes) / device)
        paths.spool.mkdir(parents=True, exist_ok=True)
        clock = SystemClock()
        provision = Provision(
            serial=device,
            claim="A" * 26,
            enrolment_url="https://enrolment.invalid",
            broker_host=plan.host,
            broker_port=plan.port,
            repository_url="https://repository.invalid",
            channel="demo",
        )
        self._spool = Spool(paths.spool, SpoolLimits(reserve_bytes=0), clock)
        self._spool.open()
        self._status = StatusBoard()
        self._desk = _Desk()
        holder = IdentityHolder()
        certificate, key = identities / f"{device}.crt", identities / f"{device}.key"
        holder.set(Identity(device=device, key_path=key, certificate_path=certificate, begins_s=0, expires_s=expires_s))
        is_websocket = plan.devices.index(device) % 2 == 1
        port = plan.websocket_port if is_websocket else plan.port
        road = _WatchedRoad(plan.host, port, is_websocket, led_to=self._led_to)
        self._worker = LinkWorker(
            config=AgentConfig(provision=provision, release=_RELEASE, slot=Slot.A, paths=paths, link=_LIMITS),
            broker=MQTTBroker([road], plan.service_ca, _LIMITS),
            holder=holder,
            spool=self._spool,
            status=self._status,
            clock=clock,
            on_announcement=lambda _serial: None,
            desired=self._desk,
        )

    def run(self, stop: threading.Event) -> None:
        self._worker.run(stop)

    def tell(self, stop: threading.Event) -> None:
        """Put events into the spool, one after the other."""
        while self.put < self._plan.events and not stop.wait(self._plan.every_s):
            text = f"{self.device} {self.put}"
            severity = Severity(1 + self.put % 3)
            at_ms = time.time_ns() // 1_000_000
            self._spool.put([Event(boot=0, seq=0, at_ms=at_ms, kind=EventKind.SYSTEM, severity=severity, text=text)])
            self.put += 1
            if self.put % _EVENTS_PER_HEARTBEAT == 0:
                self._worker.offer_heartbeat(self._heartbeat())

    def _heartbeat(self) -> bytes:
        return Heartbeat(
            boot=1,
            seq=self.put,
            sent_s=int(time.time()),
            uptime_s=self.put,
            firmware=_RELEASE.version,
            slot=Slot.A,
            feed_serial=1,
            feed_state=FeedState.ACTIVE,
            engine=EngineState.INSPECTING,
            agent_rss_kib=40_000,
            memory_available_kib=400_000,
            spool_depth=0,
        ).encode()

    def report(self) -> dict[str, Any]:
        waiting = self._spool.status()
        return {
            "connected": self._status.get().connected,
            "node": self.node,
            "connections": self.connections,
            "put": self.put,
            "waiting": waiting.events + waiting.again,
            "documents": self._desk.documents,
            "commands": self._desk.commands,
        }

    def _led_to(self, node: str) -> None:
        self.node = node
        self.connections += 1


def main(arguments: Sequence[str]) -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(threadName)s %(message)s")
    plan = BoxesPlan(**json.loads(Path(arguments[0]).read_text()))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    boxes = [_Box(plan, device, int(time.time()) + 86400) for device in plan.devices]
    works = [(box.device, work) for box in boxes for work in (box.run, box.tell)]
    threads = [threading.Thread(target=work, args=(stop,), name=name) for name, work in works]
    for thread in threads:
        thread.start()
    while not stop.wait(_REPORT_S):
        write_atomic(Path(plan.report), json.dumps({box.device: box.report() for box in boxes}).encode())
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1:])
