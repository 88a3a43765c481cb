"""The link between a spool and a store, with everything between them mistreated: each event is stored exactly once.

Real on both ends: the agent's link with its spool over TLS, mosquitto with the product's settings, the cloud's ingest
and its database. Between box and broker a proxy cuts, doubles, delays, reorders and swallows packets.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import random
import signal
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.clock import SystemClock
from omamori_agent.config import LinkLimits, SpoolLimits
from omamori_agent.identity import Identity, IdentityHolder
from omamori_agent.link import LinkWorker, MQTTBroker, Road
from omamori_agent.spool import Spool
from omamori_agent.status import StatusBoard
from omamori_protocol.messages import Event, FeedAnnouncement, Heartbeat
from omamori_protocol.topics import feed_announcement
from omamori_protocol.vocabulary import EngineState, EventKind, FeedState, Severity, Slot
from sim.box import DEVICE, box_config
from sim.desired import SimulatedDesired
from sim.mosquitto import Mosquitto
from sim.mqtt_proxy import Act, Kind, MQTTProxy, Packet, Way, passing

from .agent_site import make_client
from .cloud_rig import Cloud, Pki, wait_for

SEED = 20261122
LIMITS = LinkLimits(
    connect_timeout_s=5.0,
    keepalive_s=2,
    reconnect_first_s=0.02,
    reconnect_cap_s=0.3,
    stable_after_s=0.0,
    ack_timeout_s=2.0,
    refused_first_s=0.05,
    again_first_s=0.1,
    refused_cap_s=0.5,
    will_delay_s=0,
    backlog_spread_cap_s=0.5,
    doubt_s=20.0,
)
WAIT_S = 60.0


class Rig:
    """Box, proxy, broker, cloud."""

    def __init__(self, folder: Path) -> None:
        self.pki = Pki(folder / "pki")
        self.broker = Mosquitto(folder / "broker", self.pki.service, self.pki.devices)
        self.cloud = Cloud(folder / "cloud", self.broker.service_port, self.pki)
        self.config = dataclasses.replace(box_config(folder / "box"), link=LIMITS)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(folder / "broker/tls.crt", folder / "broker/tls.key")
        certificate, key = self.pki.issue(DEVICE, self.pki.devices)
        client = ssl.create_default_context(cafile=str(self.pki.ca))
        client.load_cert_chain(certificate, key)
        self.chance = random.Random(SEED)
        self.proxy = MQTTProxy(server, client, self.broker.port, self.chance)
        self.holder = IdentityHolder()
        self.holder.set(
            Identity(device=DEVICE, key_path=key, certificate_path=certificate, begins_s=0, expires_s=2_000_000_000)
        )
        self.announced: list[int] = []
        self.put_texts: list[str] = []
        self.status = StatusBoard()
        self.spool = Spool(self.config.paths.spool, SpoolLimits(kept_events=200), SystemClock())
        self.spool.open()
        self._folder = folder

    def start_box(self) -> None:
        road = Road("localhost", self.proxy.port)
        self.worker = LinkWorker(
            config=self.config,
            broker=MQTTBroker([road], str(self.pki.ca), LIMITS),
            holder=self.holder,
            spool=self.spool,
            status=self.status,
            clock=SystemClock(),
            on_announcement=self.announced.append,
            desired=SimulatedDesired(),
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.worker.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def stop_box(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def put(self, count: int = 2) -> None:
        events = []
        for _ in range(count):
            text = f"event {len(self.put_texts)}"
            self.put_texts.append(text)
            severity = Severity(1 + len(self.put_texts) % 3)
            at_ms = time.time_ns() // 1_000_000
            events.append(Event(boot=0, seq=0, at_ms=at_ms, kind=EventKind.SYSTEM, severity=severity, text=text))
        self.spool.put(events)

    def announce(self, serial: int) -> None:
        """Send something to the box; it need not arrive, a later one will."""
        if not hasattr(self, "_publisher"):
            self._publisher = make_client(
                "publisher", self._folder, self.pki.service, self.pki.service.issue("publisher")
            )
            self._publisher.connect("localhost", self.broker.service_port)
            self._publisher.loop_start()
        payload = FeedAnnouncement(serial=serial).encode()
        self._publisher.publish(feed_announcement("demo"), payload, qos=1, retain=True)

    def stored(self) -> collections.Counter[str]:
        with contextlib.closing(sqlite3.connect(self.cloud.folder / "state/cloud.db", timeout=30)) as database:
            return collections.Counter(dict(database.execute("SELECT text, count(*) FROM events GROUP BY text")))

    def waits(self) -> int:
        status = self.spool.status()
        return status.events + status.again

    def settle(self, what: str) -> None:
        """Wait until everything put so far is stored, and check that nothing is stored twice."""
        wait_for(lambda: self.waits() == 0, f"an empty spool after {what}", within_s=WAIT_S)
        wait_for(lambda: len(self.stored()) >= len(self.put_texts), f"the store after {what}", within_s=WAIT_S)
        assert self.stored() == collections.Counter(self.put_texts), what

    def close(self) -> None:
        if hasattr(self, "_publisher"):
            self._publisher.disconnect()
            self._publisher.loop_stop()
        self.stop_box()
        self.spool.close()
        self.cloud.close()
        self.broker.stop()


@pytest.fixture(scope="module")
def only_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    one = Rig(tmp_path_factory.mktemp("torture"))
    one.broker.start()
    one.cloud.start()
    with one.proxy:
        one.start_box()
        yield one
        one.proxy.plan = passing
        one.close()


@pytest.fixture
def rig(only_rig: Rig) -> Rig:
    """The one rig of this file, in peace: what was stored before a test counts in it too."""
    only_rig.proxy.plan = passing
    only_rig.proxy.seen.clear()
    only_rig.announced.clear()
    wait_for(lambda: only_rig.status.get().connected, "a connection")
    return only_rig


class Once:
    """A plan: one packet is mistreated, everything else passes."""

    def __init__(self, way: Way, kind: Kind, act: Act) -> None:
        self._wanted = (way, kind)
        self._act = act
        self.happened = threading.Event()

    def __call__(self, packet: Packet) -> Act:
        if self.happened.is_set() or (packet.way, packet.kind) != self._wanted:
            return Act.PASS
        self.happened.set()
        return self._act


UP = (Kind.CONNECT, Kind.PUBLISH, Kind.PUBACK, Kind.SUBSCRIBE, Kind.PINGREQ)
DOWN = (Kind.CONNACK, Kind.PUBLISH, Kind.PUBACK, Kind.SUBACK, Kind.PINGRESP)
OPENING = {Kind.CONNECT, Kind.CONNACK, Kind.SUBSCRIBE, Kind.SUBACK}


def test_connection_killed_at_every_kind_of_packet(rig: Rig) -> None:
    serial = 100
    for way, kinds in ((Way.UP, UP), (Way.DOWN, DOWN)):
        for kind in kinds:
            for act in (Act.CUT_BEFORE, Act.CUT_INSIDE, Act.CUT_AFTER):
                what = f"{act.name} {kind.name} {way}"
                plan = Once(way, kind, act)
                rig.proxy.plan = plan
                rig.put()
                if kind in OPENING:
                    rig.worker.reconnect()
                if (way, kind) in {(Way.DOWN, Kind.PUBLISH), (Way.UP, Kind.PUBACK)}:
                    serial += 1
                    rig.announce(serial)
                wait_for(plan.happened.is_set, what, within_s=WAIT_S)
                rig.put()
            rig.settle(f"cuts at {kind.name} {way}")
    wait_for(lambda: rig.announced and rig.announced[-1] == serial, "the last announcement")
    for act in (Act.CUT_BEFORE, Act.CUT_INSIDE, Act.CUT_AFTER):
        plan = Once(Way.UP, Kind.DISCONNECT, act)
        rig.proxy.plan = plan
        wait_for(lambda: rig.status.get().connected, "a connection to leave")
        rig.stop_box()
        wait_for(plan.happened.is_set, f"{act.name} DISCONNECT")
        rig.put()
        rig.start_box()
        rig.settle(f"{act.name} DISCONNECT")


def test_doubled_delayed_and_reordered_packets(rig: Rig) -> None:
    plans = {
        "doubled publications": lambda p: Act.TWICE if (p.way, p.kind) == (Way.UP, Kind.PUBLISH) else Act.PASS,
        "doubled acknowledgements": lambda p: Act.TWICE if (p.way, p.kind) == (Way.DOWN, Kind.PUBACK) else Act.PASS,
        "late acknowledgements": lambda p: Act.HOLD if (p.way, p.kind) == (Way.DOWN, Kind.PUBACK) else Act.PASS,
        "reordered publications": lambda p: Act.HOLD if (p.way, p.kind) == (Way.UP, Kind.PUBLISH) else Act.PASS,
        "doubled announcements": lambda p: Act.TWICE if (p.way, p.kind) == (Way.DOWN, Kind.PUBLISH) else Act.PASS,
    }
    for serial, (what, plan) in enumerate(plans.items(), start=1):
        rig.proxy.plan = plan
        rig.put(60)
        rig.announce(serial)
        rig.settle(what)
        wait_for(lambda serial=serial: serial in rig.announced, f"the announcement during {what}")


def test_half_open_connections_are_noticed(rig: Rig) -> None:
    for way, kind in (
        (Way.UP, Kind.PUBLISH),
        (Way.DOWN, Kind.PUBACK),
        (Way.UP, Kind.PINGREQ),
        (Way.DOWN, Kind.CONNACK),
    ):
        plan = Once(way, kind, Act.SILENCE)
        rig.proxy.plan = plan
        if kind is not Kind.PINGREQ:
            rig.put()
        if kind is Kind.CONNACK:
            rig.worker.reconnect()
        wait_for(plan.happened.is_set, f"silence from {kind.name} on", within_s=WAIT_S)
        rig.put()
        rig.settle(f"silence from {kind.name} on")


def test_broker_restarts_with_and_without_its_memory(rig: Rig) -> None:
    """The cloud is away each time, so that what is acknowledged exists in box and broker only."""
    for memory, end in (("kept", rig.broker.stop), ("kept", rig.broker.kill), ("lost", rig.broker.kill)):
        what = f"{end.__name__}, memory {memory}"
        rig.put(30)
        rig.settle(f"before {what}")
        rig.cloud.stop(signal.SIGKILL)  # its session stays, but nothing is fetched
        rig.put(30)
        wait_for(lambda: rig.spool.status().events == 0, f"acknowledgements before {what}", within_s=WAIT_S)
        end()
        if memory == "lost":
            (rig.broker.files.state / "mosquitto.db").unlink()
        rig.put(10)
        rig.broker.start()
        rig.cloud.start()
        rig.settle(what)


def test_heartbeat_is_small_on_the_wire(rig: Rig) -> None:
    """With everything around it: MQTT, TLS 1.3, TCP and IPv4 without options."""
    heartbeat = Heartbeat(
        boot=1000,
        seq=1_000_000,
        sent_s=1_800_000_000,
        uptime_s=10_000_000,
        firmware="2026.11.1",
        slot=Slot.B,
        feed_serial=20_000,
        feed_state=FeedState.ACTIVE,
        engine=EngineState.INSPECTING,
        agent_rss_kib=45_000,
        memory_available_kib=600_000,
        spool_depth=0,
        uninspected_s=100_000,
        inspected_packets=2**40,
        bypassed_packets=2**40,
        blocked_packets=2**20,
        busy_permille=250,
    ).encode()
    for number in range(1, 4):
        rig.worker.offer_heartbeat(heartbeat)
        wait_for(lambda number=number: len(heartbeats(rig)) == number, "a heartbeat")
    first, *later = [len(packet.data) + 22 + 40 for packet in heartbeats(rig)]
    print(f"{len(heartbeat)} bytes, on the wire {first}, later {later}")
    assert later[0] == later[1] < first
    assert later[0] <= 200


def heartbeats(rig: Rig) -> list[Packet]:
    return [packet for packet in rig.proxy.seen if packet.kind is Kind.PUBLISH and packet.data[0] & 0x06 == 0]


def test_everything_at_random(rig: Rig) -> None:
    """Some seconds of all faults, with a seed."""
    chance = rig.chance
    acts = (Act.CUT_BEFORE, Act.CUT_INSIDE, Act.CUT_AFTER, Act.TWICE, Act.HOLD)
    faults: collections.Counter[str] = collections.Counter()

    def plan(packet: Packet) -> Act:
        if chance.random() > 0.06:
            return Act.PASS
        act = chance.choice(acts)
        faults[act.name] += 1
        return act

    rig.proxy.plan = plan
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        rig.put(chance.randrange(1, 12))
        time.sleep(chance.random() * 0.1)
        if chance.random() < 0.03:
            rig.worker.reconnect()
    rig.proxy.plan = passing
    rig.settle("everything")
    print(f"{len(rig.put_texts)} events, {dict(faults)}, {len(rig.proxy.seen)} packets")
