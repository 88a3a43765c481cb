"""The file that the factory leaves on a box's data partition: who it is and whom it may talk to.

It is read once at each start until the box is enrolled, and for the endpoints afterwards. The claim in it is worth
one enrolment of this serial; `Provision` never shows it in its representation.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any
from urllib.parse import urlsplit

from .device import check_device_id
from .errors import MalformedError, OversizeError, UnknownVersionError
from .topics import check_channel

FORMAT = 1
MAX_BYTES = 8192
_CLAIM = re.compile(r"[A-Z2-7]{26,64}")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provision:
    """Content of ``provision.json``; URLs have no trailing slash.

    For offices that let little out: `websocket_port` is where the broker takes MQTT inside a WebSocket (443 as a rule),
    `proxy` is host and port of the office's HTTP proxy. Neither need be there.
    """

    serial: str
    claim: str = dataclasses.field(repr=False)
    enrolment_url: str
    broker_host: str
    broker_port: int
    repository_url: str
    channel: str
    websocket_port: int | None = None
    proxy: tuple[str, int] | None = None

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        broker: dict[str, Any] = {"host": self.broker_host, "port": self.broker_port}
        if self.websocket_port is not None:
            broker["websocket_port"] = self.websocket_port
        body: dict[str, Any] = {
            "format": FORMAT,
            "serial": self.serial,
            "claim": self.claim,
            "enrolment_url": self.enrolment_url,
            "broker": broker,
            "repository_url": self.repository_url,
            "channel": self.channel,
        }
        if self.proxy is not None:
            body["proxy"] = {"host": self.proxy[0], "port": self.proxy[1]}
        return (json.dumps(body, indent=2) + "\n").encode()


def _url(body: dict[str, Any], key: str) -> str:
    url = body[key]
    parts = urlsplit(url) if isinstance(url, str) and len(url) <= 300 else None
    if (
        parts is None
        or parts.scheme != "https"
        or not parts.hostname
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise MalformedError(f"provision: {key} is not a plain https address")
    return str(url).rstrip("/")


def check_host(host: object) -> str:
    """Return `host` if it is a lower-case DNS name or an IPv4 address in text; raises `MalformedError`."""
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        raise MalformedError(f"not a host name: {str(host)[:60]!r}")
    return host


def _port(port: object, whose: str) -> int:
    if type(port) is not int or not 1 <= port <= 65535:
        raise MalformedError(f"provision: {whose} port outside 1..65535")
    return port


def parse_provision(data: bytes) -> Provision:
    """Read ``provision.json``.

    Raises:
        OversizeError: More than `MAX_BYTES` bytes.
        UnknownVersionError: A format this program does not know.
        MalformedError: Not such a file, an unknown key, or a value out of its form.
    """
    if len(data) > MAX_BYTES:
        raise OversizeError(f"provision: {len(data)} bytes, allowed {MAX_BYTES}", limit=MAX_BYTES)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise MalformedError(f"provision: not JSON: {str(err)[:80]}") from err
    if not isinstance(body, dict):
        raise MalformedError("provision: expected an object")
    if type(body.get("format")) is not int or body["format"] != FORMAT:
        raise UnknownVersionError("provision", body.get("format"))
    expected = {"format", "serial", "claim", "enrolment_url", "broker", "repository_url", "channel"}
    if set(body) - {"proxy"} != expected:
        wrong = sorted((set(body) - {"proxy"}) ^ expected)
        raise MalformedError(f"provision: missing or unknown keys: {', '.join(wrong)[:120]}")
    broker = body["broker"]
    if not isinstance(broker, dict) or set(broker) - {"websocket_port"} != {"host", "port"}:
        raise MalformedError("provision: broker needs host and port, and may have websocket_port")
    proxy = body.get("proxy")
    if "proxy" in body and (not isinstance(proxy, dict) or set(proxy) != {"host", "port"}):
        raise MalformedError("provision: proxy needs exactly host and port")
    claim = body["claim"]
    if not isinstance(claim, str) or not _CLAIM.fullmatch(claim):
        raise MalformedError("provision: the claim is not 26 to 64 base32 characters")
    return Provision(
        serial=check_device_id(body["serial"]),
        claim=claim,
        enrolment_url=_url(body, "enrolment_url"),
        broker_host=check_host(broker["host"]),
        broker_port=_port(broker["port"], "broker"),
        repository_url=_url(body, "repository_url"),
        channel=check_channel(body["channel"]),
        websocket_port=_port(broker["websocket_port"], "websocket") if "websocket_port" in broker else None,
        proxy=(check_host(proxy["host"]), _port(proxy["port"], "proxy")) if proxy else None,
    )
