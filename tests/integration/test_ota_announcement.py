"""Announcing a feed through a real broker on loopback: TLS 1.3, client certificate, retained, acknowledged."""

from __future__ import annotations

import shutil
import socket
import subprocess  # noqa: TID251 - starts the real broker
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from omamori_ota import announcement, keys, pki
from omamori_ota.announcement import BrokerAddress
from omamori_ota.broker import publish
from omamori_ota.clock import system_clock
from omamori_ota.errors import SetupError, TransientError
from omamori_ota.keys import KeyDirectory
from omamori_ota.roles import Lifetimes
from omamori_protocol.messages import FeedAnnouncement
from omamori_protocol.topics import feed_announcement

BROKER = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
pytestmark = pytest.mark.skipif(BROKER is None, reason="needs mosquitto")

# paho drops its socket instead of closing it when a handshake fails; the collector closes it with a warning.
dropped_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ACL = """\
user publisher
topic write omamori/v1/announce/feed/+
user ingest
topic read omamori/v1/announce/feed/+
"""


@pytest.fixture(scope="module")
def key_directory(tmp_path_factory: pytest.TempPathFactory) -> KeyDirectory:
    return keys.init(tmp_path_factory.mktemp("operator") / "keys", system_clock, Lifetimes())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def broker(tmp_path: Path, key_directory: KeyDirectory) -> Iterator[BrokerAddress]:
    pki.issue_server(key_directory, tmp_path / "server", ["127.0.0.1"], system_clock)
    for name in ("publisher", "ingest"):
        pki.issue_client(key_directory, tmp_path / name, name, system_clock)
    (tmp_path / "acl").write_text(ACL)
    (tmp_path / "acl").chmod(0o600)
    port = free_port()
    (tmp_path / "broker.conf").write_text(
        f"user root\nlistener {port} 127.0.0.1\ntls_version tlsv1.3\n"
        f"cafile {tmp_path}/server/clients.pem\ncertfile {tmp_path}/server/tls.crt\nkeyfile {tmp_path}/server/tls.key\n"
        f"require_certificate true\nuse_identity_as_username true\nacl_file {tmp_path}/acl\n"
    )
    with (tmp_path / "broker.log").open("w") as log:
        process = subprocess.Popen([str(BROKER), "-c", str(tmp_path / "broker.conf")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield BrokerAddress.parse(f"mqtts://127.0.0.1:{port}", tmp_path / "publisher")
    finally:
        process.terminate()
        process.wait(timeout=10)


def receive(broker: BrokerAddress, directory: Path, channel: str) -> mqtt.MQTTMessage:
    """Return the retained announcement as somebody who connects afterwards sees it."""
    got: list[mqtt.MQTTMessage] = []
    arrived = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.tls_set_context(BrokerAddress(host=broker.host, port=broker.port, tls_directory=directory).tls_context())
    client.on_connect = lambda *_: client.subscribe(feed_announcement(channel), qos=1)

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        got.append(message)
        arrived.set()

    client.on_message = on_message
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        assert arrived.wait(10)
    finally:
        client.disconnect()
        client.loop_stop()
    return got[0]


def test_announcement_is_retained_for_boxes_that_come_later(broker: BrokerAddress, tmp_path: Path) -> None:
    announcement.announce(broker, "demo", 41)
    announcement.announce(broker, "demo", 42)
    message = receive(broker, tmp_path / "ingest", "demo")
    assert message.retain
    assert FeedAnnouncement.decode(message.payload).serial == 42
    assert message.properties is not None
    assert message.properties.ContentType == "application/cbor"


def test_client_that_may_not_write_is_told_so(broker: BrokerAddress, tmp_path: Path) -> None:
    stranger = BrokerAddress(host=broker.host, port=broker.port, tls_directory=tmp_path / "ingest")
    with pytest.raises(TransientError, match=r"did not acknowledge: .*[Nn]ot authorized"):
        announcement.announce(stranger, "demo", 1)


@dropped_socket
def test_broker_of_another_authority_is_refused(broker: BrokerAddress, tmp_path: Path) -> None:
    other = keys.init(tmp_path / "other", system_clock, Lifetimes())
    pki.issue_client(other, tmp_path / "foreign", "publisher", system_clock)
    foreign = BrokerAddress(host=broker.host, port=broker.port, tls_directory=tmp_path / "foreign")
    with pytest.raises(TransientError, match="certificate verify failed"):
        announcement.announce(foreign, "demo", 1)


def test_broker_that_is_not_there_is_named(tmp_path: Path, key_directory: KeyDirectory) -> None:
    pki.issue_client(key_directory, tmp_path / "publisher", "publisher", system_clock)
    port = free_port()
    with pytest.raises(TransientError, match=f"broker 127.0.0.1:{port}"):
        announcement.announce(BrokerAddress.parse(f"mqtts://127.0.0.1:{port}", tmp_path / "publisher"), "demo", 1)


@dropped_socket
def test_broker_that_never_answers_is_given_up(tmp_path: Path, key_directory: KeyDirectory) -> None:
    pki.issue_client(key_directory, tmp_path / "publisher", "publisher", system_clock)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = BrokerAddress.parse(f"mqtts://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "publisher")
        began = time.monotonic()
        with pytest.raises(TransientError):
            announcement.announce(address, "demo", 1, timeout_s=1.0)
    assert time.monotonic() - began < 10


def test_directory_without_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not a usable TLS directory"):
        BrokerAddress.parse("mqtts://127.0.0.1:1", tmp_path).tls_context()


def test_a_message_for_nobody_is_not_a_success(broker: BrokerAddress) -> None:
    with pytest.raises(TransientError, match="nobody who would hear it"):
        publish(broker, feed_announcement("demo"), b"x", retain=False)
    publish(broker, feed_announcement("demo"), b"x", retain=True)
