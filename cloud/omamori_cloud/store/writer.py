"""The only place that changes rows, but for reports of false alarms (`reports`).

It stores batches of what ingest took in, and keeps every table within its bound.

* A batch is one transaction. When `store` returns, it is on disk, and its messages may be acknowledged.
* Storing something twice is harmless: events and ledger entries are unique by (device, boot, seq), and only entries
  that are new are added to the ledger's sums; a state and a report of settings replace themselves.
* A row that the database refuses for what it holds becomes a refusal; the rest of its batch is stored.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, and_, case, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from omamori_cloud.config import Limits
from omamori_cloud.errors import StoreUnavailableError
from omamori_cloud.intake import MAX_DETAIL, Message, Refusal, RefusalReason, canonical_address, occurred_ms
from omamori_cloud.presence import SessionMark, state_counts
from omamori_protocol.messages import Event as EventMessage
from omamori_protocol.messages import Heartbeat as HeartbeatMessage
from omamori_protocol.messages import State as StateMessage
from omamori_protocol.reported import Reported as ReportedMessage
from omamori_protocol.vocabulary import EventKind, Presence

from . import schema

_MAX_SUM = 2**63 - 1  # a box that lies must not make the database refuse
_TRIM_EVERY = 256  # rows of one device that may pile up beyond the bound before they are trimmed


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreReport:
    """What became of a batch."""

    events: int = 0
    duplicates: int = 0
    states: int = 0
    stale_wills: int = 0
    heartbeats: int = 0
    ledger: int = 0
    reports: int = 0
    refusals: int = 0


# What ledger entries alone carry; they have a table of their own.
_LEDGER_FIELDS = frozenset({"uninspected_reason", "uninspected_s", "packets", "size_bytes"})
_FIRMWARE_FIELDS = frozenset({"firmware", "firmware_state", "firmware_reason", "booted_slot", "running_firmware"})
_MAX_TEXT = 300


def _plain(message: Any) -> dict[str, Any]:
    """Return a message's fields as column values; closed choices become their numbers."""
    return {
        item.name: int(value) if isinstance(value := getattr(message, item.name), int) else value
        for item in dataclasses.fields(message)
    }


class Writer:
    """Stores batches. Use one at a time: it remembers which devices exist and when it last trimmed."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        """Take the database and the bounds; nothing is read yet."""
        self._engine = engine
        self._limits = limits
        self._devices: set[str] | None = None
        self._since_trim: Counter[tuple[str, str]] = Counter()

    def store(self, batch: Sequence[Message | Refusal]) -> StoreReport:
        """Store `batch` and everything it implies.

        Raises:
            StoreUnavailableError: The database does not answer; nothing of the batch is stored.
        """
        try:
            return self._store_all(batch)
        except (DataError, IntegrityError) as err:
            cause: Exception = err
        except DBAPIError as err:
            self._devices = None
            raise StoreUnavailableError(f"database: {str(err.orig)[:200]}") from err
        except (StatementError, OverflowError) as err:
            cause = err
        self._devices = None
        if len(batch) > 1:
            return _sum(self.store([item]) for item in batch)
        item = batch[0]
        if isinstance(item, Refusal):
            raise StoreUnavailableError(f"database: refuses a refusal: {str(cause)[:200]}") from cause
        detail = f"database: {str(cause).splitlines()[0]}"[:MAX_DETAIL]
        return self.store(
            [
                Refusal(
                    device=item.device,
                    reason=RefusalReason.UNSTORABLE,
                    detail=detail,
                    received_ms=item.received_ms,
                )
            ]
        )

    def _store_all(self, batch: Sequence[Message | Refusal]) -> StoreReport:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            transaction = _Transaction(connection, self._limits, self._known_devices(connection))
            for item in batch:
                transaction.add(item)
            report = transaction.finish()
            self._trim(connection, transaction.inserted)
        self._devices = transaction.devices
        return report

    def _known_devices(self, connection: Connection) -> set[str]:
        if self._devices is None:
            self._devices = set(connection.scalars(select(schema.Device.id)))
        return set(self._devices)

    def _trim(self, connection: Connection, inserted: Counter[tuple[str, str]]) -> None:
        bounds: dict[str, tuple[Any, Any, int]] = {
            "heartbeats": (schema.Heartbeat, schema.Heartbeat.device_id, self._limits.heartbeats_per_device),
            "events": (schema.Event, schema.Event.device_id, self._limits.events_per_device),
            "ledger": (schema.LedgerEntry, schema.LedgerEntry.device_id, self._limits.ledger_entries_per_device),
            "refusals": (schema.Refusal, schema.Refusal.device, self._limits.refusals_per_device),
        }
        for key, count in inserted.items():
            first = key not in self._since_trim
            self._since_trim[key] += count
            table, column, keep = bounds[key[0]]
            if not first and self._since_trim[key] < min(_TRIM_EVERY, keep):
                continue
            self._since_trim[key] = 0
            oldest_beyond = (
                select(table.id).where(column == key[1]).order_by(table.id.desc()).limit(1).offset(keep)
            ).scalar_subquery()
            connection.execute(delete(table).where(column == key[1], table.id <= oldest_beyond))


def _firmware_text(body: EventMessage) -> str:
    """Return a firmware event in one line, for those who read the list of events."""
    words = [f"firmware {body.firmware}", body.firmware_state.word if body.firmware_state is not None else "?"]
    if body.firmware_reason:
        words.append(body.firmware_reason.word)
    if body.text:
        words.append(body.text)
    return ": ".join(words)[:_MAX_TEXT]


def _sum(reports: Any) -> StoreReport:
    totals: Counter[str] = Counter()
    for report in reports:
        totals.update(dataclasses.asdict(report))
    return StoreReport(**totals)


class _Transaction:
    """One batch on its way into the database."""

    def __init__(self, connection: Connection, limits: Limits, devices: set[str]) -> None:
        self.devices = devices
        self.inserted: Counter[tuple[str, str]] = Counter()
        self._connection = connection
        self._limits = limits
        self._events: list[dict[str, Any]] = []
        self._ledger: list[dict[str, Any]] = []
        self._refusals: list[dict[str, Any]] = []
        self._contact: dict[str, int] = {}
        self._totals: Counter[str] = Counter()

    def add(self, item: Message | Refusal) -> None:
        """Store one item, or put it aside for `finish`."""
        if item.device and not self._ensure_device(item.device, item.received_ms):
            detail = f"{item.device}: {len(self.devices)} devices are known, which is the bound"
            item = Refusal(
                device="", reason=RefusalReason.TOO_MANY_DEVICES, detail=detail, received_ms=item.received_ms
            )
        if isinstance(item, Refusal):
            self._add_refusal(item)
            return
        body = item.body
        alive = not item.retained
        if isinstance(body, EventMessage):
            self._put_aside(item.device, body, item.received_ms)
        elif isinstance(body, HeartbeatMessage):
            self._add_heartbeat(item.device, body, item.received_ms)
        elif isinstance(body, ReportedMessage):
            self._add_report(item.device, body, item.received_ms)
        else:
            alive = alive and body.presence is Presence.ONLINE
            self._add_state(item.device, body, item.received_ms)
        if alive:
            self._contact[item.device] = item.received_ms

    def finish(self) -> StoreReport:
        """Store what was put aside and say what was done."""
        if self._events:
            self._insert_new(schema.Event, "events", self._events)
        if self._ledger:
            self._add_to_sums(self._insert_new(schema.LedgerEntry, "ledger", self._ledger))
        if self._refusals:
            self._connection.execute(insert(schema.Refusal), self._refusals)
        for device, at_ms in self._contact.items():
            self._connection.execute(
                update(schema.Device).where(schema.Device.id == device).values(last_contact_ms=at_ms)
            )
        return StoreReport(**self._totals)

    def _put_aside(self, device: str, body: EventMessage, at_ms: int) -> None:
        origin = {
            "device_id": device,
            "boot": body.boot,
            "seq": body.seq,
            "at_ms": body.at_ms,
            "occurred_ms": occurred_ms(body.at_ms, at_ms),
            "received_ms": at_ms,
        }
        if body.kind is EventKind.LEDGER:
            assert body.uninspected_reason is not None  # `intake` has seen to it
            counted = {
                "reason": int(body.uninspected_reason),
                "seconds": body.uninspected_s or 0,
                "packets": body.packets or 0,
                "size_bytes": body.size_bytes or 0,
            }
            self._ledger.append(origin | counted)
            return
        if body.kind is EventKind.FIRMWARE:
            self._add_firmware(body, origin)
            body = dataclasses.replace(body, text=_firmware_text(body))
        others = _LEDGER_FIELDS | _FIRMWARE_FIELDS
        fields = {name: value for name, value in _plain(body).items() if name not in others}
        addresses = {
            "terminal_ip": canonical_address(body.terminal_ip),
            "remote_ip": canonical_address(body.remote_ip),
        }
        self._events.append(fields | addresses | origin)

    def _add_firmware(self, body: EventMessage, origin: dict[str, Any]) -> None:
        """Let this be what the box last said, unless it has said something later."""
        assert body.firmware is not None  # `intake` has seen to it
        assert body.firmware_state is not None
        values = {name: origin[name] for name in ("boot", "seq", "occurred_ms", "received_ms")} | {
            "version": body.firmware,
            "state": int(body.firmware_state),
            "reason": int(body.firmware_reason or 0),
            "detail": body.text,
            "slot": None if body.booted_slot is None else int(body.booted_slot),
            "running": body.running_firmware,
        }
        table = schema.Firmware
        later = or_(table.boot < body.boot, and_(table.boot == body.boot, table.seq < body.seq))
        self._connection.execute(
            self._insert_once(table)
            .values(device_id=origin["device_id"], **values)
            .on_conflict_do_update(index_elements=["device_id"], set_=values, where=later)
        )

    def _insert_new(self, table: Any, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Store the rows that are not there yet, and return them."""
        columns = (table.device_id, table.boot, table.seq)
        statement = (
            self._insert_once(table)
            .on_conflict_do_nothing(index_elements=["device_id", "boot", "seq"])
            .returning(*columns)
        )
        stored = {tuple(row) for row in self._connection.execute(statement, rows)}
        self._totals[name] += len(stored)
        self._totals["duplicates"] += len(rows) - len(stored)
        for row in rows:
            self.inserted[name, row["device_id"]] += 1
        # A row that is twice in the batch was stored once.
        unique = {(row["device_id"], row["boot"], row["seq"]): row for row in reversed(rows)}
        return [row for origin, row in unique.items() if origin in stored]

    def _add_to_sums(self, entries: list[dict[str, Any]]) -> None:
        table = schema.LedgerTotal
        for entry in entries:
            counted = {name: entry[name] for name in ("seconds", "packets", "size_bytes")}
            statement = self._insert_once(table).values(
                device_id=entry["device_id"], reason=entry["reason"], latest_ms=entry["occurred_ms"], **counted
            )
            later = statement.excluded.latest_ms > table.latest_ms
            changes: dict[str, Any] = {
                name: case((getattr(table, name) > _MAX_SUM - value, _MAX_SUM), else_=getattr(table, name) + value)
                for name, value in counted.items()
            }
            changes["latest_ms"] = case((later, statement.excluded.latest_ms), else_=table.latest_ms)
            self._connection.execute(
                statement.on_conflict_do_update(index_elements=["device_id", "reason"], set_=changes)
            )

    def _add_report(self, device: str, body: ReportedMessage, at_ms: int) -> None:
        values = _plain(body) | {
            "parts": [[int(part.part), int(part.state), part.reason] for part in body.parts],
            "received_ms": at_ms,
        }
        self._connection.execute(
            self._insert_once(schema.Setting)
            .values(device_id=device, **values)
            .on_conflict_do_update(index_elements=["device_id"], set_=values)
        )
        self._totals["reports"] += 1

    def _insert_once(self, table: Any) -> Any:
        dialect: Any = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        return dialect.insert(table)

    def _ensure_device(self, device: str, at_ms: int) -> bool:
        if device in self.devices:
            return True
        if len(self.devices) >= self._limits.devices:
            return False
        # Another process may have made it since we last looked.
        self._connection.execute(
            self._insert_once(schema.Device).on_conflict_do_nothing(index_elements=["id"]),
            {"id": device, "first_seen_ms": at_ms, "refused": 0},
        )
        self.devices.add(device)
        return True

    def _add_refusal(self, refusal: Refusal) -> None:
        self._refusals.append(
            {
                "device": refusal.device,
                "received_ms": refusal.received_ms,
                "reason": refusal.reason.value,
                "detail": refusal.detail,
            }
        )
        self.inserted["refusals", refusal.device] += 1
        self._totals["refusals"] += 1
        if refusal.device:
            self._connection.execute(
                update(schema.Device)
                .where(schema.Device.id == refusal.device)
                .values(refused=schema.Device.refused + 1)
            )

    def _add_heartbeat(self, device: str, body: HeartbeatMessage, at_ms: int) -> None:
        row = {**_plain(body), "device_id": device, "received_ms": at_ms}
        new_id = self._connection.execute(insert(schema.Heartbeat).values(row)).inserted_primary_key
        self._connection.execute(
            update(schema.Device)
            .where(schema.Device.id == device)
            .values(latest_heartbeat_id=new_id[0] if new_id else None)
        )
        self.inserted["heartbeats", device] += 1
        self._totals["heartbeats"] += 1

    def _add_state(self, device: str, body: StateMessage, at_ms: int) -> None:
        table = schema.State
        row = self._connection.execute(
            select(table.session, table.boot, table.since_s, table.presence).where(table.device_id == device)
        ).first()
        known = None if row is None else SessionMark(session=row.session, boot=row.boot, since_s=row.since_s)
        if not state_counts(known, body):
            self._totals["stale_wills"] += 1
            return
        self._totals["states"] += 1
        values = {**_plain(body), "received_ms": at_ms, "presence_ms": at_ms}
        if row is None:
            self._connection.execute(insert(table).values(device_id=device, **values))
            return
        if body.presence is Presence.OFFLINE and body.session == row.session:
            # A will was written when the connection began: all but the presence in it may be long outdated.
            values = {"presence": int(Presence.OFFLINE)}
            if row.presence != Presence.OFFLINE:
                values["presence_ms"] = at_ms
        self._connection.execute(update(table).where(table.device_id == device).values(values))
