"""One simulated box: the agent's own link, spool, heartbeat and status, without the parts that touch a network.

What it says about itself is made up (the gate's counters, the feed) or this machine's (memory, processor time); how it
says it is the agent's doing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from omamori_agent.clock import SystemClock
from omamori_agent.config import AgentConfig, Paths, Release, SpoolLimits
from omamori_agent.gate import Count
from omamori_agent.gate.layout import Counter
from omamori_agent.heartbeat import HeartbeatWorker
from omamori_agent.identity import Identity, IdentityHolder
from omamori_agent.spool import Spool
from omamori_agent.status import Status, StatusBoard
from omamori_protocol.messages import Event
from omamori_protocol.provision import Provision
from omamori_protocol.vocabulary import (
    Action,
    Direction,
    EngineState,
    EventKind,
    FeedState,
    Function,
    Severity,
    Slot,
)

from .fleet_hub import Hub, HubWaker
from .fleet_link import FleetBroker, FleetLink, FleetRoad, Tally, Turns

FIRMWARE = "2026.11.12"
_FEED = 4711
_PUT_EVERY_S = 0.1  # an alert waits at most this long for others, as the engine's reader does
_RELEASE = Release(
    version=FIRMWARE, flavour="release", board="x86_64-uefi", model="ZA-SA3500N", build_time=0, kernel="6.12.0"
)
# The reserve is disk that a full box gives up; ten thousand of them would fill this machine's memory.
_SPOOL = SpoolLimits(reserve_bytes=0)


class _Counters:
    """The gate of a box that has been up for weeks."""

    def __init__(self) -> None:
        self._packets = random.randrange(10**8, 10**10)  # noqa: S311 - no secret

    def counters(self) -> Mapping[Counter, Count]:
        """Return counters that grow."""
        self._packets += random.randrange(100, 60_000)  # noqa: S311 - no secret
        shares = {Counter.INSPECTED: 20, Counter.BYPASSED: 1, Counter.BLOCKED: 50_000}
        return {counter: Count(self._packets // share, 0) for counter, share in shares.items()}


class _NoOrders:
    """Nobody orders anything: the link's `DesiredPort`."""

    def offer_document(self, signed: bytes) -> None:
        """Ignore it."""

    def offer_command(self, signed: bytes) -> None:
        """Ignore it."""

    def reported(self) -> bytes | None:
        """Return no report."""
        return None

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Never call it."""


class FleetBox:
    """A box; nothing happens before `start`.

    Args:
        device: Its id.
        home: Its own directory, which exists; the spool lives there.
        identity: Its key and certificate.
        service_ca: Who signed the broker's certificate.
        road: To the broker.
        heartbeat_s: Between two heartbeats.
        tally: Where it counts.
        handshakes: When it may connect.
    """

    def __init__(
        self,
        device: str,
        home: Path,
        identity: Identity,
        *,
        service_ca: Path,
        road: FleetRoad,
        heartbeat_s: float,
        tally: Tally,
        handshakes: Turns,
    ) -> None:
        self._hub: Hub = road.hub
        self._tally = tally
        self._stop = threading.Event()
        self._connected = False
        self._beats = 0
        self._alerts = 0
        nowhere = "https://localhost:1"
        provision = Provision(
            serial=device,
            claim="A" * 26,
            enrolment_url=nowhere,
            broker_host=road.host,
            broker_port=road.port,
            repository_url=nowhere,
            channel="demo",
        )
        config = AgentConfig(
            provision=provision, release=_RELEASE, slot=Slot.A, paths=Paths(), spool=_SPOOL, heartbeat_s=heartbeat_s
        )
        self._config = config
        clock = SystemClock()
        self._clock = clock
        self._spool = Spool(home, config.spool, clock)
        status = StatusBoard()
        status.update(engine=EngineState.INSPECTING, feed_serial=_FEED, feed_state=FeedState.ACTIVE)
        holder = IdentityHolder()
        holder.set(identity)
        self._link = FleetLink(
            self._hub,
            config=config,
            broker=FleetBroker(road, str(service_ca), config.link, tally=tally, handshakes=handshakes),
            holder=holder,
            spool=self._spool,
            status=status,
            clock=clock,
            on_announcement=lambda _serial: None,
            desired=_NoOrders(),
            waker=HubWaker(self._hub),
        )
        self._heartbeat = HeartbeatWorker(
            config=config, spool=self._spool, status=status, gate=_Counters(), clock=clock, offer=lambda _payload: None
        )
        status.subscribe(self._on_status)

    def start(self) -> None:
        """Open the spool and connect, again and again."""
        self._spool.open()
        self._hub.start(lambda: self._link.run(self._stop))

    def stop(self) -> None:
        """Let the link end without a word, as a box does whose power is gone."""
        self._stop.set()

    def close(self) -> None:
        """Close the spool."""
        self._spool.close()

    @property
    def waiting(self) -> int:
        """How many events the broker has not acknowledged."""
        return self._spool.status().events

    def raise_alerts(self, count: int, seconds: float) -> None:
        """Meet so many threats, evenly within so many seconds from now on."""
        rounds = max(1, min(count, round(seconds / _PUT_EVERY_S)))
        for number in range(rounds):
            share = count * (number + 1) // rounds - count * number // rounds
            self._hub.call_later(number * seconds / rounds, lambda share=share: self._put(share))  # type: ignore[misc]

    def _put(self, count: int) -> None:
        at_ms = int(self._clock.now() * 1000)
        self._spool.put([self._alert(at_ms) for _ in range(count)])
        self._tally.alerts += count

    def _alert(self, at_ms: int) -> Event:
        self._alerts += 1
        return Event(
            boot=0,
            seq=0,
            at_ms=at_ms,
            kind=EventKind.ALERT,
            severity=Severity.TWO,
            function=Function.DANGEROUS_SITE,
            direction=Direction.OUT,
            action=Action.BLOCKED,
            terminal_ip=f"192.168.10.{self._alerts % 200 + 1}",
            terminal_mac=bytes.fromhex("02005e100001"),
            destination=f"host{self._alerts % 977}.phishing.test",
            remote_ip="203.0.113.80",
            remote_port=443,
            protocol="tls",
            rule_id=9_000_012,
            rule="Omamori dangerous site (TLS SNI)",
        )

    def _on_status(self, status: Status) -> None:
        """Count, and begin with heartbeats at each connection, as `HeartbeatWorker.run` does."""
        if status.connected == self._connected:
            return
        self._connected = status.connected
        self._tally.connected += 1 if status.connected else -1
        self._beats += 1  # those of the connection before end
        if status.connected:
            self._tally.connects += 1
            self._beat(self._beats)

    def _beat(self, series: int) -> None:
        if series == self._beats:
            self._link.offer_heartbeat(self._heartbeat.compose().encode())
            self._hub.call_later(self._config.heartbeat_s, lambda: self._beat(series))
