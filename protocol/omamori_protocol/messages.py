"""What a box says: heartbeat, state, event; and the announcement of a feed.

What may leave the box is an allow-list (requirement R103): these fields and nothing else. Addresses, names of hosts
and rules are in it; contents of mails and files are not, and no field could carry them.
"""

from __future__ import annotations

import dataclasses

from .record import Choice, Flag, Int, Nested, Octets, Record, Text, UInt, wire
from .trouble import MAX_CODE
from .vocabulary import (
    Action,
    Direction,
    EngineState,
    EventKind,
    FeedState,
    FirmwareReason,
    FirmwareState,
    Function,
    Leaving,
    PowerKind,
    Presence,
    RunEnd,
    Severity,
    Slot,
    UninspectedReason,
)

_U64 = 2**63 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heartbeat(Record):
    """Sign of life, every 60 s, QoS 0.

    `sent_s` is Unix time in seconds, `uptime_s` seconds since power-on. Memory in KiB. `uninspected_s` is how many
    seconds since power-on traffic passed without inspection. `busy_permille` is how much of the processors' time was
    used since the heartbeat before.

    `celsius` and `millivolts` (of the main rail) are the supervisor's, on boards that have one. They come in turn, one
    in every heartbeat: 200 bytes have no room for both.
    """

    MAX_BYTES = 512

    boot: int = wire(1, UInt())
    seq: int = wire(2, UInt())
    sent_s: int = wire(3, UInt(_U64))
    uptime_s: int = wire(4, UInt())
    firmware: str = wire(5, Text(32))
    slot: Slot = wire(6, Choice(Slot))
    feed_serial: int = wire(7, UInt())
    feed_state: FeedState = wire(8, Choice(FeedState))
    engine: EngineState = wire(9, Choice(EngineState))
    agent_rss_kib: int = wire(10, UInt())
    memory_available_kib: int = wire(11, UInt())
    spool_depth: int = wire(12, UInt())
    uninspected_s: int = wire(13, UInt(), default=0)
    inspected_packets: int = wire(14, UInt(_U64), default=0)
    bypassed_packets: int = wire(15, UInt(_U64), default=0)
    blocked_packets: int = wire(16, UInt(_U64), default=0)
    busy_permille: int = wire(17, UInt(1000), default=0)
    celsius: int | None = wire(18, Int(-128, 127), default=None)
    millivolts: int | None = wire(19, UInt(65535), default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisorState(Record):
    """What a box's supervisor tells of itself and of the wire, as far as it seldom changes; a part of `State`.

    `answers` is whether it does now; the others are what it told last. `chip` is its firmware. `through`: the wire
    leads through the box; `moves` of the relay and `past_s`, the seconds past the box, count since the supervisor's
    start; `resets` of the box in a row, `restarts` of the supervisor itself. The last power event has a number, a kind
    and a length (0 where nobody could measure it). `lease_ms` is how long one report keeps the wire.
    """

    answers: bool = wire(1, Flag())
    chip: str | None = wire(2, Text(32), default=None)
    through: bool | None = wire(3, Flag(), default=None)
    moves: int | None = wire(4, UInt(), default=None)
    past_s: int | None = wire(5, UInt(), default=None)
    resets: int | None = wire(6, UInt(255), default=None)
    restarts: int | None = wire(7, UInt(65535), default=None)
    power_serial: int | None = wire(8, UInt(65535), default=None)
    power_kind: PowerKind | None = wire(9, Choice(PowerKind), default=None)
    power_ms: int | None = wire(10, UInt(), default=None)
    lease_ms: int | None = wire(11, UInt(65535), default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class State(Record):
    """Retained description of a box, QoS 1; its offline twin is the connection's will.

    `session` binds a will to the connection it belongs to: a late will never overwrites a newer birth.

    What tells outages apart: `uptime_s` since power-on and how the run before ended (`last_end`), both when the
    connection was made; `away_s` is how long this agent had been without one, `trouble_before` the code of the gravest
    trouble it saw meanwhile, or before the power went. `trouble` is the present one. In a goodbye, `leaving` says why,
    and `quiet_s` how long the silence will last at most.

    `supervisor` is there on boards that have one. It saw what began this run of the box: `power_before`
    (`PowerKind.NONE` if the power stayed) and for how long the power had been away.
    """

    MAX_BYTES = 1024

    session: bytes = wire(1, Octets(8))
    presence: Presence = wire(2, Choice(Presence))
    boot: int = wire(3, UInt())
    since_s: int = wire(4, UInt(_U64))
    model: str = wire(5, Text(32))
    firmware: str = wire(6, Text(32))
    flavour: str = wire(7, Text(16))
    slot: Slot = wire(8, Choice(Slot))
    feed_serial: int = wire(9, UInt())
    feed_state: FeedState = wire(10, Choice(FeedState))
    feed_reason: str | None = wire(11, Text(300), default=None)
    certificate_expires_s: int | None = wire(12, UInt(_U64), default=None)
    uptime_s: int | None = wire(13, UInt(), default=None)
    last_end: RunEnd | None = wire(14, Choice(RunEnd), default=None)
    away_s: int | None = wire(15, UInt(), default=None)
    trouble: int | None = wire(16, UInt(MAX_CODE), default=None)
    trouble_before: int | None = wire(17, UInt(MAX_CODE), default=None)
    leaving: Leaving | None = wire(18, Choice(Leaving), default=None)
    quiet_s: int | None = wire(19, UInt(86400), default=None)
    supervisor: SupervisorState | None = wire(20, Nested(SupervisorState), default=None)
    power_before: PowerKind | None = wire(21, Choice(PowerKind), default=None)
    power_before_ms: int | None = wire(22, UInt(), default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event(Record):
    """Something that happened, QoS 1, kept on the box until the broker has it.

    Unique by (device, `boot`, `seq`). `at_ms` is Unix time in milliseconds. `count` says how many occurrences this
    event stands for. Which optional fields are present depends on `kind`:

    * alert: function, direction, severity, action, terminal_ip/terminal_mac, destination, rule …
    * feed: feed_serial, feed_state, text (the reason)
    * system: text
    * ledger: uninspected_reason, and what passed uninspected for it: seconds, packets, bytes since the last event of
      the same interval; `at_ms` is when the counted span began
    * firmware: firmware (the version it is about), firmware_state, firmware_reason, text (more about the reason), and
      what runs: running_firmware from booted_slot
    * power: power_kind, power_serial (the supervisor's number of it) and power_ms, how long the power was away
    """

    MAX_BYTES = 2048

    boot: int = wire(1, UInt())
    seq: int = wire(2, UInt(_U64))
    at_ms: int = wire(3, UInt(_U64))
    kind: EventKind = wire(4, Choice(EventKind))
    severity: Severity = wire(5, Choice(Severity), default=Severity.ONE)
    function: Function | None = wire(6, Choice(Function), default=None)
    direction: Direction | None = wire(7, Choice(Direction), default=None)
    action: Action | None = wire(8, Choice(Action), default=None)
    terminal_ip: str | None = wire(9, Text(45), default=None)
    terminal_mac: bytes | None = wire(10, Octets(6), default=None)
    destination: str | None = wire(11, Text(255), default=None)
    remote_ip: str | None = wire(12, Text(45), default=None)
    remote_port: int | None = wire(13, UInt(65535), default=None)
    protocol: str | None = wire(14, Text(16), default=None)
    rule_id: int | None = wire(15, UInt(), default=None)
    rule: str | None = wire(16, Text(200), default=None)
    category: str | None = wire(17, Text(40), default=None)
    count: int = wire(18, UInt(), default=1)
    feed_serial: int | None = wire(19, UInt(), default=None)
    feed_state: FeedState | None = wire(20, Choice(FeedState), default=None)
    text: str | None = wire(21, Text(300), default=None)
    uninspected_reason: UninspectedReason | None = wire(22, Choice(UninspectedReason), default=None)
    uninspected_s: int | None = wire(23, UInt(), default=None)
    packets: int | None = wire(24, UInt(_U64), default=None)
    size_bytes: int | None = wire(25, UInt(_U64), default=None)
    firmware: str | None = wire(26, Text(32), default=None)
    firmware_state: FirmwareState | None = wire(27, Choice(FirmwareState), default=None)
    firmware_reason: FirmwareReason | None = wire(28, Choice(FirmwareReason), default=None)
    booted_slot: Slot | None = wire(29, Choice(Slot), default=None)
    running_firmware: str | None = wire(30, Text(32), default=None)
    power_kind: PowerKind | None = wire(31, Choice(PowerKind), default=None)
    power_serial: int | None = wire(32, UInt(65535), default=None)
    power_ms: int | None = wire(33, UInt(), default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedAnnouncement(Record):
    """Hint that a feed serial is published; unsigned, so it only says "look now"."""

    MAX_BYTES = 64

    serial: int = wire(1, UInt())
