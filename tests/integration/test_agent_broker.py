"""The agent as a process against a real broker and an enrolment server: identity, presence, events exactly once.

Events enter where the engine would write them, and are counted where the cloud would read them.
"""

import contextlib
import json
import ssl
import subprocess  # noqa: TID251 - the agent is a process to kill here
import sys
import threading
import time
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from omamori_protocol.messages import FeedAnnouncement
from omamori_protocol.topics import Leaf, device_topic, feed_announcement
from omamori_protocol.vocabulary import EventKind, Presence
from sim.box import CLAIM, DEVICE
from sim.enrolment import SimulatedEnrolment
from sim.mosquitto import Mosquitto
from sim.pki import Authority

from .agent_site import Cloud, Site, eventually, make_client


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
    for starts in (1, 2):
        site.start()
        eventually(lambda starts=starts: len({item.boot for item in cloud.heartbeats}) == starts, what=site.log)
        assert site.stop()[0] == 0
    first, second = sorted({item.boot for item in cloud.heartbeats})
    assert second == first + 1
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
    allowed = broker.files.access_list_path.read_text()
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
