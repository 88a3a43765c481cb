"""Three nodes of the clustered broker, boxes with the agent's link on all of them, workers with a shared queue.

Nodes die by SIGKILL in the middle of it: every event is stored, once, and the boxes are back on the nodes that live.
The rules about topics are attacked from outside with a client that is not ours.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import hashlib
import json
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
from omamori_ota.roles import Lifetimes
from omamori_protocol.vocabulary import Presence
from sim.pki import DAY, Authority, Issued
from sim.postgres import Postgres

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1500)]

BOXES = tuple(f"ZA35-{number:06}" for number in range(1, 13))
BOX, OTHER = "ZA35-900001", "ZA35-900002"  # for attacks
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


def read_until(program: subprocess.Popen[bytes], wanted: str) -> str:
    """Return what a program says up to the line with `wanted`, or to its end."""
    said = ""
    assert program.stdout is not None
    while wanted not in said and (more := program.stdout.readline().decode(errors="replace")):
        said += more
    return said


class Rig:
    """The cluster, a store, and who uses them."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        if shutil.which("mosquitto_pub") is None:
            pytest.skip("mosquitto-clients are not installed")
        self.folder = folder
        self.service, self.devices = Authority("Service CA"), Authority("Device CA")
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
        (self.lists / "boxes.pem").write_bytes(self.devices.revocation_list(*serials))
        (self.lists / "services.pem").write_bytes(self.service.revocation_list())

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
        """Subscribe; returns what the program said up to the line with `until`, and for a while longer."""
        line = self.client("mosquitto_sub", name, at, "-W", "60", "-F", form, "-t", topic)
        with subprocess.Popen(["stdbuf", "-oL", *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
            said = read_until(program, until)
            time.sleep(linger_s)
            program.kill()
            assert program.stdout is not None
            said += program.stdout.read().decode(errors="replace")
        assert until in said, said
        return said

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


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("cluster"), postgres)
    try:
        with made.cluster.running():
            made.cluster.wait_whole(made.cluster.nodes[0])
            yield made
            made.close()
    finally:
        made.close()


def test_a_node_dies_and_nothing_is_lost(rig: Rig) -> None:
    cluster = rig.cluster
    workers = [rig.start_worker(name) for name in ("a", "b")]
    boxes = rig.start_boxes("boxes")
    wait_for(boxes.all_connected, rig.logs)
    assert len(boxes.nodes()) >= 2, "by chance, boxes take different nodes"
    wait_for(lambda: rig.stored().total() > 100, rig.logs)

    by_address = {node.address: node for node in cluster.nodes}
    first = by_address[boxes.nodes().most_common(1)[0][0]]
    first.kill()
    killed_s = time.monotonic()
    wait_for(lambda: boxes.all_connected() and first.address not in boxes.nodes(), rig.logs)
    print(f"boxes back on {boxes.nodes()} after {time.monotonic() - killed_s:.1f} s")
    before = rig.stored().total()
    wait_for(lambda: rig.stored().total() > before + 100, rig.logs)

    workers[0].kill()  # what it had not acknowledged, the other one gets
    workers[0].wait(20)
    rig.start_worker("a")

    first.start()
    living = next(node for node in cluster.nodes if node is not first)
    cluster.wait_whole(living)
    second = living
    second.kill()
    wait_for(lambda: boxes.all_connected() and second.address not in boxes.nodes(), rig.logs)
    second.start()
    cluster.wait_whole(first)

    wanted = collections.Counter(f"{device} {number}" for device in BOXES for number in range(EVENTS_PER_BOX))
    wait_for(lambda: all(box["put"] == EVENTS_PER_BOX for box in boxes().values()), rig.logs)
    wait_for(lambda: all(box["waiting"] == 0 for box in boxes().values()), rig.logs)
    wait_for(lambda: len(rig.stored()) >= len(wanted), rig.logs)
    assert rig.stored() == wanted
    assert rig.count("refusals") == 0
    assert rig.count("heartbeats") > EVENTS_PER_BOX / 10 * len(BOXES) / 2  # QoS 0: some were under way
    assert {box.device: box.presence for box in rig.reader.boxes()} == dict.fromkeys(BOXES, Presence.ONLINE)

    def ours() -> list[dict[str, Any]]:
        queues = cluster.nodes[0].control("list_queues", "name", "type", "messages")
        return [queue for queue in queues if queue["name"].startswith("omamori.")]

    assert {queue["type"] for queue in ours()} <= {"quorum", "rabbit_quorum_queue"}
    wait_for(lambda: [queue["messages"] for queue in ours()] == [0, 0], rig.logs)  # it counts every few seconds
    boxes.stop()
    wait_for(lambda: all(box.presence is Presence.OFFLINE for box in rig.reader.boxes()), rig.logs)
    for name in ("a", "b"):
        assert "Traceback" not in rig.log(name)


# Attacks, at a cluster where boxes and workers are.


def test_a_box_speaks_below_its_own_name_only(rig: Rig) -> None:
    foreign = [f"{PREFIX}/{OTHER}/evt", f"{PREFIX}/{OTHER}/state", f"{PREFIX}/{BOX}/desired", f"{PREFIX}/{BOX}/cmd"]
    foreign += [f"{PREFIX}/announce/feed/demo", f"{PREFIX}/{BOX}/evt/more", f"{PREFIX}/{BOX}", "omamori/v2/x/evt"]
    foreign += ["will/of/nobody", "amq/topic", f"{PREFIX}//evt"]
    for topic in foreign:
        assert "exit 0" not in (said := rig.publish(BOX, topic, "foreign")) or "Not authorized" in said, (topic, said)
    for leaf in ("evt", "job/7"):
        said = rig.publish(BOX, f"{PREFIX}/{BOX}/{leaf}", "own")
        assert "Not authorized" not in said, said
        assert "exit 0" in said, said


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
    assert "exit 0" not in rig.publish(OTHER, f"{PREFIX}/{OTHER}/evt", "id of another", client_id=BOX)
    assert "exit 0" not in rig.publish(BOX, topic, "no name of its own", client_id="x")
    for name in ("stranger", "Ingest", "guest", "ZA3", "za35-000001"):
        certificate = rig.service.issue(name)
        rig.identity(f"x{name}", certificate)
        assert "exit 0" not in rig.publish(f"x{name}", topic, "nobody", client_id=name), name


def test_the_operator_ends_a_box_s_connection_from_another_node(rig: Rig) -> None:
    """As `omamori-ota revoke` does: by taking over its client id, which no box can."""
    here, there, _third = rig.cluster.nodes
    line = rig.client("mosquitto_sub", BOX, here, "-W", "60", "-t", f"{PREFIX}/{BOX}/cmd")
    with subprocess.Popen(["stdbuf", "-oL", *line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as box:
        said = read_until(box, "Subscribed")
        assert "exit 0" in rig.publish("publisher", f"{PREFIX}/{BOX}/cmd", "farewell", at=there, client_id=BOX)
        said += read_until(box, "eceived DISCONNECT (142)")  # session taken over
        box.kill()
    assert "eceived DISCONNECT (142)" in said, said


def test_certificates_of_strangers_and_old_ones_are_refused(rig: Rig) -> None:
    bad = {
        "S1": Authority("Device CA").issue(BOX),
        "S2": rig.devices.issue(BOX, begins=dt.datetime.now(dt.UTC) - 100 * DAY, life=99 * DAY),
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
        assert "exit 0" not in (said := rig.publish("ingest", f"{PREFIX}/{BOX}/{leaf}", "forged")) or (
            "Not authorized" in said
        )
    for topic in (f"{PREFIX}/+/evt", "#", f"{PREFIX}/{BOX}/desired"):
        said = rig.listen("publisher", topic)
        assert not GRANTED.search(said), (topic, said)
        assert "Subscribed (mid: 1): 135" in said
    # `revoke` looks in this way whether its connection lives.
    assert GRANTED.search(rig.listen("publisher", f"{PREFIX}/announce/witness"))


def test_a_retained_document_is_where_it_was_put(rig: Rig) -> None:
    """The reason for telling every node: RabbitMQ keeps what is retained on the node that was told."""
    here, there, _third = rig.cluster.nodes
    topic = f"{PREFIX}/{OTHER}/desired"
    body = hashlib.sha256(b"document").hexdigest()
    assert "exit 0" in rig.publish("publisher", topic, body, "-r", at=here)
    rig.listen(OTHER, topic, until=body, at=here)
    assert body not in rig.listen(OTHER, topic, linger_s=3, at=there)


def test_a_node_that_was_away_is_told_a_box_s_document_again(rig: Rig) -> None:
    keys_folder, tls, topic = rig.folder / "keys", rig.folder / "publisher", f"{PREFIX}/{OTHER}/desired"
    keys.init(keys_folder, system_clock, Lifetimes())
    tls.mkdir()
    certificate, key = rig.identity("publisher")
    for source, name in ((certificate, pki.CERTIFICATE_FILE), (key, pki.KEY_FILE), (rig.ca, pki.CA_FILE)):
        shutil.copy(source, tls / name)
    (rig.folder / "settings.json").write_text('{"policy": {"fail_closed": false}}')

    def ota(*words: str) -> str:
        line = [sys.executable, "-P", "-c", "import sys; from omamori_ota.cli import main; sys.exit(main())"]
        line += [*words, "--tls-dir", str(tls)]
        line += ["--broker", f"mqtts://{HOST}:{MQTT_PORT}"]
        command = rig.cluster.clients.command(line, resolver=rig.cluster.resolver_file)
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stderr

    def publish() -> str:
        file = str(rig.folder / "settings.json")
        return ota("desired", "publish", str(keys_folder), "--device", OTHER, "--file", file)

    def newest() -> str:
        return (keys_folder / f"desired/published/{OTHER}.cose").read_bytes().hex()

    def expect(node: Node) -> None:
        rig.listen(OTHER, topic, until=newest(), at=node, form="GOT %x")

    publish()
    for node in rig.cluster.nodes:
        expect(node)
    away = rig.cluster.nodes[2]
    away.kill()
    said = publish()
    assert away.address in said
    assert "omamori-ota desired resend" in said
    for node in rig.cluster.nodes[:2]:
        expect(node)
    away.start()
    rig.cluster.wait_whole(rig.cluster.nodes[0])
    assert newest() not in rig.listen(OTHER, topic, linger_s=3, at=away, form="GOT %x")
    assert ota("desired", "resend", str(keys_folder)) == ""
    expect(away)
