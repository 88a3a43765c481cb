"""A real broker (TLS 1.3, client certificates, access list), boxes that speak to it, and the cloud as a process."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import signal
import socket
import ssl
import subprocess  # noqa: TID251 - starts the neighbours, a test only
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_S = 20.0


def wait_for(condition: Callable[[], Any], what: str, *, within_s: float = WAIT_S) -> Any:
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {within_s} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Authority:
    """A certificate authority that lives as long as a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.ca = folder / "ca.pem"
        certificate = self._build(self._name, self._key.public_key(), ca=True).sign(self._key, hashes.SHA256())
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _build(self, subject: x509.Name, key: Any, *, ca: bool) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def issue(self, name: str, *, server: bool = False) -> tuple[Path, Path]:
        """Return certificate and key files for a common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._build(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key(), ca=False
        ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        cert_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        key_file.chmod(0o600)
        return cert_file, key_file


ACCESS_LIST = """\
user ingest
topic read omamori/v1/+/hb
topic read omamori/v1/+/state
topic read omamori/v1/+/evt

pattern write omamori/v1/%u/hb
pattern write omamori/v1/%u/state
pattern write omamori/v1/%u/evt
"""


class Broker:
    """mosquitto on the loopback address, as the product runs it."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed")
        self._program = program
        self.folder = folder
        folder.mkdir()
        self.port = free_port()
        cert, key = authority.issue("localhost", server=True)
        (folder / "acl").write_text(ACCESS_LIST)
        (folder / "acl").chmod(0o600)
        (folder / "mosquitto.conf").write_text(
            f"per_listener_settings false\nuser {_user()}\npersistence true\npersistence_location {folder}/\n"
            "autosave_interval 1\nautosave_on_changes true\nlog_dest stdout\n"
            "max_inflight_messages 1000\nmax_queued_messages 0\nmax_queued_bytes 0\nmessage_size_limit 262144\n"
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\nacl_file {folder}/acl\n"
            f"cafile {authority.ca}\ncertfile {cert}\nkeyfile {key}\n"
            "tls_version tlsv1.3\nrequire_certificate true\nuse_identity_as_username true\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=subprocess.STDOUT
            )
        wait_for(self._listens, "the broker")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(WAIT_S)
            self._process = None


def _user() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")


class FakeBox:
    """A box as the broker sees it: its own certificate, its own topics, MQTT 5, a will."""

    def __init__(self, broker: Broker, authority: Authority, device: str, *, will: bytes | None = None) -> None:
        self.device = device
        self._broker = broker
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=MQTTProtocolVersion.MQTTv5)
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(*authority.issue(device))
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        if will is not None:
            self._client.will_set(f"omamori/v1/{device}/state", will, qos=1, retain=True)

    def connect(self) -> FakeBox:
        self._client.connect("localhost", self._broker.port)
        self._client.loop_start()
        wait_for(self._client.is_connected, f"{self.device} to connect")
        return self

    def say(
        self,
        leaf: str,
        payload: bytes,
        *,
        device: str | None = None,
        content_type: str = "application/cbor",
        wait: bool = True,
    ) -> Any:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = content_type
        info = self._client.publish(
            f"omamori/v1/{device or self.device}/{leaf}",
            payload,
            qos=0 if leaf == "hb" else 1,
            retain=leaf == "state",
            properties=properties,
        )
        if wait:
            info.wait_for_publish(WAIT_S)
        return info

    def vanish(self) -> None:
        """Lose the connection without a word, so that the broker publishes the will."""
        sock = self._client.socket()
        self._client.loop_stop()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Cloud:
    """``omamori-cloud serve`` in its own process, listening on a socket that the test opened."""

    def __init__(self, folder: Path, broker_port: int, authority: Authority, *, extra: str = "") -> None:
        self.folder = folder
        folder.mkdir()
        cert, key = authority.issue("ingest")
        self.config = folder / "cloud.toml"
        self.config.write_text(
            f'state_dir = "state"\n{extra}\n[broker]\nhost = "localhost"\nport = {broker_port}\n'
            f'ca = "{authority.ca}"\ncert = "{cert}"\nkey = "{key}"\n[names]\nZA35-000001 = "本社"\n'
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, connected: bool = True) -> None:
        descriptor = self._listener.fileno()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "omamori_cloud",
                    "serve",
                    "--config",
                    self.config,
                    "--listen",
                    f"fd://{descriptor}",
                ],
                pass_fds=[descriptor],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wanted = "connected" if connected else "disconnected"
        wait_for(lambda: self.health().get("ingest") == wanted, f"ingest to be {wanted}\n{self.log()}")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def health(self) -> dict[str, Any]:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the cloud ended with {self.process.returncode}:\n{self.log()}")
        try:
            return dict(httpx.get(f"{self.url}/healthz", timeout=5).json())
        except httpx.TransportError:
            return {}

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def alerts(self, query: str = "") -> list[dict[str, Any]]:
        return list(self.get(f"/api/v1/alerts?limit=500{query}")["alerts"])

    def box(self, device: str) -> dict[str, Any]:
        boxes = [box for box in self.get("/api/v1/boxes")["boxes"] if box["device"] == device]
        return boxes[0] if boxes else {}

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        self.process = None
        return code

    def close(self) -> None:
        self.stop(signal.SIGKILL)
        self._listener.close()


class Rig:
    """All of it, and the order of taking it down."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "pki")
        self.broker = Broker(folder / "broker", self.authority)
        self.cloud = Cloud(folder / "cloud", self.broker.port, self.authority)
        self._boxes: list[FakeBox] = []

    def box(self, device: str = "ZA35-000001", *, will: bytes | None = None) -> FakeBox:
        box = FakeBox(self.broker, self.authority, device, will=will)
        self._boxes.append(box)
        return box.connect()

    def close(self) -> None:
        for box in self._boxes:
            box.close()
        self.cloud.close()
        self.broker.stop(signal.SIGKILL)


@contextlib.contextmanager
def running_rig(folder: Path) -> Iterator[Rig]:
    rig = Rig(folder)
    try:
        rig.broker.start()
        rig.cloud.start()
        yield rig
    finally:
        rig.close()
