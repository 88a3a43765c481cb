"""Ingest workers that share what boxes send: a real broker with TLS, a real PostgreSQL, processes that get killed."""

from __future__ import annotations

import signal
import ssl
import subprocess  # noqa: TID251 - starts the program under test
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy import text

from omamori_cloud.config import BrokerConfig
from omamori_cloud.ingest import Ingest, IngestStatus
from omamori_cloud.store.database import migrate, open_database
from omamori_cloud.store.installation import share_name
from omamori_cloud.store.queries import AlertQuery
from omamori_cloud.store.reader import Reader
from omamori_protocol.vocabulary import Presence
from sim.mosquitto import Mosquitto
from sim.postgres import Postgres
from unit.cloud.makers import alert, heartbeat, ledger_event, state

from .cloud_rig import FakeBox, Pki, wait_for

BOXES = ("ZA35-000001", "ZA35-000002", "ZA35-000003")
LONG_S = 60.0


class Worker:
    """``omamori-cloud ingest`` in its own process."""

    def __init__(self, config: Path, name: str) -> None:
        self.name = name
        self._config = config
        self._log = config.parent / f"worker-{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        line = [sys.executable, "-P", "-m", "omamori_cloud", "ingest", "--config", self._config, "--worker", self.name]
        before = self.log().count("messages come in")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*line, *options], stdout=log, stderr=subprocess.STDOUT)
        if not options:
            wait_for(lambda: self.log().count("messages come in") > before, f"worker {self.name}", within_s=LONG_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(LONG_S)

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)


class Site:
    """Broker, store, two workers that are not started yet, boxes."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self.pki = Pki(folder / "pki")
        self.broker = Mosquitto(folder / "broker", self.pki.service, self.pki.devices)
        self.broker.start()
        self.url = postgres.database()
        self.engine = open_database(self.url, password_file=postgres.password_file)
        migrate(self.engine)
        self.reader = Reader(self.engine)
        self.certificate = self.pki.issue("ingest", self.pki.service)
        config = folder / "cloud.toml"
        config.write_text(
            f'[broker]\nhost = "localhost"\nport = {self.broker.service_port}\nca = "{self.pki.ca}"\n'
            f'cert = "{self.certificate[0]}"\nkey = "{self.certificate[1]}"\n'
            f'[database]\nurl = "{self.url}"\npassword_file = "{postgres.password_file}"\n'
        )
        self.workers = [Worker(config, name) for name in ("a", "b")]
        self.boxes = [FakeBox(self.broker, self.pki, device) for device in BOXES]

    def count(self, table: str, where: str = "true") -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {where}")).scalar_one())

    def close(self) -> None:
        for box in self.boxes:
            box.close()
        for worker in self.workers:
            worker.close()
        self.broker.stop()
        self.engine.dispose()


@pytest.fixture
def site(tmp_path: Path, postgres: Postgres) -> Iterator[Site]:
    made = Site(tmp_path, postgres)
    yield made
    made.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.timeout(300)
def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(site: Site) -> None:
    per_box = 200
    for worker in site.workers:
        worker.start()
    for box in site.boxes:
        box.connect()
        box.say("state", state(since_s=1).encode())

    def speak(box: FakeBox) -> None:
        for seq in range(per_box):
            body = ledger_event(seq=seq, packets=1) if seq % 10 == 9 else alert(seq=seq, at_ms=now_ms())
            for _ in range(2):  # the broker gives the second one to the other worker, at the same moment
                box.say("evt", body.encode(), wait=False)
            if seq % 20 == 0:
                box.say("hb", heartbeat(seq=seq + 1, uptime_s=seq).encode(), wait=False)
            time.sleep(0.002)

    threads = [threading.Thread(target=speak, args=(box,)) for box in site.boxes]
    for thread in threads:
        thread.start()
    victim, other = site.workers
    for goal in (80, 240):
        wait_for(lambda goal=goal: site.count("events") >= goal, f"{goal} events", within_s=LONG_S)
        victim.stop(signal.SIGKILL)
        victim.start()
    other.stop(signal.SIGKILL)
    other.start()
    for thread in threads:
        thread.join()

    alerts, entries = per_box * 9 // 10 * len(BOXES), per_box // 10 * len(BOXES)
    wait_for(lambda: site.count("events") >= alerts, "all alerts", within_s=LONG_S)
    wait_for(lambda: site.count("ledger_entries") >= entries, "the ledger", within_s=LONG_S)
    assert (site.count("events"), site.count("ledger_entries"), site.count("refusals")) == (alerts, entries, 0)
    for box in site.reader.boxes():
        assert box.ledger[0].packets == per_box // 10
        assert box.presence is Presence.ONLINE
    seen = Counter(found.device for found in site.reader.alerts(AlertQuery(limit=500)).alerts)
    assert set(seen) <= set(BOXES)
    for worker in site.workers:
        assert worker.stop() == 0
        assert "Traceback" not in worker.log()


def test_a_box_cannot_take_events_away_from_the_workers(site: Site) -> None:
    """mosquitto asks its access list only when it delivers: what it chose somebody for who may not read it, is lost."""
    (worker, _), (box, thief, _) = site.workers, site.boxes
    worker.start()
    thief.connect()
    for name in ("ingest", "omamori", "omamori-cloud-ingest", "cloud", "share"):
        for leaf in ("evt", "#"):
            thief._client.subscribe(f"$share/{name}/omamori/v1/+/{leaf}", 1)
    thief.say("evt", alert(seq=1, at_ms=now_ms()).encode())  # the broker has taken in what came before
    box.connect()
    for seq in range(40):
        box.say("evt", alert(seq=seq, at_ms=now_ms()).encode())
    wait_for(lambda: site.count("events") == 41, "all events")
    share = share_name(site.engine)
    assert share not in worker.log()
    # If it knew the word, it could: this is why the word is random.
    thief._client.subscribe(f"$share/{share}/omamori/v1/+/evt", 1)
    thief.say("evt", alert(seq=2, at_ms=now_ms()).encode())
    for seq in range(100, 140):
        box.say("evt", alert(seq=seq, at_ms=now_ms()).encode())
    wait_for(lambda: site.count("events", "seq >= 100") >= 20, "half of the events")
    time.sleep(0.5)
    assert site.count("events", "seq >= 100") < 40


def test_a_worker_that_retires_takes_in_what_waits_for_it(site: Site) -> None:
    stays, leaves = site.workers
    box = site.boxes[0].connect()
    old_session(site, f"omamori-cloud-ingest-{stays.name}")
    box.say("evt", alert(seq=900, at_ms=now_ms()).encode())
    stays.start()
    wait_for(lambda: site.count("events") == 1, "what waited in a session of the time before there were groups")
    leaves.start()
    assert leaves.stop() == 0
    for seq in range(40):
        box.say("evt", alert(seq=seq, at_ms=now_ms()).encode())
        box.say("hb", heartbeat(seq=seq).encode(), wait=False)
    wait_for(lambda: site.count("events") == 21, "the half that the other one got")
    leaves.start("--retire")
    assert leaves.wait() == 0
    assert (site.count("events"), site.count("heartbeats")) == (41, 20)  # heartbeats do not wait for anybody
    for seq in range(100, 110):
        box.say("evt", alert(seq=seq, at_ms=now_ms()).encode())
    wait_for(lambda: site.count("events") == 51, "everything, without the one that left")


@pytest.mark.parametrize(("said", "wanted"), [(None, "$share/word/"), (1, "$share/word/"), (0, "")])
def test_a_broker_that_cannot_share_gives_each_worker_everything(tmp_path: Path, said: int | None, wanted: str) -> None:
    pki = Pki(tmp_path / "pki")
    cert, key = pki.issue("ingest", pki.service)
    worker = Ingest(
        BrokerConfig(host="localhost", ca=pki.ca, cert=cert, key=key),
        Mock(),
        share="word",
        batch_messages=1,
        clock=now_ms,
        status=IngestStatus(),
        stop=threading.Event(),
    )
    client = Mock()
    properties = Properties(PacketTypes.CONNACK)
    if said is not None:
        properties.SharedSubscriptionAvailable = said
    worker._on_connect(client, None, None, Mock(is_failure=False), properties)
    filters = {name for name, _ in client.subscribe.call_args.args[0]}
    assert filters == {f"omamori/v1/+/{leaf}" for leaf in ("state", "reported")} | {
        f"{wanted}omamori/v1/+/{leaf}" for leaf in ("evt", "hb", "job/+")
    }
    worker._on_subscribe(client, None, 1, [Mock(is_failure=False)], None)
    assert client.unsubscribe.called is (said != 0)


def old_session(site: Site, client_id: str) -> None:
    """Leave a session as the version before left it: subscribed without a group."""
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
    context = ssl.create_default_context(cafile=str(site.pki.ca))
    context.load_cert_chain(*site.certificate)
    client.tls_set_context(context)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    client.on_connect = lambda *_: client.subscribe([("omamori/v1/+/evt", 1), ("omamori/v1/+/hb", 1)])
    client.connect("localhost", site.broker.service_port, properties=properties)
    client.loop_start()
    assert subscribed.wait(20)
    client.disconnect()
    client.loop_stop()
