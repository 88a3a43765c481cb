"""The clustered broker attacked from outside, with a client that is not ours, as mosquitto is in test_broker_rules.

Foreign topics, wildcards, wills, client ids, passwords; certificates that expired, were revoked, or come from
elsewhere; every door, also the services'.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator

import pytest
from cryptography.x509.oid import NameOID

from omamori_cloud.broker_files import WRITTEN_BY_BOX
from omamori_lab.cluster import AMQP_PORT, HOST, MQTT_PORT, WEBSOCKET_PORT
from sim.pki import DAY, Authority
from sim.postgres import Postgres

from .cluster_rig import BOX, GRANTED, OTHER, PREFIX, Rig, running_rig

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1500)]

EARS = tuple(f"{PREFIX}/+/{leaf}" for leaf in WRITTEN_BY_BOX)
# Each of these runs where boxes are: `host port authorities certificate key` and more; prints JSON.
HANDSHAKES = """
import json, socket, ssl, sys
host, port, ca, certificate, key = sys.argv[1:]
tickets = []
def come_in(newest, shown):
    context = ssl.create_default_context(cafile=ca)
    context.maximum_version = newest
    if shown:
        context.load_cert_chain(certificate, key)
    try:
        with context.wrap_socket(socket.create_connection((host, int(port)), 30), server_hostname=host) as door:
            door.settimeout(3)
            try:
                is_in = bool(door.recv(1))  # TLS 1.3 tells afterwards that a certificate is missing
            except TimeoutError:
                is_in = True
            tickets.append(bool(door.session and door.session.has_ticket))
            return is_in
    except (ssl.SSLError, ConnectionError):
        return False
found = [come_in(ssl.TLSVersion.TLSv1_3, True), come_in(ssl.TLSVersion.TLSv1_3, False),
         come_in(ssl.TLSVersion.TLSv1_2, True), any(tickets)]
print(json.dumps(found))
"""
AMQP = """
import json, ssl, sys
import pika
host, port, ca, certificate, key, steps = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
def run(step):
    connection = pika.BlockingConnection(pika.ConnectionParameters(
        host, int(port), ssl_options=pika.SSLOptions(context, host), blocked_connection_timeout=30,
        credentials=pika.credentials.ExternalCredentials()))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for name, options in step:
            getattr(channel, name)(**options)
    finally:
        if connection.is_open:
            connection.close()
found = []
for step in json.loads(steps):
    try:
        run(step)
        found.append("done")
    except Exception as err:
        found.append(repr(err)[:200])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("cluster"), postgres) as made:
        yield made


def test_a_box_speaks_below_its_own_name_only(rig: Rig) -> None:
    foreign = [f"{PREFIX}/{OTHER}/evt", f"{PREFIX}/{OTHER}/state", f"{PREFIX}/{BOX}/desired", f"{PREFIX}/{BOX}/cmd"]
    foreign += [f"{PREFIX}/announce/feed/demo", f"{PREFIX}/{BOX}/evt/more", f"{PREFIX}/{BOX}", "omamori/v2/x/evt"]
    foreign += ["will/of/nobody", "amq/topic", f"{PREFIX}//evt"]
    foreign += [f"{PREFIX}/{BOX}//evt", "$SYS/broker/version", "$share/ingest/omamori/v1/+/evt"]
    with rig.listening("ingest", *EARS, client_id="omamori-ears") as ears:
        for topic in foreign:
            said = rig.publish(BOX, topic, "foreign")
            assert "exit 0" not in said or "Not authorized" in said, (topic, said)
        for leaf in ("evt", "job/7"):
            said = rig.publish(BOX, f"{PREFIX}/{BOX}/{leaf}", "own")
            assert "Not authorized" not in said, said
            assert "exit 0" in said, said
        ears.wait(f"GOT {PREFIX}/{BOX}/job/7 own")
        assert ears.messages() == [f"{PREFIX}/{BOX}/evt own", f"{PREFIX}/{BOX}/job/7 own"]


def test_the_will_of_a_box_cannot_speak_for_another(rig: Rig) -> None:
    def die(owner: str, body: str) -> None:
        will = ("--will-topic", f"{PREFIX}/{owner}/state", "--will-payload", body, "--will-qos", "1")
        with rig.listening(BOX, f"{PREFIX}/{BOX}/cmd", options=will):
            pass  # killed

    with rig.listening("ingest", *EARS, client_id="omamori-ears") as ears:
        die(OTHER, "foreign will")
        die(BOX, "own will")
        ears.wait(f"GOT {PREFIX}/{BOX}/state own will")
        assert ears.messages() == [f"{PREFIX}/{BOX}/state own will"]


def test_a_box_hears_what_is_for_it_and_nothing_else(rig: Rig) -> None:
    wide = ["#", f"{PREFIX}/#", f"{PREFIX}/+/desired", f"{PREFIX}/{OTHER}/desired", f"{PREFIX}/{OTHER}/cmd"]
    wide += [f"{PREFIX}/+/evt", f"{PREFIX}/{BOX}/#", f"{PREFIX}/{BOX}/evt", "$share/x/omamori/v1/+/evt", "+/+/+/+"]
    for topic in wide:
        said = rig.listen(BOX, topic)
        assert not GRANTED.search(said), (topic, said)
    node = rig.cluster.nodes[0]
    assert "exit 0" in rig.publish("publisher", f"{PREFIX}/{BOX}/desired", "mine", "-r", at=node)
    assert "exit 0" in rig.publish("publisher", f"{PREFIX}/announce/feed/demo", "for all", "-r", at=node)
    for topic, body in ((f"{PREFIX}/{BOX}/desired", "mine"), (f"{PREFIX}/announce/feed/demo", "for all")):
        assert GRANTED.search(rig.listen(BOX, topic, until=f"GOT {topic} {body}", at=node))


def test_nobody_is_somebody_else(rig: Rig) -> None:
    topic = f"{PREFIX}/{BOX}/evt"
    for options in (("-u", "ingest", "-P", "x"), ("-u", "publisher", "-P", "x"), ("-u", OTHER, "-P", "x"), ("-u", "x")):
        assert "exit 0" not in rig.publish(BOX, topic, "as somebody else", *options), options
    with rig.listening(BOX, f"{PREFIX}/{BOX}/cmd") as victim:
        assert "exit 0" not in rig.publish(OTHER, f"{PREFIX}/{OTHER}/evt", "id of another", client_id=BOX)
        assert "exit 0" not in rig.publish("ingest", f"{PREFIX}/{OTHER}/evt", "id of a box", client_id=BOX)
        assert "exit 0" in rig.publish("publisher", f"{PREFIX}/{BOX}/cmd", "still there")
        victim.wait("still there")
        assert "DISCONNECT (" not in victim.said()
    assert "exit 0" not in rig.publish(BOX, topic, "no name of its own", client_id="x")
    for name in ("stranger", "Ingest", "guest", "ZA3", "za35-000001"):
        certificate = rig.service.issue(name)
        rig.identity(f"x{name}", certificate)
        assert "exit 0" not in rig.publish(f"x{name}", topic, "nobody", client_id=name), name


def test_the_operator_ends_a_box_s_connection_from_another_node(rig: Rig) -> None:
    """As `omamori-ota revoke` does: by taking over its client id, which no box can."""
    here, there, _third = rig.cluster.nodes
    with rig.listening(BOX, f"{PREFIX}/{BOX}/cmd", at=here) as box:
        assert "exit 0" in rig.publish("publisher", f"{PREFIX}/{BOX}/cmd", "farewell", at=there, client_id=BOX)
        box.wait("eceived DISCONNECT (142)")  # session taken over


def test_certificates_of_strangers_and_old_ones_are_refused(rig: Rig) -> None:
    now = dt.datetime.now(dt.UTC)
    same_name = rig.devices.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    bad = {
        "S1": Authority(str(same_name)).issue(BOX),
        "S2": rig.devices.issue(BOX, begins=now - 100 * DAY, life=99 * DAY),
        "S3": rig.devices.issue(BOX, begins=now + DAY),
        "S4": rig.devices.issue(BOX, client=False),  # a server's
    }
    for name, issued in bad.items():
        rig.identity(name, issued)
        assert "exit 0" not in rig.publish(name, f"{PREFIX}/{BOX}/evt", "nobody", client_id=BOX), name


def test_a_revoked_certificate_is_refused_from_then_on(rig: Rig) -> None:
    issued, node = rig.devices.issue(BOX), rig.cluster.nodes[1]
    rig.identity("R1", issued)
    for is_revoked in (False, True):
        said = rig.publish("R1", f"{PREFIX}/{BOX}/evt", "was I revoked?", at=node, client_id=BOX)
        assert ("exit 0" not in said) is is_revoked, said
        rig.revoke(issued)
        node.revoke(rig.lists)
    assert "exit 0" in rig.publish(BOX, f"{PREFIX}/{BOX}/evt", "another certificate", at=node)


def test_services_do_their_own_work_only(rig: Rig) -> None:
    for leaf in ("desired", "cmd", "evt"):
        said = rig.publish("ingest", f"{PREFIX}/{BOX}/{leaf}", "forged", client_id="omamori-x")
        assert "received CONNACK (0)" in said, said  # it is what it says that is refused
        assert "exit 0" not in said or "Not authorized" in said, said
    for topic in (f"{PREFIX}/+/evt", "#", f"{PREFIX}/{BOX}/desired"):
        said = rig.listen("publisher", topic)
        assert not GRANTED.search(said), (topic, said)
        assert "Subscribed (mid: 1): 135" in said
    # `revoke` looks in this way whether its connection lives.
    assert GRANTED.search(rig.listen("publisher", f"{PREFIX}/announce/witness"))


@pytest.mark.parametrize("port", [MQTT_PORT, AMQP_PORT, WEBSOCKET_PORT])
def test_no_certificate_no_tls_13_no_connection(rig: Rig, port: int) -> None:
    """Nor a ticket, with which a revoked box could resume TLS without showing its certificate."""
    certificate, key = rig.identity("ingest")
    answer = json.loads(rig.python(HANDSHAKES, HOST, str(port), str(rig.ca), str(certificate), str(key)))
    assert answer == [True, False, False, False]


def amqp(rig: Rig, name: str, *steps: list[tuple[str, dict[str, object]]]) -> list[str]:
    """Return what each of these steps, a connection with its commands, came to."""
    certificate, key = rig.identity(name)
    place = (HOST, str(AMQP_PORT), str(rig.ca), str(certificate), str(key))
    return [str(word) for word in json.loads(rig.python(AMQP, *place, json.dumps(steps)))]


def test_the_services_door_is_closed_to_boxes(rig: Rig) -> None:
    """TLS lets them shake hands there; the rules do not let them in."""
    (said,) = amqp(rig, BOX, [])
    assert "refused" in said.lower() or "NOT_ALLOWED" in said, said


def test_services_cannot_do_more_over_amqp(rig: Rig) -> None:
    spy = ("queue_declare", {"queue": "mqtt-subscription-spy", "exclusive": True})

    def bind(key: str, exchange: str = "amq.topic") -> tuple[str, dict[str, object]]:
        return ("queue_bind", {"queue": "mqtt-subscription-spy", "exchange": exchange, "routing_key": key})

    def speak(key: str, exchange: str = "amq.topic") -> tuple[str, dict[str, object]]:
        return ("basic_publish", {"exchange": exchange, "routing_key": key, "body": "forged"})

    forbidden: dict[str, list[list[tuple[str, dict[str, object]]]]] = {
        "publisher": [
            [("queue_declare", {"queue": "omamori.events", "durable": True})],
            [("queue_purge", {"queue": "omamori.events"})],
            [("queue_delete", {"queue": "omamori.events"})],
            [("exchange_declare", {"exchange": "x"})],
            [("exchange_delete", {"exchange": "amq.topic"})],
            [spy, bind("omamori.v1.*.evt")],
            [spy, bind("#")],
            [spy, bind("#", "amq.fanout")],
            [speak(f"omamori.v1.{BOX}.evt")],
            [speak("omamori.events", "")],
        ],
        "ingest": [
            [spy],
            [speak(f"omamori.v1.{BOX}.desired")],
            [speak(f"omamori.v1.{BOX}.evt")],
            [("exchange_declare", {"exchange": "x"})],
        ],
    }
    for name, steps in forbidden.items():
        for step, said in zip(steps, amqp(rig, name, *steps), strict=True):
            assert "ACCESS_REFUSED" in said, (name, step, said)
    assert amqp(rig, "publisher", [spy, bind("omamori.v1.announce.witness")]) == ["done"]
