"""Brings messages from a clustered broker into the store: the counterpart of `ingest` where workers share queues.

RabbitMQ has no shared subscriptions; it has queues, which lie on a majority of its nodes and give each message to one
of those who take from them. There are two:

* `EVENTS`: events, heartbeats and answers to commands. Whoever takes in has a share; what a dead worker had not
  acknowledged goes to others.
* `STATES`: states and reports on settings, which must keep their order: one worker at a time has them all, and another
  one when it is gone.

The queues exist whether or not anybody takes in, so a worker has no name at the broker that it had to keep. As in
`ingest`, a batch is acknowledged when it is stored, on the connection it came on. A full queue refuses, and boxes keep
what they have.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from omamori_protocol.topics import MAX_TOPIC_LENGTH, Leaf, any_device

from .clock import Clock
from .config import BrokerConfig
from .errors import StoreUnavailableError
from .ingest import MAX_PACKET_BYTES, RECEIVE_MAXIMUM, IngestStatus, tls_context
from .intake import Delivery, Message, Refusal, take_in
from .store.writer import Writer

logger = logging.getLogger(__name__)

EVENTS = "omamori.events"
STATES = "omamori.states"
MAX_QUEUED_MESSAGES = 1_000_000

_EXCHANGE = "amq.topic"  # where the MQTT plugin brings what boxes publish
_QUEUES: dict[str, tuple[tuple[Leaf, ...], dict[str, Any]]] = {
    EVENTS: ((Leaf.EVENT, Leaf.HEARTBEAT, Leaf.JOB), {}),
    STATES: ((Leaf.STATE, Leaf.REPORTED), {"x-single-active-consumer": True}),
}
_ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-max-length": MAX_QUEUED_MESSAGES,
    "x-overflow": "reject-publish",
    "x-delivery-limit": -1,  # the default drops what was given out twenty times, as while the database is away
}
_IDLE_WAIT_S = 0.5  # also how soon a stop is noticed
_GATHER_WAIT_S = 0.01  # silence after which a batch is stored
_GATHER_LIMIT_S = 0.2  # age at which it is stored although more is coming
_RETRY_FIRST_S, _RETRY_LAST_S = 0.5, 10.0
_CONNECT_TIMEOUT_S = 10.0
_LOST = (pika.exceptions.AMQPError, OSError)


class QueueIngest:
    """The worker; `run` is its thread."""

    name = "ingest"

    def __init__(
        self,
        config: BrokerConfig,
        writer: Writer,
        *,
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
            batch_messages: Most messages of one transaction.
            clock: Time of reception.
            status: Told whether messages come in.
            stop: Ends `run`.
            retire: End at once: nothing at the broker waits for a worker of this kind.

        Raises:
            ConfigError: The certificates are not usable.
        """
        self._config = config
        self._writer = writer
        self._batch_messages = batch_messages
        self._clock = clock
        self._status = status
        self._stop = stop
        self._retire = retire
        self._batch: list[Message | Refusal] = []
        self._last_tag = 0
        self._cancelled = False
        # It writes a stack trace for each lost connection; what it raises we tell in a line.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._parameters = pika.ConnectionParameters(
            host=config.host,
            port=config.port,
            virtual_host="/",
            credentials=pika.credentials.ExternalCredentials(),
            ssl_options=pika.SSLOptions(tls_context(config), config.host),
            heartbeat=config.keepalive_s,
            blocked_connection_timeout=config.keepalive_s * 2,
            socket_timeout=_CONNECT_TIMEOUT_S,
            stack_timeout=_CONNECT_TIMEOUT_S,
            client_properties={"connection_name": config.client_id},
        )

    def run(self) -> None:
        """Connect, take in, connect again, until stopped."""
        if self._retire:
            logger.info("%s has retired: workers at this broker leave nothing behind", self._config.client_id)
            return
        retry_s = _RETRY_FIRST_S
        while not self._stop.is_set():
            was_connected = self._converse()
            retry_s = _RETRY_FIRST_S if was_connected else min(retry_s * 2, _RETRY_LAST_S)
            self._stop.wait(retry_s)

    def _converse(self) -> bool:
        """Hold one connection until it ends; returns whether it was ever good."""
        self._batch = []
        self._cancelled = False
        was_connected = False
        connection = None
        try:
            connection = pika.BlockingConnection(self._parameters)
            channel = self._prepare(connection)
            was_connected = True
            self._report("")
            self._take_in(connection, channel)
        except _LOST as err:
            what = "the connection to the broker was lost" if was_connected else "the broker cannot be reached"
            self._report(f"{what}: {str(err)[:200] or type(err).__name__}")
        finally:
            if connection is not None and connection.is_open:
                try:
                    connection.close()
                except _LOST as err:
                    logger.debug("closing: %s", err)
        return was_connected

    def _prepare(self, connection: pika.BlockingConnection) -> BlockingChannel:
        """Make the queues if this is the first worker ever, and ask for what is in them."""
        channel = connection.channel()
        channel.basic_qos(prefetch_count=RECEIVE_MAXIMUM)
        channel.add_on_cancel_callback(self._on_cancel)
        for queue, (leaves, arguments) in _QUEUES.items():
            channel.queue_declare(queue, durable=True, arguments=_ARGUMENTS | arguments)
            for leaf in leaves:
                channel.queue_bind(queue, _EXCHANGE, any_device(leaf).replace("/", ".").replace("+", "*"))
        for queue in _QUEUES:
            channel.basic_consume(queue, self._on_message)
        return channel

    def _take_in(self, connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
        while not self._stop.is_set() and not self._cancelled:
            gathered = len(self._batch)
            connection.process_data_events(_GATHER_WAIT_S if gathered else _IDLE_WAIT_S)
            if self._batch and (len(self._batch) == gathered or self._batch_is_ripe()):
                # While the database is away, messages go on coming in: into the next batch.
                batch, self._batch = self._batch, []
                tag = self._last_tag
                self._store(connection, batch)
                channel.basic_ack(tag, multiple=True)
        if self._cancelled:
            self._report("the broker has taken our queue away")

    def _batch_is_ripe(self) -> bool:
        return (
            len(self._batch) >= self._batch_messages
            or self._clock() - self._batch[0].received_ms >= _GATHER_LIMIT_S * 1000
        )

    def _store(self, connection: pika.BlockingConnection, batch: list[Message | Refusal]) -> None:
        """Store a batch, in parts of the allowed size; while the database is away, keep the connection alive.

        A lost connection ends the trying: somebody else has these messages by then, and newer states after them.
        """
        for start in range(0, len(batch), self._batch_messages):
            part = batch[start : start + self._batch_messages]
            retry_s = _RETRY_FIRST_S
            while True:
                try:
                    logger.debug("stored %s", self._writer.store(part))
                    break
                except StoreUnavailableError as err:
                    self._report(str(err))
                until_s = time.monotonic() + retry_s
                while (left_s := until_s - time.monotonic()) > 0:
                    if self._stop.is_set():
                        raise pika.exceptions.AMQPConnectionError("stopped while the database is away")
                    connection.sleep(min(left_s, _IDLE_WAIT_S))
                retry_s = min(retry_s * 2, _RETRY_LAST_S)
        if self._status.trouble:
            self._report("")

    def _report(self, trouble: str) -> None:
        if self._status.set(trouble):
            if trouble:
                logger.warning("nothing comes in: %s", trouble)
            else:
                logger.info("messages come in from %s:%s", self._config.host, self._config.port)

    def _on_cancel(self, _frame: Any) -> None:
        self._cancelled = True

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._last_tag = method.delivery_tag
        topic = str(method.routing_key)[: MAX_TOPIC_LENGTH + 1].replace(".", "/")
        self._batch.append(
            take_in(
                Delivery(
                    topic=topic,
                    payload=body[: MAX_PACKET_BYTES + 1],
                    received_ms=self._clock(),
                    content_type=properties.content_type,
                )
            )
        )
