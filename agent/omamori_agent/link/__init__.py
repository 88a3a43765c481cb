"""The box's one connection to the cloud: presence, heartbeats and events out, hints in.

`broker` is the narrow interface to a broker, `mqtt` the real one, `window` decides which events to send when,
`presence` words the box's state, `worker` puts them together.
"""

from __future__ import annotations

from .broker import Broker, BrokerConnection, BrokerRefusedError, BrokerUnreachableError
from .mqtt import MQTTBroker
from .presence import describe
from .worker import LinkWorker

__all__ = [
    "Broker",
    "BrokerConnection",
    "BrokerRefusedError",
    "BrokerUnreachableError",
    "LinkWorker",
    "MQTTBroker",
    "describe",
]
