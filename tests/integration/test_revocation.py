"""A revoked box is off a real broker at once and stays off, until it has a new claim and a new key."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from omamori_ota import cli, keys, pki
from omamori_ota.boxes import new_claim
from omamori_ota.broker import BrokerAddress, end_connection
from omamori_ota.clock import system_clock
from omamori_ota.enrolment import Enrolment
from omamori_ota.errors import EnrolmentRefusedError, SetupError
from omamori_ota.keys import DEVICE_CA, SERVICE_CA
from omamori_ota.registry import Registry
from omamori_ota.revocation import publish_lists
from omamori_ota.roles import Lifetimes
from sim.mosquitto import Mosquitto
from sim.pki import Authority, Issued

from .cloud_rig import wait_for

BOX, OTHER = "ZA35-000001", "ZA35-000002"
KEEPALIVE_S = 60
TEMPLATE = {
    "format": 1,
    "enrolment_url": "https://enrol.example.com:8443",
    "broker": {"host": "broker.example.com", "port": 8883},
    "repository_url": "https://repo.example.com",
    "channel": "demo",
}


@dataclasses.dataclass
class Box:
    """A box's connection with the agent's settings, which comes back by itself."""

    client: mqtt.Client
    context: ssl.SSLContext
    events: list[str]

    @property
    def is_on(self) -> bool:
        return self.client.is_connected()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Site:
    """Operator, register and broker of one place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = keys.init(folder / "keys", system_clock, Lifetimes())
        self.registry = Registry(folder / "boxes.db", self.keys.authority_certificate(DEVICE_CA))
        self.enrolment = Enrolment(self.registry, *self.keys.authority(DEVICE_CA), system_clock)
        self.lists = folder / "revoked.pem"
        publish_lists(self.keys, self.registry, system_clock, self.lists)
        pki.issue_client(self.keys, folder / "publisher", "publisher", system_clock)
        (folder / "template.json").write_text(json.dumps(TEMPLATE))
        service, devices = (Authority.of(*self.keys.authority(name)) for name in (SERVICE_CA, DEVICE_CA))
        self.broker = Mosquitto(folder / "broker", service, devices, revoked=self.lists)
        self.broker.start()
        assert self.broker.files.pid_file is not None
        self.pid_file = self.broker.files.pid_file
        self.boxes: list[Box] = []

    def register(self, serial: str) -> str:
        claim = new_claim()
        with self.registry.changing() as change:
            change.add(serial, claim, system_clock())
        return claim

    def enrol(self, serial: str, claim: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        return self.enrolment.enrol(serial, claim, request(serial, key)).certificate

    def context(self, issued: Issued) -> ssl.SSLContext:
        name = f"{issued.certificate.serial_number:x}"
        issued.write(self.folder / f"{name}.key", self.folder / f"{name}.crt")
        context = ssl.create_default_context(cafile=str(self.keys.path / "trust/service-ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def connect(self, issued: Issued, serial: str) -> Box:
        events: list[str] = []
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=serial, protocol=mqtt.MQTTv5)
        context = self.context(issued)
        client.tls_set_context(context)
        client.reconnect_delay_set(1, 1)
        client.on_disconnect = lambda *_facts: events.append("ended")
        client.on_connect_fail = lambda *_facts: events.append("refused")
        client.connect_async("localhost", self.broker.port, keepalive=KEEPALIVE_S)
        client.loop_start()
        box = Box(client, context, events)
        self.boxes.append(box)
        return box

    def command(self, word: str, *more: str) -> int:
        return cli.main([word, str(self.keys.path), str(self.folder / "boxes.db"), *more])

    def revoke(self, serial: str) -> int:
        told = ("--crl", str(self.lists), "--broker-pid", str(self.pid_file), "--broker", self.services_port)
        return self.command(
            "revoke", serial, "--reason", "stolen", *told, "--tls-dir", str(self.folder / "publisher"), "--json"
        )

    @property
    def services_port(self) -> str:
        return f"mqtts://localhost:{self.broker.service_port}"

    def close(self) -> None:
        for box in self.boxes:
            box.close()
        self.broker.stop()


def request(serial: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.encodebytes(signed.public_bytes(Encoding.DER))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.close()


def raw_connection(site: Site, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession]:
    """Connect by hand; returns whether the TLS session was resumed, and the session for the next time."""
    plain = socket.create_connection(("localhost", site.broker.port), timeout=20)
    with context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
        body = b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x"
        secure.sendall(bytes([0x10, len(body)]) + body)
        if not secure.recv(16).startswith(b"\x20"):
            raise ConnectionError("no CONNACK")
        found = secure.session
        assert found is not None
        return bool(secure.session_reused), found


def test_revoked_box_is_off_within_a_keep_alive_and_stays_off(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    claim = site.register(BOX)
    key = ec.generate_private_key(ec.SECP256R1())
    issued = Issued(key, site.enrol(BOX, claim, key))
    # What a thief would keep: a ticket with which TLS is resumed without showing a certificate.
    context = site.context(issued)
    _, ticket = raw_connection(site, context, None)
    is_resumed, ticket = raw_connection(site, context, ticket)
    assert is_resumed
    other_key = ec.generate_private_key(ec.SECP256R1())
    other_claim = site.register(OTHER)
    other = site.connect(Issued(other_key, site.enrol(OTHER, other_claim, other_key)), OTHER)
    box = site.connect(issued, BOX)
    wait_for(lambda: box.is_on and other.is_on, "both boxes on line")

    began = time.monotonic()
    assert site.revoke(BOX) == 0
    wait_for(lambda: "ended" in box.events, "the end of the box's connection")
    assert time.monotonic() - began < KEEPALIVE_S
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"serial": BOX, "reason": "stolen", "certificates": 1, "ended": True}

    tries = len(box.events)
    wait_for(lambda: len(box.events) >= tries + 2, "two more tries")
    assert not box.is_on
    with pytest.raises((ssl.SSLError, ConnectionError)):
        raw_connection(site, context, None)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        raw_connection(site, context, ticket)
    assert other.is_on
    assert other.events == []

    for ask in (
        lambda: site.enrolment.enrol(BOX, claim, request(BOX, key)),
        lambda: site.enrolment.renew(issued.certificate, request(BOX, key)),
    ):
        with pytest.raises(EnrolmentRefusedError) as refused:
            ask()
        assert (refused.value.status, refused.value.cause) == (403, "revoked")
    assert site.revoke(BOX) == 0  # again does no harm
    assert json.loads(capsys.readouterr().out)["certificates"] == 0


def test_box_comes_back_with_a_new_claim_and_a_new_key_only(site: Site) -> None:
    claim = site.register(BOX)
    old = ec.generate_private_key(ec.SECP256R1())
    site.enrol(BOX, claim, old)
    assert site.revoke(BOX) == 0
    out = site.folder / "provision.json"
    template = str(site.folder / "template.json")
    words = [str(site.keys.path), str(site.folder / "boxes.db"), BOX, "--provision-template", template]
    assert cli.main(["claim", "renew", *words, "--out", str(out)]) == 0
    claim = json.loads(out.read_text())["claim"]
    with pytest.raises(EnrolmentRefusedError) as refused:
        site.enrol(BOX, claim, old)
    assert (refused.value.status, refused.value.cause) == (409, "key-revoked")
    new = ec.generate_private_key(ec.SECP256R1())
    box = site.connect(Issued(new, site.enrol(BOX, claim, new)), BOX)
    wait_for(lambda: box.is_on, "the box with its new key")


def test_boxes_port_is_noticed_instead_of_doing_nothing(site: Site) -> None:
    address = BrokerAddress.parse(f"mqtts://localhost:{site.broker.port}", site.folder / "publisher")
    with pytest.raises(SetupError, match="id of our certificate"):
        end_connection(address, BOX)


def test_revocation_without_the_list_does_not_touch_the_broker(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.register(BOX)
    place = ("--broker", site.services_port, "--tls-dir", str(site.folder / "publisher"))
    assert site.command("revoke", BOX, "--reason", "retired", *place) == 1
    assert "--crl" in capsys.readouterr().err
    box = site.registry.find(BOX)
    assert box is not None
    assert box.revoked_at is None


def test_two_revocations_in_one_second_both_count(site: Site) -> None:
    """mosquitto keeps the lists that it has read, and of two of one second it would believe the first."""
    found = []
    for serial in (BOX, OTHER):
        key = ec.generate_private_key(ec.SECP256R1())
        found.append(site.context(Issued(key, site.enrol(serial, site.register(serial), key))))
    for context in found:
        raw_connection(site, context, None)
    for serial in (BOX, OTHER):
        told = ("--crl", str(site.lists), "--broker-pid", str(site.pid_file))
        assert site.command("revoke", serial, "--reason", "stolen", *told) == 0

    def are_out() -> bool:
        for context in found:
            try:
                raw_connection(site, context, None)
            except (ssl.SSLError, ConnectionError):
                continue
            return False
        return True

    wait_for(are_out, "both boxes to be refused")
