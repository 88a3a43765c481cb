"""One message to the broker: connect with a client certificate, publish, wait for the acknowledgement, leave."""

from __future__ import annotations

import dataclasses
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from .errors import RejectedError, SetupError, TransientError
from .pki import CA_FILE, CERTIFICATE_FILE, KEY_FILE

_CONTENT_TYPE = "application/cbor"
_KEEPALIVE_S = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """Where the broker is and with which TLS directory to connect."""

    host: str
    port: int
    tls_directory: Path

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
        timeout_s: Seconds for connecting and acknowledging together.

    Raises:
        SetupError: The TLS directory is not usable.
        TransientError: The broker was not reached, refused, or did not acknowledge in time.
    """
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="", protocol=mqtt.MQTTv5)
    client.tls_set_context(broker.tls_context())
    client.connect_timeout = timeout_s
    refusals: list[str] = []

    def on_connect(
        _client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            refusals.append(f"connection: {reason}")

    def on_publish(_client: mqtt.Client, _data: object, _mid: int, reason: ReasonCode, _properties: object) -> None:
        if reason.is_failure:
            refusals.append(f"message: {reason}")

    client.on_connect = on_connect
    client.on_publish = on_publish
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho does not annotate it
    properties.ContentType = _CONTENT_TYPE
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    where = f"{broker.host}:{broker.port}"
    deadline = time.monotonic() + timeout_s
    try:
        client.connect(broker.host, broker.port, keepalive=_KEEPALIVE_S)
        client.loop_start()
        while not client.is_connected() and not refusals and time.monotonic() < deadline:
            time.sleep(0.01)
        if not client.is_connected():
            raise TransientError(f"broker {where} did not accept the {'; '.join(refusals) or 'connection in time'}")
        message = client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        message.wait_for_publish(max(0.1, deadline - time.monotonic()))
        if refusals or not message.is_published():
            raise TransientError(f"broker {where} did not acknowledge: {'; '.join(refusals) or 'no answer in time'}")
    except (OSError, ValueError, RuntimeError) as err:
        raise TransientError(f"broker {where}: {err}", hint="is it running, and does its certificate fit?") from err
    finally:
        client.disconnect()
        client.loop_stop()
