"""Ingest from a cluster's queues: what is acknowledged and when, what ends a connection; pika is played."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pika.exceptions
import pytest

from omamori_cloud.config import BrokerConfig, parse_config
from omamori_cloud.errors import ConfigError, StoreUnavailableError
from omamori_cloud.ingest import Ingest, IngestStatus
from omamori_cloud.ingest_choice import make_ingest
from omamori_cloud.ingest_queue import EVENTS, STATES, QueueIngest
from omamori_cloud.intake import Message, Refusal
from sim.pki import Authority

from .makers import BOX, alert, state


class Channel:
    """A channel that remembers."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[str, Any]] = {}
        self.bound: list[tuple[str, str]] = []
        self.acknowledged: list[tuple[int, bool]] = []
        self.prefetch = 0
        self.take: Callable[..., None] = lambda *_: None
        self.cancel: Callable[..., None] = lambda *_: None

    def basic_qos(self, *, prefetch_count: int) -> None:
        self.prefetch = prefetch_count

    def add_on_cancel_callback(self, callback: Callable[..., None]) -> None:
        self.cancel = callback

    def queue_declare(self, queue: str, *, durable: bool, arguments: dict[str, Any]) -> None:
        assert durable
        self.queues[queue] = arguments

    def queue_bind(self, queue: str, exchange: str, key: str) -> None:
        assert exchange == "amq.topic"
        self.bound.append((queue, key))

    def basic_consume(self, queue: str, callback: Callable[..., None]) -> None:
        assert queue in self.queues
        self.take = callback

    def basic_ack(self, tag: int, *, multiple: bool) -> None:
        self.acknowledged.append((tag, multiple))


class Connection:
    """Delivers what `steps` say, one step for each look at the network."""

    def __init__(self, steps: list[Any], stop: threading.Event) -> None:
        self._steps = steps
        self._stop = stop
        self._tag = 0
        self.made = Channel()
        self.is_open = True
        self.slept = 0
        self.lost_after = 10_000

    def channel(self) -> Channel:
        return self.made

    def process_data_events(self, _limit_s: float) -> None:
        if not self._steps:
            self._stop.set()
            return
        step = self._steps.pop(0)
        if isinstance(step, BaseException):
            self.is_open = False
            raise step
        if step == "cancel":
            self.made.cancel(None)
            return
        for leaf, body in step:
            self._tag += 1
            method = SimpleNamespace(delivery_tag=self._tag, routing_key=f"omamori.v1.{BOX}.{leaf}")
            properties = SimpleNamespace(content_type="application/cbor")
            self.made.take(None, method, properties, body)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.05))
        self.slept += 1
        if self._steps and isinstance(self._steps[0], list):
            self.process_data_events(0)
        if self.slept > self.lost_after:
            self.is_open = False
            raise pika.exceptions.ConnectionClosedByBroker(320, "gone")

    def close(self) -> None:
        self.is_open = False


class Writer:
    """Stores, or is away for the first `away` times."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.batches: list[list[Message | Refusal]] = []

    def store(self, batch: list[Message | Refusal]) -> str:
        if self.away:
            self.away -= 1
            raise StoreUnavailableError("database: away")
        self.batches.append(list(batch))
        return "stored"


class Bench:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, retire: bool = False) -> None:
        authority = Authority("Service CA")
        authority.issue("ingest").write(folder / "key", folder / "cert")
        (folder / "ca").write_bytes(authority.pem)
        self.stop = threading.Event()
        self.status = IngestStatus()
        self.writer = Writer()
        self.connections: list[Connection] = []
        self.scripts: list[list[Any]] = []
        self.clock_ms = 1_700_000_000_000
        monkeypatch.setattr(pika, "BlockingConnection", self._connect)
        monkeypatch.setattr("omamori_cloud.ingest_queue._RETRY_FIRST_S", 0.01)
        config = BrokerConfig(
            host="localhost", ca=folder / "ca", cert=folder / "cert", key=folder / "key", has_queues=True
        )
        made = make_ingest(
            config,
            self.writer,  # type: ignore[arg-type]
            share="word",
            batch_messages=3,
            clock=lambda: self.clock_ms,
            status=self.status,
            stop=self.stop,
            retire=retire,
        )
        assert isinstance(made, QueueIngest)
        self.ingest = made

    def _connect(self, _parameters: Any) -> Connection:
        if not self.scripts:
            self.stop.set()
            raise pika.exceptions.AMQPConnectionError("nobody there")
        made = Connection(self.scripts.pop(0), self.stop)
        self.connections.append(made)
        return made

    def run(self, *scripts: list[Any]) -> None:
        self.scripts = list(scripts)
        self.ingest.run()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def events(*numbers: int) -> list[tuple[str, bytes]]:
    return [("evt", alert(seq=number).encode()) for number in numbers]


def test_queues_are_replicated_bounded_and_never_drop(bench: Bench) -> None:
    bench.run([[]])
    channel = bench.connections[0].made
    assert set(channel.queues) == {EVENTS, STATES}
    for arguments in channel.queues.values():
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-overflow"] == "reject-publish"
        assert arguments["x-delivery-limit"] == -1
        assert arguments["x-max-length"] > 0
    assert channel.queues[STATES]["x-single-active-consumer"]
    assert "x-single-active-consumer" not in channel.queues[EVENTS]
    assert sorted(channel.bound) == [
        (EVENTS, "omamori.v1.*.evt"),
        (EVENTS, "omamori.v1.*.hb"),
        (EVENTS, "omamori.v1.*.job.*"),
        (STATES, "omamori.v1.*.reported"),
        (STATES, "omamori.v1.*.state"),
    ]
    assert channel.prefetch > 0


def test_a_batch_is_acknowledged_once_it_is_stored(bench: Bench) -> None:
    bench.run([events(1), events(2), [], [("state", state().encode())], []])
    assert [len(batch) for batch in bench.writer.batches] == [2, 1]
    assert bench.connections[0].made.acknowledged == [(2, True), (3, True)]


def test_transactions_are_bounded_and_none_is_left_out(bench: Bench) -> None:
    bench.run([events(*range(7)), []])
    assert [len(batch) for batch in bench.writer.batches] == [3, 3, 1]
    assert bench.connections[0].made.acknowledged == [(7, True)]


def test_what_is_no_message_is_refused_and_acknowledged(bench: Bench) -> None:
    bench.run([[("evt", b"nonsense"), ("nobody/knows", b""), ("evt", b"x" * 70_000)], []])
    assert [type(item) for item in bench.writer.batches[0]] == [Refusal] * 3
    assert bench.connections[0].made.acknowledged == [(3, True)]


def test_while_the_database_is_away_the_connection_lives(bench: Bench) -> None:
    bench.writer.away = 2
    bench.run([events(1), [], events(2, 3), events(4), []])
    assert bench.connections[0].slept >= 2
    assert [len(batch) for batch in bench.writer.batches] == [1, 3]
    assert bench.connections[0].made.acknowledged == [(1, True), (4, True)]  # what came meanwhile is not stored yet
    assert bench.status.trouble == ""


def test_a_connection_lost_meanwhile_ends_the_trying(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has these messages by then, and newer states after them."""
    bench.writer.away = 1_000
    real = bench._connect

    def connect(parameters: Any) -> Connection:
        made = real(parameters)
        made.lost_after = 2
        bench.writer.away = 1_000 if len(bench.connections) == 1 else 0
        return made

    monkeypatch.setattr(pika, "BlockingConnection", connect)
    bench.run([[("state", state().encode())], []], [[]])
    assert bench.writer.batches == []
    assert bench.connections[0].made.acknowledged == []


def test_a_stop_while_the_database_is_away(bench: Bench) -> None:
    bench.writer.away = 1_000
    threading.Timer(0.2, bench.stop.set).start()
    bench.run([events(1), []])
    assert bench.writer.batches == []
    assert bench.connections[0].made.acknowledged == []
    assert not bench.connections[0].is_open


@pytest.mark.parametrize("loss", [pika.exceptions.StreamLostError("cut"), OSError("cut"), "cancel"])
def test_after_a_loss_it_connects_again_and_forgets(bench: Bench, loss: Any) -> None:
    bench.run([events(1), loss], [events(1), []])
    assert [len(batch) for batch in bench.writer.batches][-1] == 1
    assert bench.connections[1].made.acknowledged == [(1, True)]
    assert not bench.connections[0].is_open


def test_an_absent_broker_is_told(bench: Bench) -> None:
    bench.run()
    assert "cannot be reached: nobody there" in bench.status.trouble


def test_nothing_waits_for_one_that_retires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, retire=True)
    bench.run([[]])
    assert bench.connections == []


# The URL.

MINIMUM = 'ca = "ca"\ncert = "c"\nkey = "k"\n'


def broker(line: str) -> BrokerConfig:
    return parse_config(f"[broker]\n{line}\n{MINIMUM}".encode(), Path("/x")).broker


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ('url = "mqtts://b.example:8884"', ("b.example", 8884, False)),
        ('url = "mqtts://b.example"', ("b.example", 8883, False)),
        ('url = "amqps://b.example"', ("b.example", 5671, True)),
        ('url = "amqps://[2001:db8::1]:5000"', ("2001:db8::1", 5000, True)),
        ('host = "b.example"\nport = 8884', ("b.example", 8884, False)),
    ],
)
def test_the_url_says_which_broker(line: str, end: tuple[str, int, bool]) -> None:
    found = broker(line)
    assert (found.host, found.port, found.has_queues) == end


@pytest.mark.parametrize(
    "line",
    [
        'url = "mqtt://b.example"',
        'url = "amqps://user@b.example"',
        'url = "amqps://user:secret@b.example"',
        'url = "amqps://b.example/vhost"',
        'url = "amqps://b.example:65536"',
        'url = "amqps://b.example:x"',
        'url = "amqps://"',
        'url = "amqps://b.example"\nport = 1',
        'url = "amqps://b.example"\nhost = "b.example"',
        "",
    ],
)
def test_other_urls_are_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"broker\.(url|host)"):
        broker(line)


def test_mqtt_has_subscriptions(tmp_path: Path) -> None:
    authority = Authority("Service CA")
    authority.issue("ingest").write(tmp_path / "key", tmp_path / "cert")
    (tmp_path / "ca").write_bytes(authority.pem)
    config = BrokerConfig(host="x", ca=tmp_path / "ca", cert=tmp_path / "cert", key=tmp_path / "key")
    made = make_ingest(
        config,
        Writer(),  # type: ignore[arg-type]
        share="word",
        batch_messages=1,
        clock=lambda: 0,
        status=IngestStatus(),
        stop=threading.Event(),
    )
    assert isinstance(made, Ingest)
