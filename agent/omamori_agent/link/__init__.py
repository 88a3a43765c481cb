"""The box's one connection to the cloud: presence, heartbeats and events out, hints in.

`broker` is the narrow interface to a broker, `mqtt` the real one, `road` and `websocket` lead to it, `window` and
`pace` decide which events to send when, `doubt` which ones once more, `presence` words the box's state, `worker` puts
them together.
"""

from __future__ import annotations

from .broker import Broker, BrokerConnection, BrokerRefusedError, BrokerUnreachableError
from .mqtt import MQTTBroker
from .presence import describe
from .road import Road, roads
from .worker import LinkWorker

__all__ = [
    "Broker",
    "BrokerConnection",
    "BrokerRefusedError",
    "BrokerUnreachableError",
    "LinkWorker",
    "MQTTBroker",
    "Road",
    "describe",
    "roads",
]
