"""The tables, as the newest migration leaves them.

All times are milliseconds since 1970 (UTC) in 64-bit integers: the same everywhere, sortable, no driver's opinion on
time zones. Closed choices are stored by their wire numbers, which are never reused.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
_RowId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Root of all tables."""


class Device(Base):
    """A box that has been heard of."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    first_seen_ms: Mapped[int] = mapped_column(BigInteger)
    last_contact_ms: Mapped[int | None] = mapped_column(BigInteger)
    latest_heartbeat_id: Mapped[int | None] = mapped_column(BigInteger)  # no foreign key: heartbeats come and go
    refused: Mapped[int] = mapped_column(BigInteger, default=0)
    # Of the supervisor, as told last; heartbeats bring one of the two at a time.
    celsius: Mapped[int | None] = mapped_column(SmallInteger)
    celsius_ms: Mapped[int | None] = mapped_column(BigInteger)
    millivolts: Mapped[int | None] = mapped_column(Integer)
    millivolts_ms: Mapped[int | None] = mapped_column(BigInteger)


class Heartbeat(Base):
    """A sign of life."""

    __tablename__ = "heartbeats"
    __table_args__ = (
        Index("ix_heartbeats_device", "device_id", "id"),
        Index("ix_heartbeats_time", "received_ms", "id"),
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    received_ms: Mapped[int] = mapped_column(BigInteger)
    boot: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    sent_s: Mapped[int] = mapped_column(BigInteger)
    uptime_s: Mapped[int] = mapped_column(BigInteger)
    firmware: Mapped[str] = mapped_column(String(32))
    slot: Mapped[int] = mapped_column(SmallInteger)
    feed_serial: Mapped[int] = mapped_column(BigInteger)
    feed_state: Mapped[int] = mapped_column(SmallInteger)
    engine: Mapped[int] = mapped_column(SmallInteger)
    agent_rss_kib: Mapped[int] = mapped_column(BigInteger)
    memory_available_kib: Mapped[int] = mapped_column(BigInteger)
    spool_depth: Mapped[int] = mapped_column(BigInteger)
    uninspected_s: Mapped[int] = mapped_column(BigInteger)
    inspected_packets: Mapped[int] = mapped_column(BigInteger)
    bypassed_packets: Mapped[int] = mapped_column(BigInteger)
    blocked_packets: Mapped[int] = mapped_column(BigInteger)
    busy_permille: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    celsius: Mapped[int | None] = mapped_column(SmallInteger)
    millivolts: Mapped[int | None] = mapped_column(Integer)


class HeartbeatSpan(Base):
    """The heartbeats of one box in an hour or a day, when they are too old to be kept one by one.

    Of what grows since power-on, and of what the box runs, it has the value of the newest heartbeat (`boot`, `seq`).
    """

    __tablename__ = "heartbeat_spans"
    __table_args__ = (Index("ix_heartbeat_spans_time", "length_s", "start_ms"),)

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    length_s: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    start_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    beats: Mapped[int] = mapped_column(BigInteger)
    inspecting: Mapped[int] = mapped_column(BigInteger)  # how many of them said that the engine inspects
    busy_sum: Mapped[int] = mapped_column(BigInteger)
    busy_max: Mapped[int] = mapped_column(SmallInteger)
    agent_rss_kib_max: Mapped[int] = mapped_column(BigInteger)
    memory_available_kib_min: Mapped[int] = mapped_column(BigInteger)
    spool_depth_max: Mapped[int] = mapped_column(BigInteger)
    boot: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    uptime_s: Mapped[int] = mapped_column(BigInteger)
    firmware: Mapped[str] = mapped_column(String(32))
    feed_serial: Mapped[int] = mapped_column(BigInteger)
    uninspected_s: Mapped[int] = mapped_column(BigInteger)
    inspected_packets: Mapped[int] = mapped_column(BigInteger)
    bypassed_packets: Mapped[int] = mapped_column(BigInteger)
    blocked_packets: Mapped[int] = mapped_column(BigInteger)
    celsius_max: Mapped[int | None] = mapped_column(SmallInteger)
    millivolts_min: Mapped[int | None] = mapped_column(Integer)


class State(Base):
    """The state that counts, one row for each box; see `presence` for which one counts.

    `supervisor` holds the fields of `messages.SupervisorState` by name: always read and written together.
    """

    __tablename__ = "states"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    presence_ms: Mapped[int] = mapped_column(BigInteger)  # a will changes presence only, not what the box told
    session: Mapped[bytes] = mapped_column(LargeBinary(8))
    presence: Mapped[int] = mapped_column(SmallInteger)
    boot: Mapped[int] = mapped_column(BigInteger)
    since_s: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str] = mapped_column(String(32))
    firmware: Mapped[str] = mapped_column(String(32))
    flavour: Mapped[str] = mapped_column(String(16))
    slot: Mapped[int] = mapped_column(SmallInteger)
    feed_serial: Mapped[int] = mapped_column(BigInteger)
    feed_state: Mapped[int] = mapped_column(SmallInteger)
    feed_reason: Mapped[str | None] = mapped_column(String(300))
    certificate_expires_s: Mapped[int | None] = mapped_column(BigInteger)
    trouble: Mapped[int | None] = mapped_column(SmallInteger)
    leaving: Mapped[int | None] = mapped_column(SmallInteger)
    quiet_s: Mapped[int | None] = mapped_column(Integer)
    supervisor: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class Return(Base):
    """A birth message that begins a session, beside what was known of the session before; see `liveness`.

    `heard_ms` is when the box was last heard before, `left_ms` when the broker said that it is gone. Whoever judges
    absences sets `judged`. Both flags are 0 or 1.
    """

    __tablename__ = "returns"
    __table_args__ = (
        UniqueConstraint("device_id", "session", name="uq_returns_session"),
        Index("ix_returns_judged", "judged", "id"),
        Index("ix_returns_device", "device_id", "id"),
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    session: Mapped[bytes] = mapped_column(LargeBinary(8))
    received_ms: Mapped[int] = mapped_column(BigInteger)
    is_same_run: Mapped[int] = mapped_column(SmallInteger)
    uptime_s: Mapped[int | None] = mapped_column(BigInteger)
    last_end: Mapped[int | None] = mapped_column(SmallInteger)
    away_s: Mapped[int | None] = mapped_column(BigInteger)
    trouble: Mapped[int | None] = mapped_column(SmallInteger)
    heard_ms: Mapped[int | None] = mapped_column(BigInteger)
    left_ms: Mapped[int | None] = mapped_column(BigInteger)
    leaving: Mapped[int | None] = mapped_column(SmallInteger)
    quiet_s: Mapped[int | None] = mapped_column(Integer)
    judged: Mapped[int] = mapped_column(SmallInteger)
    power_before: Mapped[int | None] = mapped_column(SmallInteger)
    power_before_ms: Mapped[int | None] = mapped_column(BigInteger)


class Outage(Base):
    """An absence of a box: the most probable reason (`liveness.OutageReason`) and what speaks for it.

    `end_ms` is NULL while it lasts, `noticed_ms` unless the customer had to hear of it.
    """

    __tablename__ = "outages"
    __table_args__ = (
        Index("ix_outages_device", "device_id", "id"),
        Index("ix_outages_start", "start_ms", "id"),
        Index("ix_outages_end", "end_ms"),
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    start_ms: Mapped[int] = mapped_column(BigInteger)
    known_ms: Mapped[int] = mapped_column(BigInteger)
    end_ms: Mapped[int | None] = mapped_column(BigInteger)
    left_ms: Mapped[int | None] = mapped_column(BigInteger)
    leaving: Mapped[int | None] = mapped_column(SmallInteger)
    quiet_s: Mapped[int] = mapped_column(Integer)
    reason: Mapped[int] = mapped_column(SmallInteger)
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)
    noticed_ms: Mapped[int | None] = mapped_column(BigInteger)


class ServiceOutage(Base):
    """A time in which nothing came in, so that nothing is known of boxes; `end_ms` is NULL while it lasts."""

    __tablename__ = "service_outages"
    __table_args__ = (Index("ix_service_outages_end", "end_ms"),)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    start_ms: Mapped[int] = mapped_column(BigInteger)
    end_ms: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[str] = mapped_column(String(200))


class WorkerSign(Base):
    """The last sign of a process of ours: an ingest worker, or whoever judges absences."""

    __tablename__ = "worker_signs"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    since_ms: Mapped[int | None] = mapped_column(BigInteger)  # since when messages come in; NULL while none do
    trouble: Mapped[str] = mapped_column(String(200))


class Event(Base):
    """Something that happened; (device, boot, seq) makes a second delivery recognisable."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("device_id", "boot", "seq", name="uq_events_origin"),
        Index("ix_events_time", "kind", "occurred_ms", "id"),
        Index("ix_events_device", "device_id", "id"),
        Index("ix_events_feed", "feed_serial", "device_id"),
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    boot: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    occurred_ms: Mapped[int] = mapped_column(BigInteger)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[int] = mapped_column(SmallInteger)
    severity: Mapped[int] = mapped_column(SmallInteger)
    function: Mapped[int | None] = mapped_column(SmallInteger)
    direction: Mapped[int | None] = mapped_column(SmallInteger)
    action: Mapped[int | None] = mapped_column(SmallInteger)
    terminal_ip: Mapped[str | None] = mapped_column(String(45))
    terminal_mac: Mapped[bytes | None] = mapped_column(LargeBinary(6))
    destination: Mapped[str | None] = mapped_column(String(255))
    remote_ip: Mapped[str | None] = mapped_column(String(45))
    remote_port: Mapped[int | None] = mapped_column(Integer)
    protocol: Mapped[str | None] = mapped_column(String(16))
    rule_id: Mapped[int | None] = mapped_column(BigInteger)
    rule: Mapped[str | None] = mapped_column(String(200))
    category: Mapped[str | None] = mapped_column(String(40))
    count: Mapped[int] = mapped_column(BigInteger)
    feed_serial: Mapped[int | None] = mapped_column(BigInteger)
    feed_state: Mapped[int | None] = mapped_column(SmallInteger)
    text: Mapped[str | None] = mapped_column(String(300))
    power_kind: Mapped[int | None] = mapped_column(SmallInteger)
    power_serial: Mapped[int | None] = mapped_column(Integer)
    power_ms: Mapped[int | None] = mapped_column(BigInteger)


class LedgerEntry(Base):
    """What passed uninspected for one reason in one span; apart from events, so that alerts never push it out."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        UniqueConstraint("device_id", "boot", "seq", name="uq_ledger_origin"),
        Index("ix_ledger_device", "device_id", "id"),
        Index("ix_ledger_time", "device_id", "occurred_ms", "id"),
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    boot: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    occurred_ms: Mapped[int] = mapped_column(BigInteger)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[int] = mapped_column(SmallInteger)
    seconds: Mapped[int] = mapped_column(BigInteger)
    packets: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class LedgerTotal(Base):
    """The sums of all ledger entries ever stored, those that were deleted for their age included."""

    __tablename__ = "ledger_totals"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    reason: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    seconds: Mapped[int] = mapped_column(BigInteger)
    packets: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    latest_ms: Mapped[int] = mapped_column(BigInteger)


class Setting(Base):
    """What a box last reported about its settings, one row for each box.

    `parts` is a list of [part, state, reason]: a handful, always read and written together.
    """

    __tablename__ = "settings"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    at_s: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[int] = mapped_column(SmallInteger)
    parts: Mapped[list[Any]] = mapped_column(JSON)
    refused_version: Mapped[int | None] = mapped_column(BigInteger)
    refused_reason: Mapped[str | None] = mapped_column(String(200))
    command_id: Mapped[bytes | None] = mapped_column(LargeBinary(8))
    command_state: Mapped[int | None] = mapped_column(SmallInteger)
    command_reason: Mapped[str | None] = mapped_column(String(200))
    bypass_until_s: Mapped[int | None] = mapped_column(BigInteger)


class Firmware(Base):
    """What a box last said about a firmware update, one row for each box; what it runs, heartbeats say, too."""

    __tablename__ = "firmware"
    __table_args__ = (Index("ix_firmware_version", "version", "state"),)

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    boot: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    occurred_ms: Mapped[int] = mapped_column(BigInteger)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[str] = mapped_column(String(32))
    state: Mapped[int] = mapped_column(SmallInteger)
    reason: Mapped[int] = mapped_column(SmallInteger)
    detail: Mapped[str | None] = mapped_column(String(300))
    slot: Mapped[int | None] = mapped_column(SmallInteger)
    running: Mapped[str | None] = mapped_column(String(32))


class Diagnostics(Base):
    """What a box last told about itself when it was asked, compressed as it came (`omamori_protocol.diagnostics`)."""

    __tablename__ = "diagnostics"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    command_id: Mapped[bytes] = mapped_column(LargeBinary(8))
    at_s: Mapped[int] = mapped_column(BigInteger)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class Customer(Base):
    """Whose boxes they are, and how long the contract keeps alerts (None: as long as usual)."""

    __tablename__ = "customers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    alert_days: Mapped[int | None] = mapped_column(Integer)


class Assignment(Base):
    """Which customer has a box; no foreign key: a box may be assigned before it was ever heard of."""

    __tablename__ = "assignments"
    __table_args__ = (Index("ix_assignments_customer", "customer_id"),)

    device: Mapped[str] = mapped_column(String(32), primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))


class Erasure(Base):
    """What was deleted on request: of whom, when, and how many rows of each table. It holds nothing of what it was."""

    __tablename__ = "erasures"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    subject: Mapped[str] = mapped_column(String(80))
    rows: Mapped[dict[str, int]] = mapped_column(JSON)


class Installation(Base):
    """What all programs on this store must agree on."""

    __tablename__ = "installation"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(String(200))


class Refusal(Base):
    """A message that was not taken in; for operators. `device` is empty when the topic names none."""

    __tablename__ = "refusals"
    __table_args__ = (Index("ix_refusals_device", "device", "id"),)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    device: Mapped[str] = mapped_column(String(32))
    received_ms: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(String(200))


class Report(Base):
    """A customer's report of a false alarm, and what became of it; its number is never used again.

    `device` is empty, and alert and terminal are NULL, when it is about no alert. `accepted_*` is what the next feed
    leaves out.
    """

    __tablename__ = "reports"
    __table_args__ = (Index("ix_reports_state", "state", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(8))
    indicator: Mapped[str] = mapped_column(String(1400))
    note: Mapped[str] = mapped_column(String(500))
    reporter: Mapped[str] = mapped_column(String(60))
    times: Mapped[int] = mapped_column(BigInteger)
    device: Mapped[str] = mapped_column(String(32))
    alert_id: Mapped[int | None] = mapped_column(BigInteger)
    terminal_ip: Mapped[str | None] = mapped_column(String(45))
    terminal_mac: Mapped[bytes | None] = mapped_column(LargeBinary(6))
    state: Mapped[int] = mapped_column(SmallInteger)
    decided_ms: Mapped[int | None] = mapped_column(BigInteger)
    decided_by: Mapped[str] = mapped_column(String(60))
    reason: Mapped[str] = mapped_column(String(500))
    accepted_kind: Mapped[str | None] = mapped_column(String(8))
    accepted_indicator: Mapped[str | None] = mapped_column(String(1400))
