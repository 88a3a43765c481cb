"""Brings messages from the broker into the store.

One thread speaks with the broker: it reads what the broker has, has it stored as a batch in one transaction, and only
then acknowledges it, on the same connection. While a batch is stored, by a second thread, the next one is gathered, and
no more: while the database does not answer, nothing is read, so the broker keeps what we have not stored (its session
for us survives our absence, and its own restart if it is told to persist). After a lost connection nothing that
belonged to it is acknowledged: the broker delivers it again, and the store recognises it.

Several workers may do this at a time, each under a name of its own, which it keeps: what the broker has given to a
worker waits for that worker (docs/adr/0045-shared-ingest.md).

* Events, heartbeats and answers to commands are shared: each goes to one worker.
* States and reports on settings go to every worker, one after the other. They are few and retained, and a shared
  subscription would bring no retained messages.

It decides nothing about messages: see `intake`, `presence` and `store.writer`.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from omamori_protocol.topics import MAX_TOPIC_LENGTH, Leaf, any_device

from .clock import Clock
from .config import BrokerConfig
from .errors import ConfigError, StoreUnavailableError
from .intake import Delivery, Message, Refusal, take_in
from .store.writer import Writer

logger = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 2_000  # messages the broker may send before we acknowledge one
MAX_PACKET_BYTES = 64 * 1024  # larger ones never reach us; the broker drops them

_IDLE_WAIT_S = 0.5  # also how soon a stop is noticed
_GATHER_WAIT_S = 0.01  # silence after which a batch is stored
_GATHER_LIMIT_S = 0.2  # age at which it is stored although more is coming
_RETRY_FIRST_S, _RETRY_LAST_S = 0.5, 10.0
_CONNECT_TIMEOUT_S = 10.0
_READ_AHEAD_BYTES = 16 * 1024  # as much as a TLS record holds
_DRAINED_AFTER_S = 3.0  # silence after which a worker that retires has everything
_SHARED = (Leaf.EVENT, Leaf.HEARTBEAT, Leaf.JOB)
_WHOLE = (Leaf.STATE, Leaf.REPORTED)


class IngestStatus:
    """Whether messages come in now; written by the ingest thread, read by the page."""

    def __init__(self) -> None:
        """Start out disconnected."""
        self._lock = threading.Lock()
        self._trouble = "not connected yet"

    def set(self, trouble: str) -> bool:
        """Set what is wrong (empty: nothing); returns whether that is news."""
        with self._lock:
            news = trouble != self._trouble
            self._trouble = trouble
            return news

    @property
    def trouble(self) -> str:
        """What keeps messages from coming in; empty while they do."""
        with self._lock:
            return self._trouble


def tls_context(config: BrokerConfig) -> ssl.SSLContext:
    """Return TLS 1.3 with our certificate; trusts the configured authority and no other.

    Raises:
        ConfigError: A file cannot be read or does not hold what it should.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=config.ca)
    except (OSError, ssl.SSLError) as err:
        raise ConfigError("broker.ca", f"{config.ca} is not usable: {err}") from err
    try:
        context.load_cert_chain(config.cert, config.key, password="")  # never ask on a terminal
    except (OSError, ssl.SSLError) as err:
        raise ConfigError("broker.cert", f"{config.cert} and its key are not usable: {err}") from err
    return context


class _ReadAhead:
    """An encrypted connection for paho, which asks for a byte, another one, and then for the rest of each message."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._ready = b""
        self._read = 0

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes; empty at the end."""
        if self._read >= len(self._ready):
            self._ready = self._sock.recv(_READ_AHEAD_BYTES)
            self._read = 0
        piece = self._ready[self._read : self._read + size]
        self._read += len(piece)
        return piece

    def pending(self) -> int:
        """Return how many bytes there are without asking the network."""
        return len(self._ready) - self._read or int(self._sock.pending())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Client(Client):
    def _create_socket(self) -> Any:
        return _ReadAhead(super()._create_socket())

    def loop(self, timeout: float = 1.0) -> MQTTErrorCode:
        # Without the pair of sockets by which paho wakes another thread: only one speaks with the broker here, and each
        # acknowledgement would write to it.
        return self._loop(timeout)


class Ingest:
    """The worker; `run` is its thread."""

    name = "ingest"

    def __init__(
        self,
        config: BrokerConfig,
        writer: Writer,
        *,
        share: str,
        batch_messages: int,
        clock: Clock,
        status: IngestStatus,
        stop: threading.Event,
        retire: bool = False,
    ) -> None:
        """Take the collaborators and read the certificates.

        Args:
            config: Which broker, and who we are.
            writer: Where batches go; used by this worker only.
            share: Name of the group of workers, the same for all.
            batch_messages: Most messages of one transaction.
            clock: Time of reception.
            status: Told whether messages come in.
            stop: Ends `run`.
            retire: Take in only what the broker still holds for this worker, then give up its name, and end.

        Raises:
            ConfigError: The certificates are not usable.
        """
        self._config = config
        self._writer = writer
        self._batch_messages = batch_messages
        self._clock = clock
        self._status = status
        self._stop = stop
        self._shared = [f"$share/{share}/{any_device(leaf)}" for leaf in _SHARED]
        self._can_share = True
        self._retire = retire
        self._heard_s: float | None = None  # when a worker that retires last heard something
        self._retired = False
        self._batch: list[Message | Refusal] = []
        self._unacknowledged: list[tuple[int, int]] = []
        self._storing: tuple[Future[bool], list[tuple[int, int]]] | None = None  # and what to acknowledge afterwards
        self._storer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._ended = ""
        self._client = self._make_client(tls_context(config))

    def _make_client(self, context: ssl.SSLContext) -> Client:
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._config.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.tls_set_context(context)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def run(self) -> None:
        """Connect, take in, connect again, until stopped."""
        retry_s = _RETRY_FIRST_S
        with self._storer:
            while not self._stop.is_set():
                was_connected = self._converse()
                if self._stop.is_set() or self._retired:
                    break
                retry_s = _RETRY_FIRST_S if was_connected else min(retry_s * 2, _RETRY_LAST_S)
                self._stop.wait(retry_s)

    def _converse(self) -> bool:
        """Hold one connection until it ends; returns whether it was ever good."""
        self._settle(acknowledge=False, wait=True)  # of the connection before
        self._batch, self._unacknowledged = [], []
        self._ended = ""
        self._heard_s = None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        properties.SessionExpiryInterval = self._config.session_expiry_s
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        try:
            self._client.connect(
                self._config.host,
                self._config.port,
                keepalive=self._config.keepalive_s,
                clean_start=False,
                properties=properties,
            )
            was_connected = self._take_in_while_connected()
        except OSError as err:
            self._report(f"the broker cannot be reached: {err}")
            return False
        if not self._stop.is_set() and not self._retired:
            self._report(self._ended or "the connection to the broker was lost")
        return was_connected

    def _take_in_while_connected(self) -> bool:
        was_connected = False
        while True:
            gathered = len(self._batch)
            rc = self._client.loop(_GATHER_WAIT_S if gathered or self._storing else _IDLE_WAIT_S)
            if rc == MQTTErrorCode.MQTT_ERR_SUCCESS and len(self._batch) > gathered:
                rc = self._read_on()
            was_connected = was_connected or self._client.is_connected()
            is_live = rc == MQTTErrorCode.MQTT_ERR_SUCCESS
            self._settle(acknowledge=is_live, wait=not is_live)
            if self._batch and (len(self._batch) == gathered or self._batch_is_ripe() or not is_live):
                self._store(acknowledge=is_live)
            if not is_live:
                self._settle(acknowledge=False, wait=True)
                return was_connected
            if self._stop.is_set():
                self._settle(acknowledge=True, wait=True)
                self._client.disconnect()
                return was_connected
            if self._heard_s is not None and time.monotonic() - self._heard_s > _DRAINED_AFTER_S:
                self._settle(acknowledge=True, wait=True)
                self._give_up_name()
                return was_connected

    def _read_on(self) -> MQTTErrorCode:
        """Take in what has come already; asking the kernel before each message costs more than the message."""
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        gathered = -1
        while rc == MQTTErrorCode.MQTT_ERR_SUCCESS and gathered < len(self._batch) < self._batch_messages:
            gathered = len(self._batch)
            rc = self._client.loop_read()
        return rc

    def _give_up_name(self) -> None:
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
        properties.SessionExpiryInterval = 0
        self._client.disconnect(properties=properties)
        self._retired = True
        logger.info("%s has retired", self._config.client_id)

    def _batch_is_ripe(self) -> bool:
        return (
            len(self._batch) >= self._batch_messages
            or self._clock() - self._batch[0].received_ms >= _GATHER_LIMIT_S * 1000
        )

    def _store(self, *, acknowledge: bool) -> None:
        """Have the batch stored; while the one before is not, gather on until this one is full."""
        if self._storing is not None and len(self._batch) < self._batch_messages:
            return
        self._settle(acknowledge=acknowledge, wait=True)
        self._storing = (self._storer.submit(self._store_at_last, self._batch), self._unacknowledged)
        self._batch, self._unacknowledged = [], []

    def _store_at_last(self, batch: list[Message | Refusal]) -> bool:
        """Store a batch, however long the database takes to answer; returns False only if we are stopped meanwhile."""
        retry_s = _RETRY_FIRST_S
        while True:
            try:
                report = self._writer.store(batch)
                break
            except StoreUnavailableError as err:
                self._report(str(err))
                if self._stop.wait(retry_s):
                    return False
                retry_s = min(retry_s * 2, _RETRY_LAST_S)
        logger.debug("stored %s", report)
        return True

    def _settle(self, *, acknowledge: bool, wait: bool = False) -> None:
        """Acknowledge the batch that is being stored as soon as it is.

        Args:
            acknowledge: Whether the connection that it came over is still there.
            wait: Until it is stored.
        """
        if self._storing is None or not (wait or self._storing[0].done()):
            return
        future, unacknowledged = self._storing
        is_stored = future.result()  # raises what ends the worker
        self._storing = None
        if not is_stored or not acknowledge:
            return
        for mid, qos in unacknowledged:
            self._client.ack(mid, qos)
        if self._client.is_connected() and self._status.trouble.startswith("database"):
            self._report("")

    def _report(self, trouble: str) -> None:
        if self._status.set(trouble):
            if trouble:
                logger.warning("nothing comes in: %s", trouble)
            else:
                logger.info("messages come in from %s:%s", self._config.host, self._config.port)

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._ended = f"the broker refuses us: {reason}"
            return
        if self._retire:
            client.unsubscribe([*self._shared, *map(any_device, (*_SHARED, *_WHOLE))])
            return
        options = SubscribeOptions(qos=1)
        # A broker that cannot share gives every worker everything; the store keeps each event once all the same.
        self._can_share = getattr(properties, "SharedSubscriptionAvailable", 1) != 0
        events = self._shared if self._can_share else map(any_device, _SHARED)
        filters = [*map(any_device, _WHOLE), *events]
        client.subscribe([(name, options) for name in filters])

    def _on_subscribe(self, client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._ended = f"the broker refuses our subscription: {', '.join(refused)[:200]}"
            client.disconnect()
            return
        # What a worker of the time before shared subscriptions asked for; the broker remembers it with our name.
        if self._can_share:
            client.unsubscribe([any_device(leaf) for leaf in _SHARED])
        self._report("")

    def _on_unsubscribe(self, _client: Client, _data: Any, _mid: int, _reasons: Any, _properties: Any) -> None:
        if self._retire:
            self._heard_s = time.monotonic()
            self._report("")

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure and not self._ended:
            self._ended = f"the connection to the broker was lost: {reason}"

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if self._heard_s is not None:
            self._heard_s = time.monotonic()
        try:
            topic = message.topic[: MAX_TOPIC_LENGTH + 1]
        except UnicodeDecodeError:
            topic = ""
        self._batch.append(
            take_in(
                Delivery(
                    topic=topic,
                    payload=bytes(message.payload),
                    received_ms=self._clock(),
                    retained=message.retain,
                    content_type=getattr(message.properties, "ContentType", None),
                )
            )
        )
        if message.qos > 0:
            self._unacknowledged.append((message.mid, message.qos))
