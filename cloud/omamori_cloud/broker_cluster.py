"""The configuration of a clustered broker, RabbitMQ 4 with its MQTT plugin. Text out, nothing is written.

* The same rules as mosquitto's (`broker_files`): TLS 1.3 only, the certificate's common name is the user, a box speaks
  and listens below its own name only and its MQTT client id is its name. They are a plugin of ours, because
  RabbitMQ's own access lists want an entry for each box: ``plugins/omamori_rules-1``.
* Boxes speak MQTT. Ingest workers speak AMQP: RabbitMQ has no shared subscriptions, and shared queues are what it does
  best. What boxes say lies on the disks of a majority of the nodes before it is acknowledged.
* No sessions are kept for boxes that are away: each would be a replicated queue. See docs/adr/0049-clustered-broker.md.
* What connections of a dead node leave behind is taken away by another module of that plugin (`omamori_leftovers`).
* Nodes talk to each other unencrypted, guarded by the cookie only: that network must be theirs alone.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import re
from pathlib import Path, PurePosixPath

from .broker_files import MAX_PACKET_BYTES, READ_BY_BOX, WRITTEN_BY_BOX
from .errors import ConfigError

RULES = "omamori_rules"
RULES_FOLDER = f"plugins/{RULES}-1"
MODULES = (RULES, "omamori_leftovers")  # in Erlang, in that folder
PLUGINS = ("rabbitmq_mqtt", "rabbitmq_auth_mechanism_ssl", RULES)
WEBSOCKET_PLUGIN = "rabbitmq_web_mqtt"
WEBSOCKET_PATH = "/mqtt"  # where boxes ask for it
LIBRARY = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins"  # as Debian installs it
MAX_NODES = 9  # more make a quorum slower, not safer
MIN_MEMORY_MIB = 128

_NODE = re.compile(r"[a-z][a-z0-9_-]{0,31}@[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}")
# Between brackets of an Erlang string or of a line of the configuration these would mean something.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/-]{0,250}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterFiles:
    """What the configuration of one node is made from; the same on all nodes but for `address`.

    Attributes:
        nodes: Names of all nodes, ``rabbit@host``.
        tls: Directory with the server's ``tls.crt`` and ``tls.key``.
        clients: File of the authorities whose certificates are let in: the services' and the boxes'.
        revoked: Directory of revocation lists (PEM) under their hashed names (``openssl rehash``), or None. It is read
            at each handshake; without a list of its authority, a certificate is refused.
        address: Where the node listens.
        mqtt_port: For boxes.
        amqp_port: For ingest workers.
        websocket_port: For boxes behind strict firewalls, or None.
        max_packet_bytes: Largest MQTT packet.
        folder: Where these files will lie.
        memory_mib: Memory above which the node takes nothing in until it has less; None for RabbitMQ's own choice.
    """

    nodes: tuple[str, ...]
    tls: Path
    clients: Path
    revoked: Path | None = None
    address: str = "0.0.0.0"  # noqa: S104 - a broker serves other machines
    mqtt_port: int = 8883
    amqp_port: int = 5671
    websocket_port: int | None = None
    max_packet_bytes: int = MAX_PACKET_BYTES
    folder: Path = Path("/etc/rabbitmq")
    memory_mib: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work or would mean something else in the files.

        Raises:
            ConfigError: Names what.
        """
        if not 1 <= len(self.nodes) <= MAX_NODES or len(set(self.nodes)) != len(self.nodes):
            raise ConfigError("node", f"1 to {MAX_NODES} different nodes are possible, not {len(self.nodes)}")
        if len(self.nodes) % 2 == 0:
            raise ConfigError("node", f"{len(self.nodes)} nodes bear no more failures than {len(self.nodes) - 1}")
        for node in self.nodes:
            if not _NODE.fullmatch(node):
                raise ConfigError("node", f"{node[:60]!r} is not a node's name", hint="rabbit@broker1.example")
        for name, path in (
            ("tls", self.tls),
            ("clients", self.clients),
            ("revoked", self.revoked),
            ("folder", self.folder),
        ):
            if path is not None and not _PLAIN_PATH.fullmatch(str(path)):
                raise ConfigError(name, f"{str(path)[:120]!r} is not an absolute path of plain characters")
        if not _ADDRESS.fullmatch(self.address):
            raise ConfigError("address", f"{self.address[:60]!r} is not an IP address")
        if self.memory_mib is not None and self.memory_mib < MIN_MEMORY_MIB:
            raise ConfigError("memory", f"a node needs {MIN_MEMORY_MIB} MiB at least, not {self.memory_mib}")

    def files(self) -> dict[PurePosixPath, str]:
        """Return the content of every file, by its place in the configuration's directory."""
        found = {
            "rabbitmq.conf": self.settings(),
            "rabbitmq-env.conf": self.environment(),
            "advanced.config": self.advanced(),
            "enabled_plugins": f"[{','.join(self.plugins)}].\n",
            f"{RULES_FOLDER}/ebin/{RULES}.app": rules_application(),
        }
        found |= {f"{RULES_FOLDER}/src/{module}.erl": rules_source(module) for module in MODULES}
        return {PurePosixPath(name): text for name, text in found.items()}

    def settings(self) -> str:
        """Return the content of ``rabbitmq.conf``."""
        lines = [
            "cluster_name = omamori",
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"cluster_formation.classic_config.nodes.{n} = {node}" for n, node in enumerate(self.nodes, 1)),
            # A part of the cluster that is cut off must not go on by itself.
            "cluster_partition_handling = pause_minority",
            "listeners.tcp = none",
            f"listeners.ssl.1 = {self.address}:{self.amqp_port}",
            "ssl_cert_login_from = common_name",
            "auth_mechanisms.1 = EXTERNAL",
            f"auth_backends.1 = {RULES}",
            "mqtt.listeners.tcp = none",
            f"mqtt.listeners.ssl.1 = {self.address}:{self.mqtt_port}",
            "mqtt.ssl_cert_login = true",
            "mqtt.allow_anonymous = false",
            "mqtt.vhost = /",
            "mqtt.exchange = amq.topic",
            "mqtt.max_session_expiry_interval_seconds = 0",
            f"mqtt.max_packet_size_authenticated = {self.max_packet_bytes}",
            "mqtt.max_packet_size_unauthenticated = 1024",
            "mqtt.tcp_listen_options.nodelay = true",
            "mqtt.tcp_listen_options.backlog = 4096",
            "log.console = true",
            "log.console.level = info",
            "log.file = false",
        ]
        if self.memory_mib is not None:
            lines.append(f"vm_memory_high_watermark.absolute = {self.memory_mib}MiB")
        return "\n".join(lines) + "\n"

    def environment(self) -> str:
        """Return the content of ``rabbitmq-env.conf``: names with dots, and where plugins are, ours among them."""
        is_long = any("." in node for node in self.nodes)
        return f'USE_LONGNAME={str(is_long).lower()}\nPLUGINS_DIR="$(echo {LIBRARY}):{self.folder}/plugins"\n'

    @property
    def plugins(self) -> tuple[str, ...]:
        """What the broker is asked to load."""
        return PLUGINS if self.websocket_port is None else (*PLUGINS, WEBSOCKET_PLUGIN)

    def advanced(self) -> str:
        """Return the content of ``advanced.config``: TLS, all in one place, for ``rabbitmq.conf`` lacks some words."""
        tls = [f'{{cacertfile, "{self.clients}"}}', f'{{certfile, "{self.tls}/tls.crt"}}']
        tls += [f'{{keyfile, "{self.tls}/tls.key"}}', "{versions, ['tlsv1.3']}"]
        tls += ["{verify, verify_peer}", "{fail_if_no_peer_cert, true}"]
        if self.revoked is not None:
            cache = f'{{ssl_crl_hash_dir, {{internal, [{{dir, "{self.revoked}"}}]}}}}'
            tls += ["{crl_check, peer}", f"{{crl_cache, {cache}}}"]
        parts = [f"{{rabbit, [{{ssl_options, [{', '.join(tls)}]}}]}}"]
        if self.websocket_port is not None:
            door = [f'{{ip, "{self.address}"}}', f"{{port, {self.websocket_port}}}", *tls]
            settings = [f'{{ws_path, "{WEBSOCKET_PATH}"}}', "{tcp_config, []}", f"{{ssl_config, [{', '.join(door)}]}}"]
            parts.append(f"{{{WEBSOCKET_PLUGIN}, [{', '.join(settings)}]}}")
        return "[" + ",\n ".join(parts) + "].\n"


def rules_source(module: str = RULES) -> str:
    """Return the source of one of the plugin's `MODULES` (Erlang); the first knows who may do what."""
    return (importlib.resources.files(__package__) / f"broker_rules/{module}.erl").read_text(encoding="utf-8")


def rules_application() -> str:
    """Return the plugin's description, with the leaves that a box writes and reads."""
    trees = [leaf.removesuffix("/#") for leaf in WRITTEN_BY_BOX if leaf.endswith("/#")]
    written = [leaf for leaf in WRITTEN_BY_BOX if not leaf.endswith("/#")]
    settings = {"write": written, "read": list(READ_BY_BOX), "trees": trees}
    rendered = ", ".join(
        f"{{{name}, [{', '.join(f'<<{chr(34)}{leaf}{chr(34)}>>' for leaf in leaves)}]}}"
        for name, leaves in settings.items()
    )
    return (
        f"{{application, {RULES}, [\n"
        f'  {{description, "Who may do what at the broker of Omamori"}},\n  {{vsn, "1"}},\n'
        f"  {{modules, [{', '.join(MODULES)}]}},\n  {{registered, []}},\n"
        f"  {{applications, [kernel, stdlib, rabbit_common, rabbit]}},\n  {{env, [{rendered}]}},\n"
        f"  {{broker_version_requirements, []}}\n]}}.\n"
    )
