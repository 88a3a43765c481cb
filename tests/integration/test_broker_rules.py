"""The broker's configuration attacked, and probed by a client that is not ours (mosquitto's own, in C).

Attacks: another box's topics, wildcards, other client ids, certificates that expired, were revoked, or come from
elsewhere. Probe: every feature of MQTT 5 that box and cloud rely on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import socket
import ssl
import subprocess  # noqa: TID251 - the second client is a program
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_cloud.broker_files import MAX_PACKET_BYTES
from sim.mosquitto import Mosquitto
from sim.pki import DAY, Authority, Issued

from .cloud_rig import Pki, wait_for

BOX, OTHER = "ZA35-000001", "ZA35-000002"
PREFIX = "omamori/v1"
NOBODY_LISTENS = "RC:16"  # 0x10, "no matching subscribers"; success on the surface


class Site:
    """A broker with the product's settings and lists of revoked certificates, and programs that talk to it."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("mosquitto_sub") is None:
            pytest.skip("mosquitto-clients are not installed")
        self.pki = Pki(folder / "pki")
        self.folder = folder
        self.revoked = folder / "revoked.pem"
        self.revoked.write_bytes(self.pki.service.revocation_list() + self.pki.devices.revocation_list())
        self.broker = Mosquitto(
            folder / "broker",
            self.pki.service,
            self.pki.devices,
            revoked=self.revoked,
            max_packet_bytes=MAX_PACKET_BYTES,
        )
        self._listeners: list[Listener] = []

    def certificate(self, name: str, issued: Issued | None = None) -> list[str]:
        """Return the options that make a program `name`; boxes' names are upper case."""
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        if issued is not None or not key.exists():
            authority = self.pki.devices if name[0].isupper() else self.pki.service
            (issued or authority.issue(name)).write(key, certificate)
        return ["--cafile", str(self.pki.ca), "--cert", str(certificate), "--key", str(key)]

    def _common(self, name: str, client_id: str | None) -> list[str]:
        port = self.broker.port if name[0].isupper() else self.broker.service_port
        return ["-V", "5", "-h", "localhost", "-p", str(port), *self.certificate(name), "-i", client_id or name]

    def publish(self, name: str, topic: str, text: str, *options: str, client_id: str | None = None) -> str:
        """Publish once with QoS 1; returns what the program says."""
        line = ["mosquitto_pub", "-d", *self._common(name, client_id), "-q", "1", "-t", topic, "-m", text, *options]
        run = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
        return run.stdout + run.stderr + f"exit {run.returncode}"

    def listen(self, name: str, *options: str, client_id: str | None = None) -> Listener:
        listener = Listener(["mosquitto_sub", "-d", *self._common(name, client_id), *options])
        self._listeners.append(listener)
        return listener

    def close(self) -> None:
        for listener in self._listeners:
            listener.end()
        self.broker.stop()


class Listener:
    """A running mosquitto_sub; prints `topic payload` and what it does."""

    def __init__(self, line: list[str]) -> None:
        self._out = subprocess.Popen(
            ["stdbuf", "-oL", *line, "-F", "GOT %t %p %r"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._out.stdout is not None
        self._read = self._out.stdout
        os.set_blocking(self._read.fileno(), False)
        self.text = ""

    def said(self) -> str:
        self.text += (self._read.read() or b"").decode(errors="replace")
        return self.text

    def wait(self, wanted: str) -> None:
        wait_for(lambda: wanted in self.said(), f"{wanted!r} of a client that said\n{self.text}")

    def subscribed(self) -> Listener:
        self.wait("Subscribed (mid")
        return self

    def messages(self) -> list[str]:
        return [line[4:] for line in self.said().splitlines() if line.startswith("GOT ")]

    @property
    def ended(self) -> bool:
        return self._out.poll() is not None

    def kill(self) -> None:
        self._out.kill()
        self._out.wait()

    def end(self) -> None:
        if not self.ended:
            self._out.terminate()
            self._out.wait(10)
        self._read.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    one.broker.start()
    yield one
    one.close()


# Attacks.


def test_box_writes_below_its_own_name_only(site: Site) -> None:
    ears = site.listen(
        "ingest", *[option for leaf in ("hb", "evt", "state") for option in ("-t", f"{PREFIX}/+/{leaf}")]
    )
    ears.subscribed()
    foreign = [
        f"{PREFIX}/{OTHER}/evt",
        f"{PREFIX}/{OTHER}/state",
        f"{PREFIX}/{BOX}/desired",  # for the box, not by it
        f"{PREFIX}/{BOX}/cmd",
        f"{PREFIX}/announce/feed/demo",
        f"{PREFIX}/{BOX}/evt/more",
        f"{PREFIX}/{BOX}",
        f"{PREFIX}//evt",
        f"{PREFIX}/{BOX}//evt",
        "omamori/v2/x/evt",
        "$SYS/broker/version",
        "$share/ingest/omamori/v1/+/evt",
        "will/of/nobody",
    ]
    for topic in foreign:
        answer = site.publish(BOX, topic, "foreign")
        assert "Not authorized" in answer or "Error" in answer or "exit 0" not in answer, (topic, answer)
    assert "exit 0" in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "own")
    wait_for(lambda: any("own" in line for line in ears.messages()), "the box's own event")
    assert not any("foreign" in line for line in ears.messages())


def test_will_of_a_box_cannot_speak_for_another(site: Site) -> None:
    ears = site.listen("ingest", "-t", f"{PREFIX}/+/state").subscribed()
    thief = site.listen(
        BOX, "-t", f"{PREFIX}/{BOX}/cmd", "--will-topic", f"{PREFIX}/{OTHER}/state", "--will-payload", "foreign will"
    )
    wait_for(lambda: thief.ended or "Subscribed" in thief.said(), "the thief's fate")
    thief.kill()
    honest = site.listen(
        BOX, "-t", f"{PREFIX}/{BOX}/cmd", "--will-topic", f"{PREFIX}/{BOX}/state", "--will-payload", "own will"
    )
    honest.subscribed().kill()
    wait_for(lambda: any("own will" in line for line in ears.messages()), "the box's own will")
    assert not any("foreign" in line for line in ears.messages())


def test_box_hears_what_is_meant_for_it_and_nothing_else(site: Site) -> None:
    wide = ["#", f"{PREFIX}/#", f"{PREFIX}/+/desired", f"{PREFIX}/{OTHER}/desired", f"{PREFIX}/{OTHER}/evt", "$SYS/#"]
    wide += [f"{PREFIX}/+/evt", "$share/ingest/omamori/v1/+/evt", f"{PREFIX}/{OTHER}/cmd", "+/+/+/+"]
    for leaf in ("desired", "state"):
        author, topic = (
            ("publisher", f"{PREFIX}/{OTHER}/{leaf}") if leaf == "desired" else (OTHER, f"{PREFIX}/{OTHER}/{leaf}")
        )
        assert "exit 0" in site.publish(author, topic, f"secret retained {leaf}", "-r")
    ears = site.listen(BOX, "-q", "1", *[option for topic in wide for option in ("-t", topic)]).subscribed()
    own = site.listen(BOX, "-t", f"{PREFIX}/{BOX}/desired", client_id="second")  # takes over: one name, one connection
    own.subscribed()
    for topic in (f"{PREFIX}/{OTHER}/desired", f"{PREFIX}/{OTHER}/cmd"):
        site.publish("publisher", topic, "secret of another")
    site.publish(OTHER, f"{PREFIX}/{OTHER}/evt", "secret event")
    assert "exit 0" in site.publish("publisher", f"{PREFIX}/{BOX}/desired", "mine")
    wait_for(lambda: any("mine" in line for line in own.messages()), "what is meant for the box")
    assert not [line for line in ears.messages() + own.messages() if "secret" in line]


def test_wide_subscription_that_stays_hears_only_its_own(site: Site) -> None:
    ears = site.listen(BOX, "-q", "1", "-t", "#", "-t", f"{PREFIX}/+/desired", "-t", f"{PREFIX}/+/evt").subscribed()
    site.publish("publisher", f"{PREFIX}/{OTHER}/desired", "secret")
    site.publish(OTHER, f"{PREFIX}/{OTHER}/evt", "secret")
    site.publish("publisher", f"{PREFIX}/announce/feed/demo", "for all")
    site.publish("publisher", f"{PREFIX}/{BOX}/desired", "mine")
    wait_for(lambda: any("mine" in line for line in ears.messages()), "the box's own")
    assert not [line for line in ears.messages() if "secret" in line]
    assert any("for all" in line for line in ears.messages())


def test_nobody_takes_over_another_box_by_its_client_id(site: Site) -> None:
    """Else every box could end any other one's connection, and inherit what waits in its session."""
    session = ("-x", "3600", "-c", "-q", "1", "-t", f"{PREFIX}/{BOX}/desired")
    away = site.listen(BOX, *session).subscribed()
    away.end()
    site.publish("publisher", f"{PREFIX}/{BOX}/desired", "secret that waits")
    thief = site.listen(OTHER, "-x", "3600", "-c", "-q", "1", "-t", f"{PREFIX}/{OTHER}/desired", client_id=BOX)
    thief.subscribed()
    box = site.listen(BOX, *session)
    box.wait("secret that waits")
    again = site.listen(OTHER, "-t", f"{PREFIX}/{OTHER}/cmd", client_id=BOX).subscribed()
    site.publish("publisher", f"{PREFIX}/{BOX}/desired", "still there")
    box.wait("still there")
    assert not box.ended
    assert not [line for line in thief.messages() + again.messages() if "secret" in line]


def test_cloud_s_user_cannot_order_and_publisher_cannot_listen(site: Site) -> None:
    box = site.listen(BOX, "-t", f"{PREFIX}/{BOX}/desired", "-t", f"{PREFIX}/{BOX}/cmd").subscribed()
    for leaf in ("desired", "cmd"):
        site.publish("ingest", f"{PREFIX}/{BOX}/{leaf}", "forged")
    spy = site.listen("publisher", "-t", f"{PREFIX}/+/evt", "-t", "#", client_id="spy")
    wait_for(lambda: spy.ended or "Subscribed" in spy.said(), "the spy's fate")
    site.publish(OTHER, f"{PREFIX}/{OTHER}/evt", "an event")
    site.publish("stranger", f"{PREFIX}/{BOX}/desired", "forged")
    site.publish("publisher", f"{PREFIX}/{BOX}/desired", "real")
    wait_for(lambda: any("real" in line for line in box.messages()), "the real one")
    assert not [line for line in box.messages() if "forged" in line]
    assert not [line for line in spy.messages() if "event" in line]


def refused(site: Site, name: str, issued: Issued) -> None:
    site.certificate(name, issued)
    assert "exit 0" not in site.publish(name, f"{PREFIX}/{name}/evt", "nobody")


def test_certificates_that_are_no_longer_or_never_were_good(site: Site) -> None:
    ears = site.listen("ingest", "-t", f"{PREFIX}/+/evt").subscribed()
    now = dt.datetime.now(dt.UTC)
    devices = site.pki.devices
    refused(site, BOX, devices.issue(BOX, begins=now - 91 * DAY, life=90 * DAY))
    refused(site, BOX, devices.issue(BOX, begins=now + DAY))
    refused(site, BOX, Authority("test device authority").issue(BOX))  # the right name, another key
    refused(site, BOX, devices.issue(BOX, client=False))  # a server's certificate
    site.certificate(BOX, devices.issue(BOX))
    assert "exit 0" in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "good")
    wait_for(lambda: any("good" in line for line in ears.messages()), "the good one")
    assert not [line for line in ears.messages() if "nobody" in line]


def test_no_certificate_no_tls_13_no_connection(site: Site) -> None:
    base = ["mosquitto_pub", "-h", "localhost", "-p", str(site.broker.port), "-t", f"{PREFIX}/{BOX}/evt", "-m", "x"]
    for options in ([], ["--cafile", str(site.pki.ca)]):
        run = subprocess.run([*base, *options], capture_output=True, timeout=20, check=False)
        assert run.returncode != 0, options
    context = ssl.create_default_context(cafile=str(site.pki.ca))
    site.certificate(BOX)
    context.load_cert_chain(site.folder / f"{BOX}.crt", site.folder / f"{BOX}.key")
    for newest, is_taken in ((ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, False)):
        context.maximum_version = newest
        for port in (site.broker.port, site.broker.service_port):
            plain = socket.create_connection(("localhost", port))
            with contextlib.closing(plain), pytest.raises(ssl.SSLError) if not is_taken else contextlib.nullcontext():
                context.wrap_socket(plain, server_hostname="localhost").close()


def test_box_certificate_does_not_open_the_services_port(site: Site) -> None:
    line = ["mosquitto_pub", "-h", "localhost", "-p", str(site.broker.service_port), *site.certificate(BOX)]
    run = subprocess.run([*line, "-t", f"{PREFIX}/{BOX}/evt", "-m", "x"], capture_output=True, timeout=20, check=False)
    assert run.returncode != 0


def test_revoked_certificate_is_out(site: Site) -> None:
    """A running broker reads a new list on SIGHUP; a connection that exists ends with the restart or its keep-alive."""
    stolen = site.pki.devices.issue(BOX)
    site.certificate(BOX, stolen)
    assert "exit 0" in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "before")
    site.revoked.write_bytes(
        site.pki.service.revocation_list() + site.pki.devices.revocation_list(stolen.certificate.serial_number)
    )
    site.broker.reload()

    def is_out() -> bool:
        return "exit 0" not in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "after")

    wait_for(is_out, "the revoked certificate to be refused")
    assert "exit 0" in site.publish(OTHER, f"{PREFIX}/{OTHER}/evt", "others stay")
    site.certificate(BOX, site.pki.devices.issue(BOX))
    assert "exit 0" in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "a new one is good")


# What box and cloud rely on.


def test_retained_state_is_kept_and_replaced(site: Site) -> None:
    for text in ("first", "second"):
        site.publish(BOX, f"{PREFIX}/{BOX}/state", text, "-r")
    late = site.listen("ingest", "-t", f"{PREFIX}/+/state").subscribed()
    late.wait("second 1")
    assert len(late.messages()) == 1


def test_session_keeps_what_came_meanwhile_for_its_time(site: Site) -> None:
    options = ("-c", "-q", "1", "-t", f"{PREFIX}/+/evt")
    site.listen("ingest", "-x", "3600", *options).subscribed().end()
    assert NOBODY_LISTENS not in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "kept")
    back = site.listen("ingest", "-x", "1", *options)
    back.wait("kept")
    back.end()
    wait_for(
        lambda: NOBODY_LISTENS in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "nobody listens"),
        "the session to expire",
    )


def test_will_after_its_delay_and_not_before_a_quick_return(site: Site) -> None:
    ears = site.listen("ingest", "-t", f"{PREFIX}/+/state").subscribed()
    will = ("--will-topic", f"{PREFIX}/{BOX}/state", "--will-payload", "gone", "-D", "will", "will-delay-interval", "2")
    box = ("-x", "60", "-t", f"{PREFIX}/{BOX}/cmd", *will)
    site.listen(BOX, *box).subscribed().kill()
    second = site.listen(BOX, "-c", *box).subscribed()
    time.sleep(2.5)  # nothing to wait for: it must not come
    assert ears.messages() == []
    second.kill()
    ears.wait("gone")


def test_expired_message_is_not_delivered(site: Site) -> None:
    options = ("-x", "3600", "-c", "-q", "1", "-t", f"{PREFIX}/{BOX}/cmd")
    site.listen(BOX, *options).subscribed().end()
    expiry = ("-D", "publish", "message-expiry-interval")
    site.publish("publisher", f"{PREFIX}/{BOX}/cmd", "stale", *expiry, "1")
    site.publish("publisher", f"{PREFIX}/{BOX}/cmd", "fresh", *expiry, "600")
    time.sleep(2.1)  # the time itself is what is tested
    back = site.listen(BOX, *options)
    back.wait("fresh")
    assert not any("stale" in line for line in back.messages())


def test_shared_subscription_gives_each_event_to_one_worker(site: Site) -> None:
    share = ("-q", "1", "-t", f"$share/ingest/{PREFIX}/+/evt")
    workers = [site.listen("ingest", *share, client_id=f"worker-{number}").subscribed() for number in (1, 2)]
    for number in range(6):
        site.publish(BOX, f"{PREFIX}/{BOX}/evt", f"event-{number}")
    wait_for(lambda: sum(len(worker.messages()) for worker in workers) == 6, "all events")
    assert all(worker.messages() for worker in workers)


def test_refusals_have_reason_codes_and_the_broker_tells_its_limits(site: Site) -> None:
    assert "Not authorized" in site.publish(BOX, f"{PREFIX}/{OTHER}/evt", "x")
    ears = site.listen("ingest", "-t", f"{PREFIX}/+/evt").subscribed()
    assert "received PUBACK" not in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "x" * (MAX_PACKET_BYTES + 1))
    assert "received PUBACK" in site.publish(BOX, f"{PREFIX}/{BOX}/evt", "y" * (MAX_PACKET_BYTES - 200))
    wait_for(lambda: len(ears.messages()) == 1, "the one that fits")


def test_content_type_and_topic_alias_pass(site: Site) -> None:
    ears = site.listen("ingest", "-t", f"{PREFIX}/+/hb").subscribed()
    options = (
        "-D",
        "publish",
        "content-type",
        "application/cbor",
        "-D",
        "publish",
        "topic-alias",
        "1",
        "--repeat",
        "3",
    )
    assert "exit 0" in site.publish(BOX, f"{PREFIX}/{BOX}/hb", "beat", *options)
    wait_for(lambda: len(ears.messages()) == 3, "three heartbeats")
    assert all(line.startswith(f"{PREFIX}/{BOX}/hb beat") for line in ears.messages())
