"""What the store knows, as values that the rules and the views work on.

Nothing here is ready for a person: texts are as the box sent them (see `harmless`), times are milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from omamori_protocol.reported import PartName, PartState
from omamori_protocol.vocabulary import (
    Action,
    Direction,
    EngineState,
    EventKind,
    FeedState,
    FirmwareReason,
    FirmwareState,
    Function,
    PowerKind,
    Presence,
    Severity,
    Slot,
    UninspectedReason,
)

from .liveness import OutageReason


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartFacts:
    """What became of one part of a box's settings."""

    part: PartName
    state: PartState
    reason: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SettingsFacts:
    """What a box last reported about its settings; `version` 0 is "no document accepted yet".

    `refused_reason` is set while the newest document that came was not taken at all.
    """

    received_ms: int
    at_s: int
    version: int
    state: PartState | None
    parts: tuple[PartFacts, ...] = ()
    refused_version: int | None = None
    refused_reason: str | None = None
    command_id: bytes | None = None
    command_state: PartState | None = None
    command_reason: str | None = None
    bypass_until_s: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirmwareFacts:
    """What a box last said about an update: how far it has come with `version`, and what ran when it said so."""

    version: str
    state: FirmwareState
    reason: FirmwareReason
    occurred_ms: int
    detail: str | None = None
    slot: Slot | None = None
    running: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerSum:
    """What passed uninspected for one reason; `latest_ms` is when the newest of it began."""

    reason: UninspectedReason
    seconds: int
    packets: int
    size_bytes: int
    latest_ms: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerFacts:
    """One entry of the uninspected ledger; `occurred_ms` as in `EventFacts`, the beginning of the counted span."""

    id: int
    device: str
    boot: int
    seq: int
    at_ms: int
    occurred_ms: int
    received_ms: int
    reason: UninspectedReason
    seconds: int
    packets: int
    size_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutageFacts:
    """An absence of a box and the most probable reason; `end_ms` is None while it lasts.

    `noticed_ms` is set if it lasted so long that the customer had to hear of it. `evidence` is what `liveness` found.
    """

    id: int
    device: str
    start_ms: int
    known_ms: int
    reason: OutageReason
    end_ms: int | None = None
    noticed_ms: int | None = None
    evidence: Mapping[str, int | str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceOutageFacts:
    """A time in which nothing came in; `detail` is empty if our programs did not run."""

    start_ms: int
    end_ms: int | None
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """The last sign of a program of ours; `since_ms` is None while nothing comes in to it."""

    name: str
    at_ms: int
    since_ms: int | None
    trouble: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisorFacts:
    """What a box told of its supervisor; see `omamori_protocol.messages.SupervisorState`.

    Temperature and rail come with heartbeats, one at a time: each with when that was.
    """

    answers: bool
    chip: str | None = None
    through: bool | None = None
    moves: int | None = None
    past_s: int | None = None
    resets: int | None = None
    restarts: int | None = None
    power_serial: int | None = None
    power_kind: PowerKind | None = None
    power_ms: int | None = None
    lease_ms: int | None = None
    celsius: int | None = None
    celsius_ms: int | None = None
    millivolts: int | None = None
    millivolts_ms: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxFacts:
    """A box as its newest messages describe it; None is "it has not said".

    Firmware, slot and feed are from the newer of state and heartbeat. `refused` counts messages not taken in. `ledger`
    holds what ever passed uninspected, by reason; `update` the last word about a firmware update. `trouble` is the code
    of what is wrong around the box (see `omamori_protocol.trouble`), `outage` the absence that lasts. `supervisor` is
    None on boards without one.
    """

    device: str
    first_seen_ms: int
    last_contact_ms: int | None = None
    presence: Presence | None = None
    presence_ms: int | None = None
    model: str | None = None
    flavour: str | None = None
    firmware: str | None = None
    slot: Slot | None = None
    feed_serial: int | None = None
    feed_state: FeedState | None = None
    feed_reason: str | None = None
    certificate_expires_s: int | None = None
    engine: EngineState | None = None
    uptime_s: int | None = None
    agent_rss_kib: int | None = None
    memory_available_kib: int | None = None
    spool_depth: int | None = None
    uninspected_s: int | None = None
    inspected_packets: int | None = None
    bypassed_packets: int | None = None
    blocked_packets: int | None = None
    refused: int = 0
    settings: SettingsFacts | None = None
    ledger: tuple[LedgerSum, ...] = ()
    update: FirmwareFacts | None = None
    trouble: int | None = None
    outage: OutageFacts | None = None
    supervisor: SupervisorFacts | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventFacts:
    """One event; `occurred_ms` is the box's time unless its clock was plainly wrong (see `intake`)."""

    id: int
    device: str
    boot: int
    seq: int
    kind: EventKind
    at_ms: int
    occurred_ms: int
    received_ms: int
    severity: Severity
    function: Function | None = None
    direction: Direction | None = None
    action: Action | None = None
    terminal_ip: str | None = None
    terminal_mac: bytes | None = None
    destination: str | None = None
    remote_ip: str | None = None
    remote_port: int | None = None
    protocol: str | None = None
    rule_id: int | None = None
    rule: str | None = None
    category: str | None = None
    count: int = 1
    feed_serial: int | None = None
    feed_state: FeedState | None = None
    text: str | None = None
    power_kind: PowerKind | None = None
    power_serial: int | None = None
    power_ms: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefusalFacts:
    """A message that was not taken in; `device` is empty when the topic names none."""

    device: str
    received_ms: int
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertTotals:
    """What happened since some moment: occurrences (folded ones counted fully), and alerts of three stars."""

    blocked: int = 0
    logged: int = 0
    urgent: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnosticsFacts:
    """What a box told about itself when it was asked; `content` is compressed."""

    device_id: str
    received_ms: int
    command_id: bytes
    at_s: int
    content: bytes
