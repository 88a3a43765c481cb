"""Which kind of ingest a broker needs: by its URL."""

from __future__ import annotations

import threading

from .clock import Clock
from .config import BrokerConfig
from .ingest import Ingest, IngestStatus
from .ingest_queue import QueueIngest
from .store.writer import Writer


def make_ingest(
    config: BrokerConfig,
    writer: Writer,
    *,
    share: str,
    batch_messages: int,
    clock: Clock,
    status: IngestStatus,
    stop: threading.Event,
    retire: bool = False,
) -> Ingest | QueueIngest:
    """Return the worker for a broker: subscriptions over MQTT, or a cluster's queues over AMQP.

    Args:
        config: Which broker, and who we are.
        writer: Where batches go.
        share: Name of the group of workers; only subscriptions need it.
        batch_messages: Most messages of one transaction.
        clock: Time of reception.
        status: Told whether messages come in.
        stop: Ends the worker's `run`.
        retire: Take in only what the broker still holds for this worker, and end.

    Raises:
        ConfigError: The certificates are not usable.
    """
    if config.has_queues:
        return QueueIngest(
            config, writer, batch_messages=batch_messages, clock=clock, status=status, stop=stop, retire=retire
        )
    return Ingest(
        config,
        writer,
        share=share,
        batch_messages=batch_messages,
        clock=clock,
        status=status,
        stop=stop,
        retire=retire,
    )
