"""Three nodes of the clustered broker with everybody who uses them: boxes, workers, the operator, and strangers."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess  # noqa: TID251 - starts the programs under test
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from omamori_cloud.store.database import migrate, open_database
from omamori_cloud.store.reader import Reader
from omamori_lab.cluster import AMQP_PORT, HOST, MQTT_PORT, WEBSOCKET_PORT, Cluster, ClusterPki, Node, broker_tree
from omamori_lab.cluster_boxes import BoxesPlan
from omamori_ota import keys, pki
from omamori_ota.clock import system_clock
from omamori_ota.keys import DEVICE_CA, SERVICE_CA
from omamori_ota.roles import Lifetimes
from sim.pki import Authority, Issued
from sim.postgres import Postgres

BOXES = tuple(f"ZA35-{number:06}" for number in range(1, 13))
BOX, OTHER = "ZA35-900001", "ZA35-900002"  # single ones, for a client that is not ours
PREFIX = "omamori/v1"
EVENTS_PER_BOX = 300
LONG_S = 240.0
GRANTED = re.compile(r"Subscribed \(mid: \d+\): [012]\b")


def wait_for(condition: Callable[[], Any], what: Callable[[], str] | str, within_s: float = LONG_S) -> Any:
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what() if callable(what) else what}"
        time.sleep(0.1)
    return value


class Listener:
    """A running mosquitto_sub, which comes back by itself; prints `GOT topic payload` and what it does."""

    def __init__(self, line: list[str]) -> None:
        self._program = subprocess.Popen(["stdbuf", "-oL", *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self._program.stdout is not None
        self._read = self._program.stdout
        os.set_blocking(self._read.fileno(), False)
        self._text = ""

    def said(self) -> str:
        if not self._read.closed:
            self._text += (self._read.read() or b"").decode(errors="replace")
        return self._text

    def wait(self, *wanted: str) -> str:
        """Return what it said once one of these is in it."""
        wait_for(lambda: any(word in self.said() for word in wanted), lambda: f"{wanted} of one that said {self._text}")
        return self._text

    def messages(self) -> list[str]:
        return [line.removeprefix("GOT ") for line in self.said().splitlines() if line.startswith("GOT ")]

    def kill(self) -> None:
        self._program.kill()
        self._program.wait(20)
        self.said()
        self._read.close()


class Rig:
    """The cluster, a store, and who uses them."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        if shutil.which("mosquitto_pub") is None:
            pytest.skip("mosquitto-clients are not installed")
        self.folder = folder
        self.keys = keys.init(folder / "keys", system_clock, Lifetimes())
        self.service, self.devices = (Authority.of(*self.keys.authority(name)) for name in (SERVICE_CA, DEVICE_CA))
        self.ca = folder / "service-ca.pem"
        self.ca.write_bytes(self.service.pem)
        (folder / "clients.pem").write_bytes(self.service.pem + self.devices.pem)
        self.service.issue(HOST, client=False, names=(HOST,)).write(folder / "broker.key", folder / "broker.crt")
        self.lists = folder / "crl"
        self.lists.mkdir()
        self.revoke()
        served = ClusterPki(folder / "broker.crt", folder / "broker.key", folder / "clients.pem", self.lists)
        self.cluster = Cluster(folder, served, broker_tree())
        url = postgres.database()
        self.engine = open_database(url, password_file=postgres.password_file)
        migrate(self.engine)
        self.reader = Reader(self.engine)
        for device in BOXES:
            self.identity(device)
        certificate, key = self.identity("ingest")
        self.config = folder / "cloud.toml"
        self.config.write_text(
            f'[broker]\nurl = "amqps://{HOST}:{AMQP_PORT}"\nca = "{self.ca}"\ncert = "{certificate}"\nkey = "{key}"\n'
            f'[database]\nurl = "{url}"\npassword_file = "{postgres.password_file}"\n'
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def identity(self, name: str, issued: Issued | None = None) -> tuple[Path, Path]:
        """Return certificate and key; boxes' names are upper case."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        if issued is not None or not key.exists():
            authority = self.devices if name[0].isupper() else self.service
            (issued or authority.issue(name)).write(key, certificate)
        return certificate, key

    def revoke(self, *certificates: Issued) -> None:
        """Write lists of every authority, the boxes' with these certificates; `Node.revoke` takes them."""
        serials = [issued.certificate.serial_number for issued in certificates]
        (self.lists / f"{DEVICE_CA}.pem").write_bytes(self.devices.revocation_list(*serials))
        (self.lists / f"{SERVICE_CA}.pem").write_bytes(self.service.revocation_list())

    def start(self, name: str, *line: str | Path) -> subprocess.Popen[bytes]:
        """Start a program where boxes and service are."""
        with (self.folder / f"{name}.log").open("ab") as log:
            command = self.cluster.clients.command(line, resolver=self.cluster.resolver_file)
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        before = self.log(name).count("messages come in")
        line = [sys.executable, "-P", "-m", "omamori_cloud", "ingest", "--config", self.config, "--worker", name]
        process = self.start(name, *line)
        wait_for(lambda: self.log(name).count("messages come in") > before, lambda: self.log(name))
        return process

    def start_boxes(self, name: str, **changes: Any) -> Boxes:
        plan = BoxesPlan(
            devices=BOXES,
            identities=str(self.folder),
            homes=str(self.folder / "homes"),
            service_ca=str(self.ca),
            host=HOST,
            port=MQTT_PORT,
            websocket_port=WEBSOCKET_PORT,
            events=EVENTS_PER_BOX,
            every_s=0.2,
            report=str(self.folder / f"{name}.report"),
        )
        plan = dataclasses.replace(plan, **changes)
        (self.folder / f"{name}.plan").write_text(json.dumps(dataclasses.asdict(plan)))
        line = [sys.executable, "-P", "-m", "omamori_lab.cluster_boxes", self.folder / f"{name}.plan"]
        return Boxes(self.start(name, *line), Path(plan.report), self, name)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self) -> str:
        return "\n".join(f"{name}: {self.log(name)[-1500:]}" for name in ("a", "b", "boxes", "again"))

    def stored(self) -> collections.Counter[str]:
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT text, count(*) FROM events GROUP BY text"))
            return collections.Counter({str(row[0]): int(row[1]) for row in rows})

    def count(self, table: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

    def client(self, program: str, name: str, at: Node | str, *options: str, client_id: str | None = None) -> list[str]:
        certificate, key = self.identity(name)
        where = at if isinstance(at, str) else at.address
        line = [program, "-d", "-V", "5", "-h", where, "-p", str(MQTT_PORT), "--cafile", str(self.ca)]
        line += ["--cert", str(certificate), "--key", str(key), "-i", client_id or name, "-q", "1", *options]
        if where != HOST:
            line.append("--insecure")  # the certificate has the name of all nodes, not the address of one
        return self.cluster.clients.command(line, resolver=self.cluster.resolver_file)

    def publish(self, name: str, topic: str, body: str, *options: str, at: Node | str = HOST, **more: Any) -> str:
        line = self.client("mosquitto_pub", name, at, "-t", topic, "-m", body, *options, **more)
        run = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        return run.stdout + run.stderr + f"exit {run.returncode}"

    def listen(
        self,
        name: str,
        topic: str,
        *,
        until: str = "Subscribed",
        linger_s: float = 0.0,
        at: Node | str = HOST,
        form: str = "GOT %t %p",
    ) -> str:
        """Subscribe; returns what the program said up to `until`, and for a while longer."""
        listener = Listener(self.client("mosquitto_sub", name, at, "-F", form, "-t", topic))
        try:
            listener.wait(until)
            time.sleep(linger_s)
            return listener.said()
        finally:
            listener.kill()

    def ota(self, *words: str) -> str:
        """Run `omamori-ota` as the operator with the cluster as its broker; returns what it warned of."""
        tls = self.folder / "publisher"
        if not tls.exists():
            pki.issue_client(self.keys, tls, "publisher", system_clock)
        line = [sys.executable, "-P", "-c", "import sys; from omamori_ota.cli import main; sys.exit(main())"]
        line += [*words, "--tls-dir", str(tls), "--broker", f"mqtts://{HOST}:{MQTT_PORT}"]
        command = self.cluster.clients.command(line, resolver=self.cluster.resolver_file)
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stderr

    @contextlib.contextmanager
    def listening(
        self, name: str, *topics: str, at: Node | str = HOST, options: tuple[str, ...] = (), **more: Any
    ) -> Iterator[Listener]:
        """Give a client that stays, with its topics granted or refused."""
        words = [word for topic in topics for word in ("-t", topic)]
        listener = Listener(self.client("mosquitto_sub", name, at, "-F", "GOT %t %p", *words, *options, **more))
        try:
            listener.wait("Subscribed")
            yield listener
        finally:
            listener.kill()

    def python(self, code: str, *arguments: str) -> str:
        """Run a few lines where boxes are; returns what they print."""
        command = self.cluster.clients.command(
            [sys.executable, "-P", "-c", code, *arguments], resolver=self.cluster.resolver_file
        )
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout

    def carrier(self) -> Path:
        """Return the operator's program that takes revocation lists to all nodes."""
        program = self.folder / "carry"
        places = " ".join(f'"{node.revoked}"' for node in self.cluster.nodes)
        program.write_text(
            f'#!/bin/sh\nset -e\nfor there in {places}; do\n  cp "$1"/*.pem "$there"\n'
            '  chmod 644 "$there"/*.pem\n  openssl rehash "$there"\ndone\n'
        )
        program.chmod(0o755)
        return program

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait(20)
        self.engine.dispose()


@dataclasses.dataclass(frozen=True)
class Boxes:
    """A process with boxes."""

    process: subprocess.Popen[bytes]
    report: Path
    rig: Rig
    name: str

    def __call__(self) -> dict[str, Any]:
        assert self.process.poll() is None, self.rig.log(self.name)[-3000:]
        return dict(json.loads(self.report.read_bytes())) if self.report.exists() else {}

    def connected(self) -> int:
        return sum(box["connected"] for box in self().values())

    def nodes(self) -> collections.Counter[str]:
        return collections.Counter(box["node"] for box in self().values() if box["connected"])

    def all_connected(self) -> bool:
        return self.connected() == len(BOXES)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0


@contextlib.contextmanager
def running_rig(folder: Path, postgres: Postgres) -> Iterator[Rig]:
    """Give a cluster with all its nodes."""
    made = Rig(folder, postgres)
    try:
        with made.cluster.running():
            made.cluster.wait_whole(made.cluster.nodes[0])
            yield made
            made.close()
    finally:
        made.close()
