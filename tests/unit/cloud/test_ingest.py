"""Reading goes on while a batch is stored, and yet nothing is acknowledged before it is, nor for another connection."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.enums import MQTTErrorCode

from omamori_cloud.config import BrokerConfig
from omamori_cloud.errors import StoreUnavailableError
from omamori_cloud.ingest import Ingest, IngestStatus, _ReadAhead
from omamori_cloud.intake import Message, Refusal
from omamori_cloud.store.batch import StoreReport
from sim.pki import Authority

from .makers import BOX, NOW_MS, alert

OK, LOST = MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_CONN_LOST
WAIT_S = 20.0
BATCH = 3


class Writer:
    """Stores when it may."""

    def __init__(self) -> None:
        self.may_store = threading.Event()
        self.is_away = False
        self.began: list[int] = []
        self.stored: list[Message | Refusal] = []

    def store(self, batch: Sequence[Message | Refusal]) -> StoreReport:
        self.began.append(len(batch))
        if self.is_away:
            raise StoreUnavailableError("database: away")
        assert self.may_store.wait(WAIT_S)
        self.stored += batch
        return StoreReport(events=len(batch))


class Said:
    """A message as paho hands it over."""

    def __init__(self, number: int) -> None:
        self.mid, self.qos, self.retain, self.properties = number, 1, False, None
        self.topic = f"omamori/v1/{BOX}/evt"
        self.payload = alert(seq=number).encode()


class Broker:
    """In place of paho's client: says what it has, one message at each reading."""

    def __init__(self, ingest: Ingest) -> None:
        self._hand_over: Callable[[Any], None] = lambda message: ingest._on_message(None, None, message)  # type: ignore[arg-type]
        self.waiting: deque[Said] = deque()
        self.acknowledged: list[int] = []
        self.state = OK
        self.ended = False

    def connect(self, *_args: object, **_options: object) -> None:
        """Always possible."""

    def loop(self, timeout_s: float) -> MQTTErrorCode:
        if not self.waiting:
            time.sleep(min(timeout_s, 0.01))
        return self.loop_read()

    def loop_read(self) -> MQTTErrorCode:
        if self.state is OK and self.waiting:
            self._hand_over(self.waiting.popleft())
        return self.state

    def ack(self, mid: int, qos: int) -> None:
        assert qos == 1
        self.acknowledged.append(mid)

    def is_connected(self) -> bool:
        return self.state is OK

    def disconnect(self) -> None:
        self.ended = True


class Rig:
    def __init__(self, folder: Path) -> None:
        authority = Authority("service")
        authority.issue("ingest").write(folder / "key", folder / "crt")
        (folder / "ca").write_bytes(authority.pem)
        self.stop = threading.Event()
        self.writer = Writer()
        self.ingest = Ingest(
            BrokerConfig(host="localhost", port=1, ca=folder / "ca", cert=folder / "crt", key=folder / "key"),
            self.writer,  # type: ignore[arg-type]
            share="group",
            batch_messages=BATCH,
            clock=lambda: NOW_MS,
            status=IngestStatus(),
            stop=self.stop,
        )
        self.broker = self.ingest._client = Broker(self.ingest)  # type: ignore[assignment]
        self._thread = threading.Thread(target=self.ingest.run)

    def start(self, messages: int) -> None:
        self.broker.waiting.extend(Said(number) for number in range(1, messages + 1))
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self.writer.may_store.set()
        if self._thread.ident is not None:
            self._thread.join(WAIT_S)
            assert not self._thread.is_alive()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.end()


def until(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stays(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        assert probe()
        time.sleep(0.01)


def test_one_more_batch_is_gathered_while_one_is_stored_and_nothing_beyond(rig: Rig) -> None:
    rig.start(messages=10)
    until(lambda: len(rig.broker.waiting) == 10 - 2 * BATCH)
    stays(lambda: len(rig.broker.waiting) == 10 - 2 * BATCH and not rig.broker.acknowledged)
    rig.writer.may_store.set()
    until(lambda: rig.broker.acknowledged == list(range(1, 11)))
    assert [item.body.seq for item in rig.writer.stored if isinstance(item, Message)] == list(range(1, 11))


def test_what_is_stored_when_the_connection_is_lost_is_not_acknowledged(rig: Rig) -> None:
    rig.start(messages=5)
    until(lambda: rig.writer.began == [BATCH] and not rig.broker.waiting)
    rig.broker.state = LOST
    time.sleep(0.1)
    rig.writer.may_store.set()
    until(lambda: len(rig.writer.stored) == 5)  # also what was gathered: heartbeats come only once
    rig.broker.state = OK
    rig.broker.waiting.extend(Said(number) for number in (6, 7))
    until(lambda: len(rig.broker.acknowledged) == 2)
    assert rig.broker.acknowledged == [6, 7]


def test_nothing_is_acknowledged_when_the_end_comes_while_the_database_is_away(rig: Rig) -> None:
    rig.writer.is_away = True
    rig.start(messages=2)
    until(lambda: bool(rig.writer.began))
    rig.stop.set()
    until(lambda: rig.broker.ended)
    assert not rig.broker.acknowledged
    assert not rig.writer.stored


def test_the_end_waits_for_what_is_being_stored(rig: Rig) -> None:
    rig.start(messages=2)
    until(lambda: rig.writer.began == [2])
    rig.stop.set()
    stays(lambda: not rig.broker.ended)
    rig.writer.may_store.set()
    until(lambda: rig.broker.ended)
    assert rig.broker.acknowledged == [1, 2]


def test_what_the_store_raises_ends_the_worker(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_batch: object) -> StoreReport:
        raise ZeroDivisionError

    monkeypatch.setattr(rig.writer, "store", fail)
    rig.broker.waiting.append(Said(1))
    with pytest.raises(ZeroDivisionError):
        rig.ingest.run()
    assert not rig.broker.acknowledged


class Line:
    """A connection that has pieces for us."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.asked: list[int] = []

    def recv(self, size: int) -> bytes:
        self.asked.append(size)
        if not self.pieces:
            raise ssl.SSLWantReadError
        return self.pieces.pop(0)

    def pending(self) -> int:
        return 0

    def fileno(self) -> int:
        return 7


def test_a_record_is_read_once_and_given_out_in_pieces() -> None:
    line = Line(b"abcdef", b"gh", b"")
    ahead = _ReadAhead(line)
    assert ahead.fileno() == 7
    assert ahead.pending() == 0
    assert [ahead.recv(1), ahead.recv(1)] == [b"a", b"b"]
    assert ahead.pending() == 4
    assert [ahead.recv(10), ahead.recv(1), ahead.recv(5)] == [b"cdef", b"g", b"h"]
    assert ahead.pending() == 0
    assert ahead.recv(1) == b""
    with pytest.raises(ssl.SSLWantReadError):
        ahead.recv(1)
    assert len(line.asked) == 4
