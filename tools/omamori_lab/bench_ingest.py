"""Measures how many events a second one ingest worker stores: on SQLite and on PostgreSQL.

A real broker with TLS and the product's configuration holds a backlog of alerts for a worker that is away. Then
``omamori-cloud ingest`` starts as a process of its own; counted is from the first stored event to the last. So the
figure has everything in it that a worker does: TLS, MQTT, decoding, transactions with the disk waited for,
acknowledgements.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy import Engine, func, select

from omamori_cloud.broker_files import INGEST, BrokerFiles, Listener, access_list
from omamori_cloud.store.database import open_database
from omamori_cloud.store.schema import Event as StoredEvent
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, Direction, EventKind, Function, Severity

from . import machine
from .bench_certificates import Issuer
from .benchmark import Benchmark, Figure, median
from .process_usage import usage
from .products import program
from .progress import Progress
from .run import Process, end, spawn
from .throwaway_postgres import ThrowawayPostgres
from .waiting import wait_for

NAME = "ingest"
_EVENTS = 30_000
_BOX = "ZA35-000001"
_PORT = 21_883
_WAIT_S = 120.0
_ENGINES = ("SQLite", "PostgreSQL")


@dataclasses.dataclass(frozen=True)
class _Site:
    folder: Path
    issuer: Issuer

    def config(self, url: str, password_file: Path | None, name: str) -> Path:
        path = self.folder / f"{name}.toml"
        password = f'password_file = "{password_file}"\n' if password_file else ""
        path.write_text(
            f'[broker]\nhost = "localhost"\nport = {_PORT}\nca = "{self.issuer.ca}"\n'
            f'cert = "{self.folder}/{INGEST}.crt"\n'
            f'key = "{self.folder}/{INGEST}.key"\nclient_id = "{name}"\n[database]\nurl = "{url}"\n{password}'
        )
        return path


@dataclasses.dataclass(frozen=True)
class _Rate:
    """Events a second, and the worker's processor time for each in microseconds."""

    per_s: float
    cpu_us: float


def measure(progress: Progress, *, rounds: int, events: int = _EVENTS) -> Benchmark:
    """Measure both engines.

    Args:
        progress: Told what is being done.
        rounds: How often each is measured, always with an empty store.
        events: In the backlog.

    Raises:
        SetupError: A program is missing.
    """
    rates: dict[str, list[_Rate]] = {name: [] for name in _ENGINES}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="omamori-ingest-") as name, _broker(Path(name)) as site:
            progress.step(f"SQLite, round {number + 1}")
            rates["SQLite"].append(_rate(site, f"sqlite:///{site.folder}/cloud.db", None, "sqlite", events))
            progress.step(f"PostgreSQL, round {number + 1}")
            with ThrowawayPostgres() as server:
                rates["PostgreSQL"].append(_rate(site, server.url, server.password_file, "postgresql", events))
    return Benchmark(
        name=NAME,
        title="Ingest",
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions={},
        figures=tuple(figure for engine in _ENGINES for figure in _figures(engine, rates[engine], events)),
    )


def _figures(engine: str, rates: list[_Rate], events: int) -> Iterator[Figure]:
    told = f"alerts that one worker took from the broker (TLS, QoS 1) and stored, of a backlog of {events}"
    budget = "≥ 5 000" if engine == "PostgreSQL" else ""
    yield median(f"events a second, one worker, {engine}", [rate.per_s for rate in rates], "/s", told, budget=budget)
    yield median(
        f"processor time of an event, {engine}",
        [rate.cpu_us for rate in rates],
        "µs",
        "Of the worker's process over the same events: what a busy machine changes less than the rate.",
    )


@contextlib.contextmanager
def _broker(folder: Path) -> Iterator[_Site]:
    site = _Site(folder, Issuer(folder))
    site.issuer.issue("localhost", "tls")
    for name in (INGEST, _BOX):
        site.issuer.issue(name, name)
    listener = Listener(port=_PORT, address="127.0.0.1", clients=site.issuer.ca, has_boxes=False)
    files = BrokerFiles(state=folder, tls=folder, listeners=(listener,), user="root")
    (folder / "mosquitto.conf").write_text(files.settings())
    files.access_list_path.write_text(access_list())
    files.access_list_path.chmod(0o600)
    with (folder / "broker.log").open("ab") as log:
        process = spawn(["/usr/sbin/mosquitto", "-c", folder / "mosquitto.conf"], log=log)
        try:
            yield site
        finally:
            end(process)


def _rate(site: _Site, url: str, password_file: Path | None, name: str, events: int) -> _Rate:
    config = site.config(url, password_file, name)
    with _worker(site, config):  # the broker knows its name from now on
        pass
    _publish(site, events)
    engine = open_database(url, password_file=password_file)
    try:
        with _worker(site, config, connected=False) as worker:
            wait_for(lambda: _stored(engine) > 0, "the first event", timeout_s=_WAIT_S)
            began, first = usage(worker.pid), _stored(engine)
            wait_for(lambda: _stored(engine) >= events, "the last event", timeout_s=_WAIT_S)
            ended = usage(worker.pid)
            count = events - first
            return _Rate(count / (ended.at_s - began.at_s), 1e6 * (ended.cpu_s - began.cpu_s) / count)
    finally:
        engine.dispose()


def _stored(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(StoredEvent)).scalar_one())


@contextlib.contextmanager
def _worker(site: _Site, config: Path, *, connected: bool = True) -> Iterator[Process]:
    path = site.folder / "worker.log"
    before = path.read_text().count("messages come in") if path.exists() else 0
    with path.open("ab") as log:
        process = spawn([program("omamori-cloud"), "ingest", "--config", config, "--worker", "1"], log=log)
    try:
        if connected:
            wait_for(lambda: path.read_text().count("messages come in") > before, "the worker", timeout_s=_WAIT_S)
        yield process
    finally:
        end(process)


def _publish(site: _Site, events: int) -> None:
    """Let a box say so many alerts, and wait until the broker has them all."""
    client = Client(CallbackAPIVersion.VERSION2, client_id=_BOX, protocol=MQTTProtocolVersion.MQTTv5)
    client.tls_set(str(site.issuer.ca), f"{site.folder}/{_BOX}.crt", f"{site.folder}/{_BOX}.key")
    client.max_inflight_messages_set(1_000)
    acknowledged = threading.Semaphore(0)
    client.on_publish = lambda *_: acknowledged.release()
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    properties.ContentType = "application/cbor"
    client.connect("localhost", _PORT)
    client.loop_start()
    for number in range(events):
        client.publish(f"omamori/v1/{_BOX}/evt", _alert(number), qos=1, properties=properties)
        if number >= 1_000:
            acknowledged.acquire(timeout=_WAIT_S)
    for _ in range(min(events, 1_000)):
        acknowledged.acquire(timeout=_WAIT_S)
    client.disconnect()
    client.loop_stop()


def _alert(number: int) -> bytes:
    return Event(
        boot=1,
        seq=number,
        at_ms=time.time_ns() // 1_000_000,
        kind=EventKind.ALERT,
        severity=Severity.TWO,
        function=Function.DANGEROUS_SITE,
        direction=Direction.OUT,
        action=Action.BLOCKED,
        terminal_ip=f"192.168.10.{number % 200 + 1}",
        terminal_mac=bytes.fromhex("02005e100001"),
        destination=f"host{number % 977}.phishing.test",
        remote_ip="203.0.113.80",
        remote_port=443,
        protocol="tls",
        rule_id=9_000_012,
        rule="Omamori dangerous site (TLS SNI)",
    ).encode()
