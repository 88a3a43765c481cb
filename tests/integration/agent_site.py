"""A box's directory with its agent as a process, and the cloud's side of its link."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import ssl
import subprocess  # noqa: TID251 - the agent is a process to kill here
import sys
import time
from collections.abc import Callable
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from omamori_agent.config import Paths
from omamori_protocol.diagnostics import Diagnostics
from omamori_protocol.messages import Event, Heartbeat, State
from omamori_protocol.reported import Reported
from omamori_protocol.topics import Leaf, any_device, device_topic
from omamori_protocol.vocabulary import EventKind
from sim.box import DEVICE, make_box
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
        leaves = (Leaf.STATE, Leaf.HEARTBEAT, Leaf.REPORTED, Leaf.JOB)
        client.subscribe([(shared, 1), *((any_device(leaf), 1) for leaf in leaves)])

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
    def reports(self) -> list[Reported]:
        return [Reported.decode(item) for item in self.of(Leaf.REPORTED)]

    @property
    def answers(self) -> dict[str, Diagnostics]:
        """Answers to commands, by the last level of their topics."""
        topics = f"{device_topic(DEVICE, Leaf.JOB)}/"
        found = [(name, payload) for name, payload, _retain in list(self.received) if name.startswith(topics)]
        return {name.removeprefix(topics): Diagnostics.decode(payload) for name, payload in found}

    @property
    def texts(self) -> list[str]:
        """Lines of system events, once for each event."""
        unique = {(item.boot, item.seq): item for item in self.events if item.kind is EventKind.SYSTEM}
        return [item.text or "" for item in unique.values()]

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
        self.paths.desired.mkdir()
        self.paths.address.parent.mkdir()
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
                        "timestamp": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000"),
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
