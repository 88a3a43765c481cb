"""The configuration of the broker as we run it: mosquitto's settings and its access list. Text out, nothing is written.

* TLS 1.3 only; the client certificate is the identity, its common name the user.
* A box can be nobody else: it speaks and listens below its own name only, and its MQTT client id is its name whatever
  it says, so that nobody ends or inherits another box's session.
* Services may have a listener of their own, which boxes' certificates do not open. Several ingest workers need it:
  there, their client ids are their own.
* mosquitto does not look at its access list when somebody subscribes, only when it delivers. For shared subscriptions
  that is too late: see docs/adr/0045-shared-ingest.md.
* What was acknowledged is on disk seconds later; boxes send the last minutes again after a loss
  (docs/adr/0040-a-spool-that-remembers-what-it-sent.md).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

INGEST = "ingest"
PUBLISHER = "publisher"
MAX_PACKET_BYTES = 32768
# While the cloud is away the broker keeps for it what boxes send. Beyond that, mosquitto drops without telling anybody.
MAX_QUEUED_MESSAGES = 1_000_000
AUTOSAVE_S = 5
PID_FILE = Path("/run/mosquitto/mosquitto.pid")  # Debian's unit makes the directory

WRITTEN_BY_BOX = ("hb", "state", "evt", "reported", "job/#")
READ_BY_BOX = ("cmd", "desired")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listener:
    """A port; `clients` is the file of the authorities whose certificates open it."""

    port: int
    clients: Path
    address: str = ""
    is_websocket: bool = False
    has_boxes: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrokerFiles:
    """What the configuration is made from.

    Attributes:
        state: Directory for the broker's database; the access list is expected there too.
        tls: Directory with the server's ``tls.crt`` and ``tls.key``.
        listeners: At least one.
        revoked: Revocation lists (PEM) of every authority in the listeners' files, or None. An authority without a
            list, and a list that has expired, shut out all of its certificates.
        user: User that mosquitto runs as.
        max_packet_bytes: Largest packet.
        persistent: Whether sessions and messages survive a restart of the broker.
        pid_file: Where the broker writes its process id, for who tells it to read its lists again; or None.
    """

    state: Path
    tls: Path
    listeners: tuple[Listener, ...]
    revoked: Path | None = None
    user: str = "mosquitto"
    max_packet_bytes: int = MAX_PACKET_BYTES
    persistent: bool = True
    pid_file: Path | None = None

    @property
    def access_list_path(self) -> Path:
        """Where the broker looks for the access list."""
        return self.state / "mosquitto.acl"

    def settings(self) -> str:
        """Return the content of ``mosquitto.conf``."""
        lines = [
            "per_listener_settings false",
            f"user {self.user}",
            f"persistence {str(self.persistent).lower()}",
            f"persistence_location {self.state}/",
            "persistence_file mosquitto.db",
            f"autosave_interval {AUTOSAVE_S}",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "connection_messages true",
            "set_tcp_nodelay true",
            f"max_packet_size {self.max_packet_bytes}",
            f"max_queued_messages {MAX_QUEUED_MESSAGES}",
            "allow_anonymous false",
            f"acl_file {self.access_list_path}",
        ]
        if self.pid_file is not None:
            lines.append(f"pid_file {self.pid_file}")
        for listener in self.listeners:
            lines += [
                f"listener {listener.port} {listener.address}".rstrip(),
                f"protocol {'websockets' if listener.is_websocket else 'mqtt'}",
                "tls_version tlsv1.3",
                f"cafile {listener.clients}",
                f"certfile {self.tls}/tls.crt",
                f"keyfile {self.tls}/tls.key",
                "require_certificate true",
                "use_identity_as_username true",
            ]
            if listener.has_boxes:
                lines.append("use_username_as_clientid true")
            if self.revoked is not None:
                lines.append(f"crlfile {self.revoked}")
        return "\n".join(lines) + "\n"


def access_list() -> str:
    """Return who may do what: a box only below its own name, the two services by theirs."""
    own = "\n".join(f"pattern write omamori/v1/%u/{leaf}" for leaf in WRITTEN_BY_BOX)
    read = "\n".join(f"pattern read omamori/v1/%u/{leaf}" for leaf in READ_BY_BOX)
    taken = "\n".join(f"topic read omamori/v1/+/{leaf}" for leaf in WRITTEN_BY_BOX)
    ordered = "\n".join(f"topic write omamori/v1/+/{leaf}" for leaf in READ_BY_BOX)
    return f"""{own}
{read}
pattern read omamori/v1/announce/#

user {INGEST}
{taken}

user {PUBLISHER}
topic write omamori/v1/announce/#
{ordered}
"""
