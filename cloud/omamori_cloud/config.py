"""The configuration file: TOML, read once at start, checked completely.

An unknown key is an error: a misspelt key must not silently mean the default. Paths are relative to the file.

    default_language = "ja"             # or "en"
    state_dir = "/var/lib/omamori-cloud"
    listen = "127.0.0.1:8080"           # or "fd://3": a listening socket that the parent process opened
    offline_after_s = 180               # silence after which a box counts as offline

    [broker]
    url = "mqtts://broker.example:8883" # or amqps://broker.example:5671: queues of a cluster
    ca = "ca.pem"
    cert = "ingest.crt"                 # common name `ingest`
    key = "ingest.key"

    [database]
    url = "sqlite:////var/lib/omamori-cloud/cloud.db"   # or "postgresql+psycopg://omamori@db.example/omamori"
    password_file = "database.password" # PostgreSQL's; a URL with a password is refused

    [names]                             # what the owner calls a box
    ZA35-000001 = "本社"

    [feed]                              # what the feed compiler and the cloud hand to each other; both may be absent
    book = "/srv/feed/feed.book"        # written by `omamori-feed compile --book`: why something is blocked
    allow_file = "/srv/feed/own/reports.tsv"    # written by the cloud: accepted reports of false alarms

    [limits]                            # see Limits

    [liveness]                          # see LivenessConfig
    notice_after_s = 600                # absence after which the customer is told

    [retention]                         # see RetentionConfig
    alert_days = 365                    # unless the customer's contract says something else
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omamori_protocol.device import check_device_id
from omamori_protocol.errors import ProtocolError

from .errors import ConfigError
from .liveness import LivenessConfig
from .retention import MAX_DAYS, RetentionConfig

MAX_BYTES = 64 * 1024
MAX_NAMES = 1000
MAX_BATCH = 10_000  # what one statement can name
LANGUAGES = ("ja", "en")

_BROKER_PORTS = {"mqtts": 8883, "amqps": 5671}
_BROKER_URL = re.compile(
    r"(mqtts|amqps)://([A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?"
)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?")
_CLIENT_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrokerConfig:
    """How to reach the broker: TLS 1.3, the client certificate is the identity; its name may have several addresses."""

    host: str
    ca: Path
    cert: Path
    key: Path
    port: int = 8883
    has_queues: bool = False  # a clustered broker's queues (AMQP) instead of subscriptions (MQTT)
    client_id: str = "omamori-cloud-ingest"  # the broker keeps our session under this name
    keepalive_s: int = 30
    session_expiry_s: int = 7 * 86400  # how long the broker keeps unread events for us


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of everything that grows; rows beyond them are deleted, the oldest first."""

    devices: int = 10_000
    heartbeats_per_device: int = 12_000  # one a minute for as long as they are kept one by one, and a day
    events_per_device: int = 200_000
    refusals_per_device: int = 100
    ledger_entries_per_device: int = 20_000  # their sums are kept for ever
    outages_per_device: int = 2_000
    batch_messages: int = 1_000  # messages stored in one transaction; at most MAX_BATCH


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedFiles:
    """Files shared with the feed compiler; None where there is none."""

    book: Path | None = None
    allow_file: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """Everything `omamori-cloud` needs to know; see the module's example."""

    broker: BrokerConfig
    database_url: str
    state_dir: Path
    database_password_file: Path | None = None
    listen: str = "127.0.0.1:8080"
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")  # accepted Host headers
    default_language: str = "ja"
    offline_after_s: int = 180
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    limits: Limits = dataclasses.field(default_factory=Limits)
    retention: RetentionConfig = dataclasses.field(default_factory=RetentionConfig)
    liveness: LivenessConfig = dataclasses.field(default_factory=LivenessConfig)
    feed: FeedFiles = dataclasses.field(default_factory=FeedFiles)


class _Table:
    """One table of the file; every `take` removes a key, what remains is unknown."""

    def __init__(self, body: Any, where: str) -> None:
        if not isinstance(body, dict):
            raise ConfigError(where or "configuration", "expected a table")
        self._body = dict(body)
        self._where = where

    def name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def has(self, key: str) -> bool:
        return key in self._body

    def text(self, key: str, default: str | None = None, *, form: re.Pattern[str] | None = None) -> str:
        value = self._body.pop(key, default)
        if value is None:
            raise ConfigError(self.name(key), "is missing")
        if not isinstance(value, str) or not value or (form is not None and not form.fullmatch(value)):
            raise ConfigError(self.name(key), f"{str(value)[:60]!r} is not allowed")
        return value

    def number(self, key: str, default: int, low: int, high: int) -> int:
        value = self._body.pop(key, default)
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(self.name(key), f"{str(value)[:40]} is not an integer from {low} to {high}")
        return value

    def table(self, key: str) -> _Table:
        return _Table(self._body.pop(key, {}), self.name(key))

    def texts(self, key: str, default: tuple[str, ...], maximum: int) -> tuple[str, ...]:
        value = self._body.pop(key, list(default))
        if not isinstance(value, list) or len(value) > maximum or not all(isinstance(item, str) for item in value):
            raise ConfigError(self.name(key), f"expected a list of at most {maximum} texts")
        return tuple(value)

    def rest(self) -> dict[str, Any]:
        rest, self._body = self._body, {}
        return rest

    def close(self) -> None:
        if self._body:
            raise ConfigError(self.name(min(self._body)), "unknown key")


def _broker_end(table: _Table) -> tuple[str, int, bool]:
    """Return host, port, and whether it is a broker with queues; `host` and `port` are the older form of `url`."""
    if not table.has("url"):
        return table.text("host", form=_HOST), table.number("port", BrokerConfig.port, 1, 65535), False
    if table.has("host") or table.has("port"):
        raise ConfigError(table.name("url"), "give either url, or host and port")
    url = table.text("url", form=_BROKER_URL)
    parts = urlsplit(url)
    try:
        port = parts.port or _BROKER_PORTS[parts.scheme]
    except ValueError as err:
        raise ConfigError(table.name("url"), f"{url[:60]!r} has no possible port") from err
    return str(parts.hostname), port, parts.scheme == "amqps"


def _broker(table: _Table, base: Path) -> BrokerConfig:
    host, port, has_queues = _broker_end(table)
    broker = BrokerConfig(
        host=host,
        port=port,
        has_queues=has_queues,
        ca=base / table.text("ca"),
        cert=base / table.text("cert"),
        key=base / table.text("key"),
        client_id=table.text("client_id", BrokerConfig.client_id, form=_CLIENT_ID),
        keepalive_s=table.number("keepalive_s", BrokerConfig.keepalive_s, 5, 3600),
        session_expiry_s=table.number("session_expiry_s", BrokerConfig.session_expiry_s, 0, 2**32 - 2),
    )
    table.close()
    return broker


def _limits(table: _Table) -> Limits:
    most = {"batch_messages": MAX_BATCH}
    values = {
        item.name: table.number(item.name, int(str(item.default)), 1, most.get(item.name, 1_000_000))
        for item in dataclasses.fields(Limits)
    }
    table.close()
    return Limits(**values)


def _retention(table: _Table) -> RetentionConfig:
    bounds = {"every_s": (10, 7 * 86400), "batch_rows": (1, MAX_BATCH)}
    values = {
        item.name: table.number(item.name, int(str(item.default)), *bounds.get(item.name, (1, MAX_DAYS)))
        for item in dataclasses.fields(RetentionConfig)
    }
    table.close()
    found = RetentionConfig(**values)
    if not found.heartbeat_days <= found.hourly_days <= found.daily_days:
        raise ConfigError("retention.hourly_days", "heartbeat_days, hourly_days and daily_days must not get smaller")
    return found


def _liveness(table: _Table) -> LivenessConfig:
    bounds = {"every_s": (1, 600), "together_boxes": (2, 1_000_000), "together_permille": (1, 1000)}
    values = {
        item.name: table.number(item.name, int(str(item.default)), *bounds.get(item.name, (1, 90 * 86400)))
        for item in dataclasses.fields(LivenessConfig)
    }
    table.close()
    found = LivenessConfig(**values)
    if not found.blink_s <= found.notice_after_s <= found.dead_after_s:
        raise ConfigError("liveness.notice_after_s", "blink_s, notice_after_s and dead_after_s must not get smaller")
    return found


def _feed(table: _Table, base: Path) -> FeedFiles:
    found = {key: base / table.text(key) for key in ("book", "allow_file") if table.has(key)}
    table.close()
    return FeedFiles(**found)


def _names(table: _Table) -> dict[str, str]:
    names = table.rest()
    if len(names) > MAX_NAMES:
        raise ConfigError("names", f"{len(names)} names, allowed {MAX_NAMES}")
    for device, name in names.items():
        try:
            check_device_id(device)
        except ProtocolError as err:
            raise ConfigError(f"names.{device[:40]}", str(err), hint=err.hint) from err
        if not isinstance(name, str) or not 1 <= len(name) <= 60:
            raise ConfigError(f"names.{device}", "expected 1 to 60 characters")
    return names


def parse_config(data: bytes, base: Path) -> CloudConfig:
    """Read a configuration.

    Args:
        data: The file's bytes.
        base: Directory that relative paths start from.

    Raises:
        ConfigError: Not TOML, an unknown or missing key, a value out of its form.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError("configuration", f"{len(data)} bytes, allowed {MAX_BYTES}")
    try:
        body = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise ConfigError("configuration", f"not TOML: {str(err)[:120]}") from err
    top = _Table(body, "")
    state_dir = base / top.text("state_dir", "/var/lib/omamori-cloud")
    database = top.table("database")
    database_url = database.text("url", f"sqlite:///{(state_dir / 'cloud.db').absolute()}")
    password_file = base / database.text("password_file") if database.has("password_file") else None
    database.close()
    language = top.text("default_language", CloudConfig.default_language)
    if language not in LANGUAGES:
        raise ConfigError("default_language", f"{language[:20]!r} is not one of {', '.join(LANGUAGES)}")
    config = CloudConfig(
        broker=_broker(top.table("broker"), base),
        database_url=database_url,
        database_password_file=password_file,
        state_dir=state_dir,
        listen=top.text("listen", CloudConfig.listen),
        hosts=top.texts("hosts", CloudConfig.hosts, 20),
        default_language=language,
        offline_after_s=top.number("offline_after_s", CloudConfig.offline_after_s, 5, 86400),
        names=_names(top.table("names")),
        limits=_limits(top.table("limits")),
        retention=_retention(top.table("retention")),
        liveness=_liveness(top.table("liveness")),
        feed=_feed(top.table("feed"), base),
    )
    top.close()
    return config


def load_config(path: Path) -> CloudConfig:
    """Read the configuration file at `path`.

    Raises:
        ConfigError: It cannot be read, or `parse_config` refuses it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as err:
        raise ConfigError(str(path), f"cannot be read: {err.strerror}") from err
    return parse_config(data, path.absolute().parent)
