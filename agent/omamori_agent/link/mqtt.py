"""`broker.Broker` over MQTT 5 and TLS 1.3 with paho-mqtt.

paho brings the packets; its threads, queues, reconnection and ways to the network are not used: one client object is
one connection, driven by the link's thread. Everything from the broker that paho cannot read ends the connection,
nothing more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any

import paho.mqtt
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from omamori_agent.config import LinkLimits
from omamori_agent.errors import SetupError
from omamori_agent.identity import Identity
from omamori_agent.text import clean_text

from .broker import Acknowledged, BrokerRefusedError, BrokerUnreachableError, Hello, Incoming, Received, Waker
from .road import Road
from .websocket import WebSocket

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/cbor"
_REFUSAL = 0x80
_DEFAULT_RECEIVE_MAXIMUM = 65535
_CONNACK_POLL_S = 0.2
_TOPIC_ALIAS = 1
# What paho lets through on bytes that are not MQTT.
_NONSENSE = (paho.mqtt.MQTTException, ValueError, struct.error, IndexError, KeyError, TypeError, AssertionError)


class MQTTBroker:
    """Makes connections to one broker, by the way that worked last; after a failure by the next one.

    Args:
        ways: How it can be reached; at least one.
        service_ca: PEM file of the only CA that is trusted.
        limits: Bounds and intervals.
    """

    def __init__(self, ways: Sequence[Road], service_ca: str, limits: LinkLimits) -> None:
        self._ways = list(ways)
        self._service_ca = service_ca
        self._limits = limits

    def connect(self, hello: Hello, identity: Identity, stop: threading.Event) -> MQTTConnection:
        """Connect and wait for the broker's consent.

        Raises:
            BrokerUnreachableError: No answer in time, or `stop` was set.
            BrokerRefusedError: Certificates or the broker said no.
            SetupError: Our own files cannot be read.
        """
        connection = self.make_connection(hello, self._ways[0], self._context(identity), self._limits)
        try:
            connection.open(stop)
        except BaseException:
            connection.close()
            self._ways.append(self._ways.pop(0))
            raise
        return connection

    def make_connection(self, hello: Hello, road: Road, context: ssl.SSLContext, limits: LinkLimits) -> MQTTConnection:
        """Return a connection that is not open yet; the lab's fleet has its own, which waits together with others."""
        return MQTTConnection(hello, road, context, limits)

    def _context(self, identity: Identity) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(self._service_ca)
            context.load_cert_chain(identity.certificate_path, identity.key_path)
        except OSError as err:
            raise SetupError(f"link: certificates cannot be loaded: {err}") from err
        return context


class _RoadClient(Client):
    """paho's client on a connection that we made: it knows neither our deadline nor our ways."""

    road: Road
    context: ssl.SSLContext

    def _create_socket(self) -> Any:
        return self.road.open(self.context, self.connect_timeout)


class MQTTConnection:
    """One connection; see `broker.BrokerConnection`."""

    def __init__(self, hello: Hello, road: Road, context: ssl.SSLContext, limits: LinkLimits) -> None:
        self._limits = limits
        self._road = road
        self._incoming: list[Incoming] = []
        self._consent: ReasonCode | None = None
        self._lost: str | None = None
        self._topic_aliases = 0  # how many the broker takes
        self._aliased: str | None = None  # the topic that has ours
        self.receive_maximum = _DEFAULT_RECEIVE_MAXIMUM
        self.session_present = False
        self.keeps_sessions = True
        self._client = client = _RoadClient(
            CallbackAPIVersion.VERSION2,
            client_id=hello.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = limits.connect_timeout_s
        client.max_inflight_messages_set(limits.receive_maximum * 2)  # the window is ours, not paho's
        client.road = road
        client.context = context
        will = _properties(PacketTypes.WILLMESSAGE, WillDelayInterval=limits.will_delay_s, ContentType=CONTENT_TYPE)
        client.will_set(hello.will_topic, hello.will_payload, qos=1, retain=True, properties=will)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe

    def open(self, stop: threading.Event) -> None:
        """Connect; see `MQTTBroker.connect`."""
        road = self._road
        properties = _properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=self._limits.session_expiry_s,
            ReceiveMaximum=self._limits.receive_maximum,
            MaximumPacketSize=self._limits.max_packet_bytes,
        )
        try:
            self._client.connect(
                road.host,
                road.port,
                keepalive=self._limits.keepalive_s,
                clean_start=False,
                properties=properties,
            )
        except ssl.SSLCertVerificationError as err:
            raise BrokerRefusedError(f"broker {road}: certificate refused: {err.verify_message}") from err
        except OSError as err:
            raise BrokerUnreachableError(f"broker {road}: {clean_text(str(err), 160)}") from err
        deadline = time.monotonic() + self._limits.connect_timeout_s
        while self._consent is None:
            if stop.is_set() or time.monotonic() > deadline:
                raise BrokerUnreachableError(f"broker {road}: no answer to CONNECT")
            self._step(_CONNACK_POLL_S, None)
        if self._consent.value >= _REFUSAL:
            raise BrokerRefusedError(f"broker {road}: refused: {self._consent}")

    @property
    def local_address(self) -> str:
        """IP address of our side; empty when the connection is lost."""
        sock = self._client.socket()
        if sock is None:
            return ""
        try:
            with socket.socket(fileno=os.dup(sock.fileno())) as same:
                return str(same.getsockname()[0]).partition("%")[0]
        except OSError:
            return ""

    def publish(
        self, topic: str, payload: bytes, *, confirmed: bool, retain: bool = False, expires_s: int | None = None
    ) -> int:
        """Send a message; returns its id."""
        values: dict[str, int | str] = {"ContentType": CONTENT_TYPE}
        if expires_s is not None:
            values["MessageExpiryInterval"] = expires_s
        if not confirmed and self._topic_aliases:
            # Heartbeats are all that goes out unconfirmed: from the second one on without their topic, which says what
            # they are made of.
            values["TopicAlias"] = _TOPIC_ALIAS
            if topic == self._aliased:
                topic = ""
                del values["ContentType"]
            else:
                self._aliased = topic
        properties = _properties(PacketTypes.PUBLISH, **values)
        info = self._client.publish(topic, payload, qos=int(confirmed), retain=retain, properties=properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise BrokerUnreachableError(f"connection lost: {info.rc.name}")
        return info.mid

    def subscribe(self, topic: str) -> None:
        """Ask for messages on `topic`, retained ones included."""
        code, _message_id = self._client.subscribe(topic, options=SubscribeOptions(qos=1))
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise BrokerUnreachableError(f"connection lost: {code.name}")

    def poll(self, timeout_s: float, waker: Waker) -> list[Incoming]:
        """Serve the connection and return what came."""
        self._step(timeout_s, waker)
        incoming, self._incoming = self._incoming, []
        return incoming

    def close(self, *, goodbye_s: float = 0.0) -> None:
        """End the connection; whatever was not acknowledged is sent again on the next one."""
        client = self._client
        if goodbye_s > 0 and client.is_connected():
            deadline = time.monotonic() + goodbye_s
            with contextlib.suppress(BrokerUnreachableError):
                client.disconnect()
                while time.monotonic() < deadline:
                    self._step(_CONNACK_POLL_S, None)
        if (sock := client.socket()) is not None:
            sock.close()

    def _step(self, timeout_s: float, waker: Waker | None) -> None:
        """Wait for the network once and handle what it brings."""
        client = self._client
        sock = client.socket()
        if sock is None or self._lost is not None:
            raise BrokerUnreachableError(self._lost or "connection lost")
        wrapped = sock if isinstance(sock, WebSocket) else None
        pending = isinstance(sock, ssl.SSLSocket | WebSocket) and sock.pending() > 0
        readers: list[Any] = [sock] if waker is None else [sock, waker]
        writers = [sock] if client.want_write() or (wrapped is not None and wrapped.wants_write) else []
        try:
            readable, writable = self.wait(readers, writers, 0 if pending else timeout_s)
            if sock in readable or pending:
                client.loop_read()
            if sock in writable:
                if wrapped is not None:
                    wrapped.flush()
                client.loop_write()
            client.loop_misc()
        except _NONSENSE as err:
            raise BrokerUnreachableError(f"the broker sent nonsense: {clean_text(repr(err), 120)}") from err
        except OSError as err:
            raise BrokerUnreachableError(f"connection lost: {clean_text(str(err), 120)}") from err

    def wait(self, readers: list[Any], writers: list[Any], timeout_s: float) -> tuple[list[Any], list[Any]]:
        """Return which of them are ready, after `timeout_s` seconds at the latest."""
        readable, writable, _ = select.select(readers, writers, [], timeout_s)
        return readable, writable

    # Callbacks of paho, called from within `_step`.

    def _on_connect(self, _client: Client, _data: object, flags: ConnectFlags, reason: ReasonCode, props: Any) -> None:
        self._consent = reason
        self.session_present = flags.session_present
        maximum = getattr(props, "ReceiveMaximum", None)
        if isinstance(maximum, int) and maximum > 0:
            self.receive_maximum = maximum
        self._topic_aliases = getattr(props, "TopicAliasMaximum", 0)
        # It says so only where it does not do as we asked.
        self.keeps_sessions = getattr(props, "SessionExpiryInterval", self._limits.session_expiry_s) > 0

    def _on_disconnect(self, _client: Client, _data: object, _flags: object, reason: ReasonCode, _props: Any) -> None:
        self._lost = f"connection lost: {reason}"

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._incoming.append(Received(topic, bytes(message.payload)))

    def _on_publish(self, _client: Client, _data: object, mid: int, reason: ReasonCode, _props: Any) -> None:
        self._incoming.append(Acknowledged(mid, reason.value))

    def _on_subscribe(self, _client: Client, _data: object, _mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        for reason in reasons:
            if reason.value >= _REFUSAL:
                logger.warning("the broker refuses a subscription: %s", reason)


def _properties(packet_type: int, **values: int | str) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho has no annotation there
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
