"""A real broker (TLS 1.3, client certificates, access list), boxes that speak to it, and the cloud as a process."""

from __future__ import annotations

import contextlib
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
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sim.mosquitto import Mosquitto
from sim.pki import Authority

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


class Pki:
    """Both authorities, and the files that they issue."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.service = Authority("test service authority")
        self.devices = Authority("test device authority")
        self.ca = folder / "service-ca.pem"
        self.ca.write_bytes(self.service.pem)

    def issue(self, name: str, authority: Authority) -> tuple[Path, Path]:
        """Return certificate and key files of a client."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        authority.issue(name).write(key, certificate)
        return certificate, key


class FakeBox:
    """A box as the broker sees it: its own certificate, its own topics, MQTT 5, a will."""

    def __init__(self, broker: Mosquitto, pki: Pki, device: str, *, will: bytes | None = None) -> None:
        self.device = device
        self._broker = broker
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=MQTTProtocolVersion.MQTTv5)
        context = ssl.create_default_context(cafile=str(pki.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(*pki.issue(device, pki.devices))
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
            retain=leaf in {"state", "reported"},
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

    def __init__(self, folder: Path, broker_port: int, pki: Pki, *, extra: str = "") -> None:
        self.folder = folder
        folder.mkdir()
        cert, key = pki.issue("ingest", pki.service)
        self.config = folder / "cloud.toml"
        self.config.write_text(
            f'state_dir = "state"\n{extra}\n[broker]\nhost = "localhost"\nport = {broker_port}\n'
            f'ca = "{pki.ca}"\ncert = "{cert}"\nkey = "{key}"\n[names]\nZA35-000001 = "本社"\n'
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
                    "-P",
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

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        self.pki = Pki(folder / "pki")
        self.broker = Mosquitto(folder / "broker", self.pki.service, self.pki.devices)
        self.cloud = Cloud(folder / "cloud", self.broker.port, self.pki, extra=extra)
        self._boxes: list[FakeBox] = []

    def box(self, device: str = "ZA35-000001", *, will: bytes | None = None) -> FakeBox:
        box = FakeBox(self.broker, self.pki, device, will=will)
        self._boxes.append(box)
        return box.connect()

    def close(self) -> None:
        for box in self._boxes:
            box.close()
        self.cloud.close()
        self.broker.stop()


@contextlib.contextmanager
def running_rig(folder: Path, *, extra: str = "") -> Iterator[Rig]:
    rig = Rig(folder, extra=extra)
    try:
        rig.broker.start()
        rig.cloud.start()
        yield rig
    finally:
        rig.close()
