"""The operator at the broker: one message, or the end of a box's connection.

Connect with a client certificate, do it, wait until it is done, leave.

A broker's name may have several addresses: the nodes of a cluster. RabbitMQ keeps what is retained on the node that was
told, so every node is told (docs/adr/0049-clustered-broker.md); what is not retained goes to one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from .errors import RejectedError, SetupError, TransientError
from .pki import CA_FILE, CERTIFICATE_FILE, KEY_FILE

logger = logging.getLogger(__name__)

_CONTENT_TYPE = "application/cbor"
_KEEPALIVE_S = 30
_NO_SUBSCRIBERS = 0x10  # success on the surface
_NOT_WILLING = 0x83  # MQTT 5, 3.4.2.1: the message is valid; a cluster says so while queues look for a new leader
_AGAIN_S = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """Where the broker is and with which TLS directory to connect; `node` is one address of several."""

    host: str
    port: int
    tls_directory: Path
    node: str = ""

    def __str__(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port}" + (f" at {self.node}" if self.node else "")

    def nodes(self) -> list[list[BrokerAddress]]:
        """Return every address of its name, each kind (IPv6, IPv4) by itself, in the system's order.

        Raises:
            TransientError: The name cannot be resolved.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as err:
            raise TransientError(f"broker {self}: {err}") from err
        kinds = [list(kind) for _family, kind in itertools.groupby(found, key=lambda item: item[0])]
        return [[dataclasses.replace(self, node=str(item[4][0])) for item in kind] for kind in kinds]

    @staticmethod
    def parse(url: str, tls_directory: Path) -> BrokerAddress:
        """Read ``mqtts://host:port``.

        Raises:
            RejectedError: It is not such an address.
        """
        hint = "for example mqtts://broker.example.com:8883"
        try:
            parts = urlsplit(url)
            port = parts.port or 8883
        except ValueError as err:
            raise RejectedError(f"not a broker's address: {url[:100]!r}", hint=hint) from err
        if parts.scheme != "mqtts" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise RejectedError(f"not a broker's address: {url[:100]!r}", hint=hint)
        return BrokerAddress(host=parts.hostname, port=port, tls_directory=tls_directory)

    def tls_context(self) -> ssl.SSLContext:
        """Return a TLS 1.3 client context with the directory's certificate.

        Raises:
            SetupError: The directory lacks a file, or they do not fit together.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.tls_directory / CA_FILE))
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(self.tls_directory / CERTIFICATE_FILE, self.tls_directory / KEY_FILE)
        except (OSError, ssl.SSLError) as err:
            raise SetupError(
                f"{self.tls_directory} is not a usable TLS directory: {err}",
                hint="omamori-ota pki client KEYS DIR --name publisher",
            ) from err
        return context


def publish(
    broker: BrokerAddress,
    topic: str,
    payload: bytes,
    *,
    retain: bool,
    expiry_s: int | None = None,
    timeout_s: float = 10.0,
) -> None:
    """Publish one message (QoS 1) and wait until the broker has acknowledged it.

    Args:
        broker: Where.
        topic: The topic.
        payload: The message.
        retain: Whether the broker keeps it for those who come later.
        expiry_s: Seconds after which the broker forgets it; None for never.
        timeout_s: Seconds for connecting to a node, and as many for its acknowledgement.

    Raises:
        SetupError: The TLS directory is not usable.
        TransientError: No node was reached, took it, or acknowledged in time; or nobody hears what is not retained.
    """
    _tell(broker, [(topic, payload)], retain=retain, expiry_s=expiry_s, timeout_s=timeout_s)


def publish_retained(broker: BrokerAddress, messages: Sequence[tuple[str, bytes]], *, timeout_s: float = 10.0) -> None:
    """Publish many messages, topic and content, as `publish` does one that is retained; one connection for each node.

    Raises:
        SetupError: The TLS directory is not usable.
        TransientError: No node was reached, or took all of them; `timeout_s` is for connecting and for each message.
    """
    _tell(broker, messages, retain=True, expiry_s=None, timeout_s=timeout_s)


def _tell(
    broker: BrokerAddress,
    messages: Sequence[tuple[str, bytes]],
    *,
    retain: bool,
    expiry_s: int | None,
    timeout_s: float,
) -> None:
    """Tell every node, or one if nothing is to be retained; nodes that do not answer are only named."""
    failures: list[tuple[str, str]] = []  # what and what to do; an exception would keep its connection
    for kind in broker.nodes():
        failed: list[tuple[str, str]] = []
        for node in kind:
            try:
                with _connection(node, "", timeout_s) as connection:
                    for topic, payload in messages:
                        connection.publish(topic, payload, retain=retain, properties=_properties(expiry_s))
            except TransientError as err:
                failed.append((str(err), err.hint))
                continue
            if not retain:
                return
        if len(failed) < len(kind):
            for what, _hint in failed:
                logger.warning("%s; when it is back, tell it: omamori-ota desired resend", what)
            return
        failures += failed
    if not failures:
        raise TransientError(f"broker {broker} has no address")
    raise TransientError("; ".join(what for what, _hint in failures), hint=failures[0][1])


def _properties(expiry_s: int | None) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho does not annotate it
    properties.ContentType = _CONTENT_TYPE
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    return properties


def end_connection(broker: BrokerAddress, device: str, *, timeout_s: float = 10.0) -> None:
    """Make the broker end a box's connection and forget its session.

    MQTT lets a new connection with the same client id take over, whatever the broker's make; the box's id is its
    serial. The address must be a port where services choose their id (`broker_files.Listener(has_boxes=False)`): on
    the boxes' own port our id would be our certificate's name, and nothing would happen to the box.

    Raises:
        SetupError: The TLS directory is not usable, or the port is the boxes' own.
        TransientError: The broker was not reached, or refused.
    """
    with _connection(broker, f"{device}-off", timeout_s) as witness:
        with _connection(broker, device, timeout_s):
            pass
        if not witness.is_alive():
            raise SetupError(
                f"{broker.host}:{broker.port} gives us the id of our certificate, so the box was not reached",
                hint="take the port of the services",
            )


class _Client(mqtt.Client):
    """paho's client, which finds a certain node under the name of all."""

    end: tuple[str, int]

    def _create_socket_connection(self) -> socket.socket:
        return socket.create_connection(self.end, timeout=self.connect_timeout)


class _Connection:
    """An open connection."""

    def __init__(self, broker: BrokerAddress, client_id: str, timeout_s: float) -> None:
        self._where = str(broker)
        self._timeout_s = timeout_s
        self._broker = broker
        self._deadline = time.monotonic() + timeout_s
        self._refusals: list[str] = []
        self._answer: ReasonCode | None = None
        self._ended = threading.Event()
        self._heard = threading.Event()
        client = _Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        client.tls_set_context(broker.tls_context())
        client.connect_timeout = timeout_s
        client.end = (broker.node or broker.host, broker.port)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        self.client = client

    def open(self) -> None:
        """Connect, and wait for the broker's consent."""
        self.client.connect(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_S)
        self.client.loop_start()
        while not self.client.is_connected() and not self._refusals and time.monotonic() < self._deadline:
            time.sleep(0.01)
        if not self.client.is_connected():
            what = "; ".join(self._refusals) or "connection in time"
            raise TransientError(f"broker {self._where} did not accept the {what}")

    def publish(self, topic: str, payload: bytes, *, retain: bool, properties: Properties) -> None:
        """Publish, again and again as long as the broker is not willing, and wait for the acknowledgement."""
        self._deadline = time.monotonic() + self._timeout_s
        while True:
            answer = self._send(topic, payload, retain=retain, properties=properties)
            if answer is None or answer.value != _NOT_WILLING or time.monotonic() + _AGAIN_S >= self._deadline:
                break
            time.sleep(_AGAIN_S)
        if answer is None or answer.is_failure:
            what = "no answer in time" if answer is None else f"message: {answer}"
            raise TransientError(f"broker {self._where} did not acknowledge: {what}")
        if answer.value == _NO_SUBSCRIBERS and not retain:
            raise TransientError(
                f"broker {self._where} has nobody who would hear it", hint="the box is not connected; try again later"
            )

    def _send(self, topic: str, payload: bytes, *, retain: bool, properties: Properties) -> ReasonCode | None:
        self._answer = None
        message = self.client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        message.wait_for_publish(max(0.1, self._deadline - time.monotonic()))
        return self._answer

    def is_alive(self) -> bool:
        """Tell whether the broker still answers on this connection, whatever it answers."""
        self.client.subscribe("omamori/v1/announce/witness")
        while not self._ended.is_set() and not self._heard.wait(0.01):
            if time.monotonic() >= self._deadline:
                raise TransientError(f"broker {self._where} does not answer")
        return not self._ended.is_set()

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()

    def _on_connect(
        self,
        _client: mqtt.Client,
        _data: object,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: object,
    ) -> None:
        if reason.is_failure:
            self._refusals.append(f"connection: {reason}")

    def _on_publish(
        self, _client: mqtt.Client, _data: object, _mid: int, reason: ReasonCode, _properties: object
    ) -> None:
        self._answer = reason

    def _on_subscribe(self, *_facts: object) -> None:
        self._heard.set()

    def _on_disconnect(self, *_facts: object) -> None:
        self._ended.set()


@contextlib.contextmanager
def _connection(broker: BrokerAddress, client_id: str, timeout_s: float) -> Iterator[_Connection]:
    """Give an open connection; raises `SetupError` or `TransientError`, whatever goes wrong."""
    connection = _Connection(broker, client_id, timeout_s)
    try:
        connection.open()
        yield connection
    except (OSError, ValueError, RuntimeError) as err:
        raise TransientError(f"broker {broker}: {err}", hint="is it running, and does its certificate fit?") from err
    finally:
        connection.close()
