"""The agent as a process against a real broker and an enrolment server: identity, presence, events exactly once.

Events enter where the engine would write them, and are counted where the cloud would read them.
"""

import contextlib
import json
import os
import signal
import ssl
import subprocess  # noqa: TID251 - the agent is a process to kill here
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from omamori_agent.config import Paths
from omamori_protocol.messages import Event, FeedAnnouncement, Heartbeat, State
from omamori_protocol.topics import Leaf, any_device, device_topic, feed_announcement
from omamori_protocol.vocabulary import EventKind, Presence
from sim.box import CLAIM, DEVICE, make_box
from sim.enrolment import SimulatedEnrolment, enrolment_server
from sim.mosquitto import Mosquitto
from sim.pki import Authority, Issued

SESSION_S = 3600


def eventually(condition: Callable[[], object], timeout_s: float = 30.0, what: Callable[[], str] = str) -> None:
    """Wait for a state, not for a time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"this never happened; {what()}"
        time.sleep(0.02)


class Cloud:
    """The ingest side: a session that survives, everything received in order."""

    def __init__(self, port: int, directory: Path, service_ca: Authority) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self._client = make_client("ingest", directory, service_ca, service_ca.issue("ingest"))
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_S
        self._client.connect("localhost", port, clean_start=False, properties=properties)
        self._client.loop_start()

    def _on_connect(self, client: Client, *_rest: object) -> None:
        # Events as the cloud takes them: shared between workers. "No matching subscribers" must not count those out.
        shared = f"$share/ingest/{any_device(Leaf.EVENT)}"
        client.subscribe([(shared, 1), (any_device(Leaf.STATE), 1), (any_device(Leaf.HEARTBEAT), 1)])

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload), message.retain))

    def of(self, leaf: Leaf) -> list[bytes]:
        topic = device_topic(DEVICE, leaf)
        return [payload for name, payload, _retain in list(self.received) if name == topic]

    @property
    def states(self) -> list[State]:
        return [State.decode(item) for item in self.of(Leaf.STATE)]

    @property
    def heartbeats(self) -> list[Heartbeat]:
        return [Heartbeat.decode(item) for item in self.of(Leaf.HEARTBEAT)]

    @property
    def events(self) -> list[Event]:
        """All events, repetitions included."""
        return [Event.decode(item) for item in self.of(Leaf.EVENT)]

    def stored_rules(self) -> list[int]:
        """Rule ids as the cloud stores them: once for each (boot, seq)."""
        unique = {(item.boot, item.seq): item for item in self.events if item.kind is EventKind.ALERT}
        return sorted(item.rule_id or 0 for item in unique.values())

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def make_client(name: str, directory: Path, service_ca: Authority, issued: Issued) -> Client:
    key, certificate = directory / f"{name}.key", directory / f"{name}.crt"
    issued.write(key, certificate)
    (directory / "service-ca.pem").write_bytes(service_ca.pem)
    context = ssl.create_default_context(cafile=str(directory / "service-ca.pem"))
    context.load_cert_chain(certificate, key)
    client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5)
    client.tls_set_context(context)
    return client


class Site:
    """A box's directory, the servers it talks to, and its agent."""

    def __init__(
        self, directory: Path, service_ca: Authority, device_ca: Authority, broker: Mosquitto, url: str
    ) -> None:
        self.service_ca = service_ca
        self.device_ca = device_ca
        self.broker = broker
        self.root = directory / "box"
        self.paths: Paths = make_box(self.root, enrolment_url=url, broker={"host": "localhost", "port": broker.port})
        self.paths.service_ca.write_bytes(service_ca.pem)
        (self.paths.run / "agent").mkdir()
        self._log = directory / "agent.log"
        self._agent: subprocess.Popen[bytes] | None = None
        self._next_rule = 1

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._agent = subprocess.Popen(
                [sys.executable, "-m", "omamori_agent.cli", "run", "--root", str(self.root), "--verbose"],
                stdout=log,
                stderr=log,
                env={key: value for key, value in os.environ.items() if key not in {"NOTIFY_SOCKET", "JOURNAL_STREAM"}},
            )

    def kill(self) -> None:
        """What a power cut does to the process."""
        assert self._agent is not None
        self._agent.kill()
        self._agent.wait()

    def stop(self) -> tuple[int, float]:
        """Stop in an orderly way; returns exit code and seconds."""
        assert self._agent is not None
        began = time.monotonic()
        self._agent.send_signal(signal.SIGTERM)
        code = self._agent.wait(20)
        return code, time.monotonic() - began

    def close(self) -> None:
        if self._agent is not None and self._agent.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        assert self._agent is not None
        return self._agent.pid

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-6000:]

    def console(self) -> list[str]:
        return self.paths.console.read_text().splitlines()

    def alert(self, count: int = 1) -> None:
        """Write alerts of different rules as the engine would."""
        lines = []
        for _ in range(count):
            lines.append(
                json.dumps(
                    {
                        "timestamp": "2026-11-22T01:02:03.000000+0000",
                        "flow_id": self._next_rule,
                        "event_type": "alert",
                        "src_ip": "192.168.10.11",
                        "src_port": 50000,
                        "dest_ip": "203.0.113.80",
                        "dest_port": 80,
                        "proto": "TCP",
                        "alert": {
                            "action": "blocked",
                            "signature_id": self._next_rule,
                            "signature": f"rule {self._next_rule}",
                            "severity": 1,
                        },
                    }
                )
            )
            self._next_rule += 1
        with self.paths.eve.open("a") as eve:
            eve.write("".join(line + "\n" for line in lines))

    @property
    def written_rules(self) -> list[int]:
        return list(range(1, self._next_rule))


@pytest.fixture
def authorities() -> tuple[Authority, Authority]:
    return Authority("Service CA"), Authority("Device CA")


@pytest.fixture
def broker(tmp_path: Path, authorities: tuple[Authority, Authority]) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path / "broker", *authorities)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def enrolment(tmp_path: Path, authorities: tuple[Authority, Authority]) -> Iterator[SimulatedEnrolment]:
    simulated = SimulatedEnrolment(authorities[1], {DEVICE: CLAIM})
    with enrolment_server(simulated, authorities[0], tmp_path):
        yield simulated


@pytest.fixture
def site(
    tmp_path: Path, authorities: tuple[Authority, Authority], broker: Mosquitto, enrolment: SimulatedEnrolment
) -> Iterator[Site]:
    one = Site(tmp_path, *authorities, broker, enrolment.url)
    yield one
    one.close()


@pytest.fixture
def cloud(tmp_path: Path, broker: Mosquitto, authorities: tuple[Authority, Authority]) -> Iterator[Cloud]:
    one = Cloud(broker.port, tmp_path, authorities[0])
    yield one
    one.close()


def test_from_factory_to_farewell(site: Site, cloud: Cloud, enrolment: SimulatedEnrolment) -> None:
    site.start()
    eventually(lambda: cloud.states and cloud.heartbeats, what=site.log)
    birth = cloud.states[0]
    assert birth.presence is Presence.ONLINE
    assert birth.certificate_expires_s is not None
    heartbeat = cloud.heartbeats[0]
    assert (heartbeat.boot, heartbeat.firmware) == (birth.boot, "2026.11.1")
    assert len(enrolment.requests) == 1
    assert f"omamori: enrolled device={DEVICE}" in site.console()
    eventually(lambda: any(item.kind is EventKind.SYSTEM for item in cloud.events), what=site.log)
    site.alert(3)
    eventually(lambda: cloud.stored_rules() == [1, 2, 3], what=site.log)
    code, seconds = site.stop()
    assert code == 0, site.log()
    assert seconds < 3
    eventually(lambda: cloud.states[-1].presence is Presence.OFFLINE, what=site.log)
    assert cloud.states[-1].session == birth.session
    assert CLAIM not in site.log()


def test_next_start_uses_the_stored_identity_and_the_next_boot_number(
    site: Site, cloud: Cloud, enrolment: SimulatedEnrolment
) -> None:
    for expected in (1, 2):
        site.start()
        eventually(lambda expected=expected: any(item.boot == expected for item in cloud.heartbeats), what=site.log)
        assert site.stop()[0] == 0
    assert len(enrolment.requests) == 1
    sessions = {item.session for item in cloud.states}
    assert len(sessions) == 2


def test_kill_9_makes_the_will_speak_for_the_same_session(site: Site, cloud: Cloud) -> None:
    site.start()
    eventually(lambda: cloud.states, what=site.log)
    session = cloud.states[0].session
    site.kill()
    # After the will's delay, in which a quick restart would have kept quiet about it.
    eventually(lambda: cloud.states[-1].presence is Presence.OFFLINE, what=site.log)
    assert cloud.states[-1].session == session


def test_quick_restart_after_kill_9_does_not_look_like_an_outage(site: Site, cloud: Cloud) -> None:
    site.start()
    eventually(lambda: cloud.states, what=site.log)
    site.kill()
    site.start()
    eventually(lambda: len({item.session for item in cloud.states}) == 2, what=site.log)
    time.sleep(0.3)
    assert all(item.presence is Presence.ONLINE for item in cloud.states)


def test_events_arrive_exactly_once_through_kills_and_broker_outages(
    site: Site, cloud: Cloud, broker: Mosquitto
) -> None:
    site.start()
    eventually(lambda: cloud.heartbeats, what=site.log)
    for round_number in range(3):
        site.alert(60)
        if round_number == 0:
            eventually(lambda: len(cloud.stored_rules()) >= 10, what=site.log)
        site.kill()
        site.alert(20)
        site.start()
        site.alert(20)
        enough = 60 * round_number
        eventually(lambda enough=enough: len(cloud.stored_rules()) > enough, what=site.log)
        broker.stop()
        site.alert(60)
        time.sleep(0.3)
        site.kill()
        site.alert(5)
        broker.start()
        site.start()
        eventually(lambda: cloud.stored_rules() == site.written_rules, timeout_s=60, what=site.log)
    # A number never stands for two different events.
    assert len({(item.boot, item.seq) for item in cloud.events}) == len(set(cloud.events))
    eventually(lambda: spool_depth(site) == 0, what=site.log)


def spool_depth(site: Site) -> int:
    report = subprocess.run(
        [sys.executable, "-m", "omamori_agent.cli", "status", "--json", "--root", str(site.root)],
        check=True,
        capture_output=True,
    )
    return int(json.loads(report.stdout)["spool"]["events"])


def test_events_wait_for_a_cloud_that_does_not_listen_yet(
    site: Site, broker: Mosquitto, tmp_path: Path, authorities: tuple[Authority, Authority]
) -> None:
    site.start()
    site.alert(3)
    eventually(lambda: "does not take an event (0x10" in site.log(), what=site.log)
    late = Cloud(broker.port, tmp_path, authorities[0])
    with contextlib.closing(late):
        site.kill()
        site.start()
        eventually(lambda: late.stored_rules() == [1, 2, 3], what=site.log)


def test_broker_that_refuses_events_gets_them_when_it_does_not(site: Site, cloud: Cloud, broker: Mosquitto) -> None:
    allowed = (broker._directory / "acl").read_text()
    broker.set_acl(allowed.replace("pattern write omamori/v1/%u/evt\n", ""))
    broker.reload()
    site.start()
    site.alert(2)
    eventually(lambda: "does not take an event (0x87" in site.log(), what=site.log)
    broker.set_acl(allowed)
    broker.reload()
    site.kill()
    site.start()
    eventually(lambda: cloud.stored_rules() == [1, 2], what=site.log)


def test_certificate_of_another_authority_is_refused(site: Site, cloud: Cloud, enrolment: SimulatedEnrolment) -> None:
    stranger = Authority("Device CA")
    enrolment.issue = lambda der: [stranger.issue_for_request(der)]
    site.start()
    eventually(lambda: site.log().count("not connected:") >= 2, what=site.log)
    assert cloud.states == []
    assert site.stop()[0] == 0


def test_broker_with_the_wrong_certificate_is_refused(
    tmp_path: Path, authorities: tuple[Authority, Authority], enrolment: SimulatedEnrolment
) -> None:
    service_ca, device_ca = authorities
    impostor = Mosquitto(tmp_path / "impostor", Authority("Service CA"), device_ca)
    impostor.start()
    site = Site(tmp_path, service_ca, device_ca, impostor, enrolment.url)
    try:
        site.start()
        eventually(lambda: "certificate refused" in site.log(), what=site.log)
        assert site.stop()[0] == 0
        assert "New client connected" not in impostor.log()
    finally:
        site.close()
        impostor.stop()


def test_box_reads_announcements_but_cannot_make_them(
    site: Site, cloud: Cloud, broker: Mosquitto, tmp_path: Path
) -> None:
    publisher = make_client("publisher", tmp_path, site.service_ca, site.service_ca.issue("publisher"))
    publisher.connect("localhost", broker.port)
    publisher.loop_start()
    topic = feed_announcement("demo")
    publisher.publish(topic, b"\xffnot cbor", qos=1, retain=False).wait_for_publish(10)
    site.start()
    eventually(lambda: cloud.heartbeats, what=site.log)
    publisher.publish(topic, b"\xffnot cbor", qos=1).wait_for_publish(10)
    eventually(lambda: "message dropped (1 so far)" in site.log(), what=site.log)
    publisher.publish(topic, FeedAnnouncement(serial=5).encode(), qos=1, retain=True).wait_for_publish(10)
    site.alert()
    eventually(lambda: cloud.stored_rules() == [1], what=site.log)  # still alive and well
    publisher.disconnect()
    publisher.loop_stop()

    # The box's own certificate cannot publish for others.
    identity = site.paths.identity
    context = ssl.create_default_context(cafile=str(site.paths.service_ca))
    context.load_cert_chain(identity / "device.crt", identity / "device.key")
    thief = Client(CallbackAPIVersion.VERSION2, client_id="thief", protocol=MQTTProtocolVersion.MQTTv5)
    thief.tls_set_context(context)
    reasons: list[int] = []
    done = threading.Event()

    def on_publish(_client: object, _data: object, _mid: int, reason: object, _properties: object) -> None:
        reasons.append(reason.value)  # type: ignore[attr-defined]
        if len(reasons) == 2:
            done.set()

    thief.on_publish = on_publish
    thief.connect("localhost", broker.port)
    thief.loop_start()
    thief.publish(topic, FeedAnnouncement(serial=99).encode(), qos=1)
    thief.publish(device_topic("ZA35-000002", Leaf.EVENT), b"\xa0", qos=1)
    assert done.wait(10)
    thief.disconnect()
    thief.loop_stop()
    assert reasons == [0x87, 0x87]


def test_two_hundred_events_do_not_grow_the_process(site: Site, cloud: Cloud) -> None:
    site.start()
    eventually(lambda: cloud.heartbeats, what=site.log)
    site.alert(200)
    eventually(lambda: len(cloud.stored_rules()) == 200, what=site.log)
    status = Path(f"/proc/{site.pid}/status").read_text()
    rss_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    print(f"resident memory {rss_kib} KiB")
    assert rss_kib < 64 * 1024, f"resident memory {rss_kib} KiB"
