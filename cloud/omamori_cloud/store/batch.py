"""One batch of messages on its way into the database: gathered first, then stored in few statements.

* Storing something twice is harmless: events and ledger entries are unique by (device, boot, seq), and only entries
  that are new are added to the ledger's sums; a state and a report of settings replace themselves.
* The order in which workers come does not matter: see `presence` for states and heartbeats; what a box said about its
  firmware is the newest by (boot, seq).

It is used inside a transaction that has locked the devices (see `writer`), so nobody else changes their rows.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import Connection, bindparam, case, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from omamori_cloud.intake import Message, Refusal, canonical_address, occurred_ms
from omamori_cloud.presence import BeatMark, SessionMark, beat_counts, state_counts
from omamori_protocol.diagnostics import Diagnostics as DiagnosticsMessage
from omamori_protocol.messages import Event as EventMessage
from omamori_protocol.messages import Heartbeat as HeartbeatMessage
from omamori_protocol.messages import State as StateMessage
from omamori_protocol.messages import SupervisorState
from omamori_protocol.reported import Reported as ReportedMessage
from omamori_protocol.vocabulary import EventKind, Presence

from . import schema
from .bulk import insert_many

_MAX_SUM = 2**63 - 1  # a box that lies must not make the database refuse
_MAX_TEXT = 300

# What ledger entries alone carry; they have a table of their own.
_LEDGER_FIELDS = frozenset({"uninspected_reason", "uninspected_s", "packets", "size_bytes"})
_FIRMWARE_FIELDS = frozenset({"firmware", "firmware_state", "firmware_reason", "booted_slot", "running_firmware"})
# What a birth message says about the time before it stands in the table of returns.
_RETURN_FIELDS = frozenset({"uptime_s", "last_end", "away_s", "trouble_before", "power_before", "power_before_ms"})
# What comes with a heartbeat now and then, and describes the box until the next one.
_FIGURES = ("celsius", "millivolts")
# Of a device's row, what a batch may change.
DEVICE_COLUMNS = (
    *("last_contact_ms", "latest_heartbeat_id", "refused"),
    *_FIGURES,
    *(f"{name}_ms" for name in _FIGURES),
)


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
    diagnostics: int = 0
    refusals: int = 0


def insert_or(connection: Connection, table: Any) -> Any:
    """Return an INSERT that can say what happens on a conflict, in the engine's own words."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


_NAMES = {
    kind: tuple(item.name for item in dataclasses.fields(kind))
    for kind in (EventMessage, HeartbeatMessage, StateMessage, ReportedMessage, DiagnosticsMessage)
}


def _plain(message: Any, skip: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return a message's fields as column values; closed choices become their numbers."""
    return {
        name: int(value) if isinstance(value := getattr(message, name), int) else value
        for name in _NAMES[type(message)]
        if name not in skip
    }


def _firmware_text(body: EventMessage) -> str:
    """Return a firmware event in one line, for those who read the list of events."""
    words = [f"firmware {body.firmware}", body.firmware_state.word if body.firmware_state is not None else "?"]
    if body.firmware_reason:
        words.append(body.firmware_reason.word)
    if body.text:
        words.append(body.text)
    return ": ".join(words)[:_MAX_TEXT]


def _power_text(body: EventMessage) -> str:
    """Return a power event in one line, for those who read the list of events."""
    assert body.power_kind is not None  # `intake` has seen to it
    length = f", {body.power_ms} ms" if body.power_ms else ""
    return f"power: {body.power_kind.word}{length}"


class Batch:
    """What a transaction stores; fill it with `add`, then call `store` once.

    Attributes:
        inserted: How many rows it inserts, by table and device.
    """

    def __init__(self) -> None:
        """Start out empty."""
        self.inserted: Counter[tuple[str, str]] = Counter()
        self._events: list[dict[str, Any]] = []
        self._ledger: list[dict[str, Any]] = []
        self._heartbeats: list[dict[str, Any]] = []
        self._states: list[tuple[str, StateMessage, int, int]] = []  # the last: when the box was heard before
        self._returns: list[dict[str, Any]] = []
        self._firmware: dict[str, dict[str, Any]] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self._diagnostics: dict[str, dict[str, Any]] = {}
        self._refusals: list[dict[str, Any]] = []
        self._refused: Counter[str] = Counter()
        self._contact: dict[str, int] = {}
        self._figures: defaultdict[str, dict[str, int]] = defaultdict(dict)  # of supervisors, by device and column
        self._totals: Counter[str] = Counter()

    def add(self, item: Message | Refusal) -> None:
        """Put one item aside for `store`."""
        if isinstance(item, Refusal):
            self._add_refusal(item)
            return
        body, device, at_ms = item.body, item.device, item.received_ms
        alive = not item.retained
        if isinstance(body, EventMessage):
            self._add_event(device, body, at_ms)
        elif isinstance(body, HeartbeatMessage):
            self._heartbeats.append({**_plain(body), "device_id": device, "received_ms": at_ms})
            self._count("heartbeats", device)
        elif isinstance(body, ReportedMessage):
            parts = [[int(part.part), int(part.state), part.reason] for part in body.parts]
            self._settings[device] = _plain(body) | {"device_id": device, "parts": parts, "received_ms": at_ms}
            self._totals["reports"] += 1
        elif isinstance(body, DiagnosticsMessage):
            self._diagnostics[device] = _plain(body) | {"device_id": device, "received_ms": at_ms}
            self._totals["diagnostics"] += 1
        else:
            alive = alive and body.presence is Presence.ONLINE
            self._states.append((device, body, at_ms, self._contact.get(device, 0)))
        if alive:
            self._contact[device] = max(at_ms, self._contact.get(device, 0))

    def store(self, connection: Connection, devices: dict[str, Any]) -> StoreReport:
        """Store what was put aside and say what was done.

        Args:
            connection: In a transaction.
            devices: The rows of all devices in the batch, locked.
        """
        latest = self._store_heartbeats(connection, devices)
        self._update_devices(connection, devices, latest)
        if self._events:
            self._insert_new(connection, schema.Event, "events", self._events)
        if self._ledger:
            self._add_to_sums(connection, self._insert_new(connection, schema.LedgerEntry, "ledger", self._ledger))
        if self._refusals:
            connection.execute(insert(schema.Refusal), self._refusals)
        self._store_states(connection, devices)
        self._replace(connection, schema.Setting, self._settings)
        self._replace(connection, schema.Diagnostics, self._diagnostics)
        self._store_firmware(connection)
        return StoreReport(**self._totals)

    def _count(self, name: str, device: str) -> None:
        self.inserted[name, device] += 1
        self._totals[name] += 1

    def _add_refusal(self, refusal: Refusal) -> None:
        self._refusals.append(
            {
                "device": refusal.device,
                "received_ms": refusal.received_ms,
                "reason": refusal.reason.value,
                "detail": refusal.detail,
            }
        )
        self._count("refusals", refusal.device)
        if refusal.device:
            self._refused[refusal.device] += 1

    def _add_event(self, device: str, body: EventMessage, at_ms: int) -> None:
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
        text = body.text
        if body.kind is EventKind.FIRMWARE:
            self._add_firmware(body, origin)
            text = _firmware_text(body)
        if body.kind is EventKind.POWER:
            text = _power_text(body)
        changed = {
            "text": text,
            "terminal_ip": canonical_address(body.terminal_ip),
            "remote_ip": canonical_address(body.remote_ip),
        }
        self._events.append(_plain(body, _LEDGER_FIELDS | _FIRMWARE_FIELDS) | changed | origin)

    def _add_firmware(self, body: EventMessage, origin: dict[str, Any]) -> None:
        """Let this be what the box last said, unless it has said something later."""
        assert body.firmware is not None  # `intake` has seen to it
        assert body.firmware_state is not None
        known = self._firmware.get(origin["device_id"])
        if known is not None and (known["boot"], known["seq"]) >= (body.boot, body.seq):
            return
        self._firmware[origin["device_id"]] = {
            **{name: origin[name] for name in ("device_id", "boot", "seq", "occurred_ms", "received_ms")},
            "version": body.firmware,
            "state": int(body.firmware_state),
            "reason": int(body.firmware_reason or 0),
            "detail": body.text,
            "slot": None if body.booted_slot is None else int(body.booted_slot),
            "running": body.running_firmware,
        }

    def _store_heartbeats(self, connection: Connection, devices: dict[str, Any]) -> dict[str, int]:
        """Store them, and return the number of the row that now describes each box that has a newer one."""
        if not self._heartbeats:
            return {}
        table = schema.Heartbeat
        names = ("id", "device_id", "boot", "seq", "received_ms", *_FIGURES)
        columns = [getattr(table, name) for name in names]
        described = [row.latest_heartbeat_id for row in devices.values() if row.latest_heartbeat_id is not None]
        known = {
            row.device_id: _mark(row) for row in connection.execute(select(*columns).where(table.id.in_(described)))
        }
        rows = insert_many(connection, table, self._heartbeats, returning=names)
        latest: dict[str, int] = {}
        for row in sorted(rows, key=lambda row: (row.received_ms, row.id)):
            if beat_counts(known.get(row.device_id), mark := _mark(row)):
                known[row.device_id] = mark
                latest[row.device_id] = row.id
                for name in _FIGURES:
                    if (value := getattr(row, name)) is not None:
                        self._figures[row.device_id] |= {name: value, f"{name}_ms": row.received_ms}
        return latest

    def _update_devices(self, connection: Connection, devices: dict[str, Any], latest: dict[str, int]) -> None:
        changes = []
        for device, row in sorted(devices.items()):
            contact_ms = max(self._contact.get(device, 0), row.last_contact_ms or 0) or None
            before = {name: getattr(row, name) for name in DEVICE_COLUMNS}
            after = {
                **before,
                "last_contact_ms": contact_ms,
                "latest_heartbeat_id": latest.get(device, row.latest_heartbeat_id),
                "refused": row.refused + self._refused[device],
                **self._figures.get(device, {}),
            }
            if after != before:
                changes.append({"of": device} | {f"new_{name}": value for name, value in after.items()})
        if changes:
            table: Any = schema.Device.__table__
            connection.execute(
                update(table)
                .where(table.c.id == bindparam("of"))
                .values({name: bindparam(f"new_{name}") for name in DEVICE_COLUMNS}),
                changes,
            )

    def _insert_new(
        self, connection: Connection, table: Any, name: str, rows: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Store the rows that are not there yet, and return them."""
        origin_of = ("device_id", "boot", "seq")
        stored = {tuple(row) for row in insert_many(connection, table, rows, unique=origin_of, returning=origin_of)}
        self._totals[name] += len(stored)
        self._totals["duplicates"] += len(rows) - len(stored)
        for row in rows:
            self.inserted[name, row["device_id"]] += 1
        # A row that is twice in the batch was stored once.
        unique = {(row["device_id"], row["boot"], row["seq"]): row for row in reversed(rows)}
        return [row for origin, row in unique.items() if origin in stored]

    def _add_to_sums(self, connection: Connection, entries: list[dict[str, Any]]) -> None:
        sums: dict[tuple[str, int], dict[str, Any]] = {}
        for entry in entries:
            key = (entry["device_id"], entry["reason"])
            known = sums.setdefault(key, {"seconds": 0, "packets": 0, "size_bytes": 0, "latest_ms": 0})
            for name in ("seconds", "packets", "size_bytes"):
                known[name] = min(known[name] + entry[name], _MAX_SUM)
            known["latest_ms"] = max(known["latest_ms"], entry["occurred_ms"])
        if not sums:
            return
        table = schema.LedgerTotal
        statement = insert_or(connection, table)
        new = statement.excluded
        changes: dict[str, Any] = {
            name: case((getattr(table, name) > _MAX_SUM - new[name], _MAX_SUM), else_=getattr(table, name) + new[name])
            for name in ("seconds", "packets", "size_bytes")
        }
        changes["latest_ms"] = case((new["latest_ms"] > table.latest_ms, new["latest_ms"]), else_=table.latest_ms)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["device_id", "reason"], set_=changes),
            [{"device_id": key[0], "reason": key[1], **values} for key, values in sorted(sums.items())],
        )

    def _store_states(self, connection: Connection, devices: dict[str, Any]) -> None:
        if not self._states:
            return
        table = schema.State
        columns: Any = table.__table__
        chosen = {device for device, _, _, _ in self._states}
        known = {
            row["device_id"]: dict(row)
            for row in connection.execute(select(columns).where(table.device_id.in_(chosen))).mappings()
        }
        before = {device: dict(row) for device, row in known.items()}
        for device, body, at_ms, heard_ms in self._states:
            self._apply_state(known, device, body, at_ms, max(heard_ms, devices[device].last_contact_ms or 0))
        self._replace(connection, table, {key: row for key, row in known.items() if row != before.get(key)})
        if self._returns:
            unique = ("device_id", "session")
            stored = insert_many(connection, schema.Return, self._returns, unique=unique, returning=("device_id",))
            self.inserted.update(("returns", row.device_id) for row in stored)

    def _apply_state(
        self, known: dict[str, dict[str, Any]], device: str, body: StateMessage, at_ms: int, heard_ms: int
    ) -> None:
        row = known.get(device)
        mark = None
        if row is not None:
            ended = row["presence"] == Presence.OFFLINE
            mark = SessionMark(session=row["session"], boot=row["boot"], since_s=row["since_s"], ended=ended)
        if not state_counts(mark, body):
            self._totals["stale_wills"] += 1
            return
        self._totals["states"] += 1
        if row is None or body.presence is Presence.ONLINE or body.session != row["session"]:
            if row is not None and body.presence is Presence.ONLINE and body.session != row["session"]:
                self._returns.append(_return(row, device, body, at_ms, heard_ms))
            known[device] = _plain(body, _RETURN_FIELDS) | {
                "supervisor": _supervisor(body.supervisor),
                "device_id": device,
                "received_ms": at_ms,
                "presence_ms": at_ms,
            }
        elif row["presence"] != Presence.OFFLINE:
            # A will was written when the connection began: all but the presence in it may be long outdated. A goodbye
            # was not, but says nothing new about the rest.
            known[device] = row | {
                "presence": int(Presence.OFFLINE),
                "presence_ms": at_ms,
                "leaving": None if body.leaving is None else int(body.leaving),
                "quiet_s": body.quiet_s,
            }

    def _replace(self, connection: Connection, table: Any, rows: dict[str, dict[str, Any]]) -> None:
        """Store one row for each device, instead of the one that is there."""
        for device in sorted(rows):
            values = {name: value for name, value in rows[device].items() if name != "device_id"}
            connection.execute(
                insert_or(connection, table)
                .values(rows[device])
                .on_conflict_do_update(index_elements=["device_id"], set_=values)
            )

    def _store_firmware(self, connection: Connection) -> None:
        if not self._firmware:
            return
        table = schema.Firmware
        chosen = select(table.device_id, table.boot, table.seq).where(table.device_id.in_(self._firmware))
        known = {row.device_id: (row.boot, row.seq) for row in connection.execute(chosen)}
        newer = {
            device: row
            for device, row in self._firmware.items()
            if known.get(device, (-1, -1)) < (row["boot"], row["seq"])
        }
        self._replace(connection, table, newer)


def _return(row: dict[str, Any], device: str, body: StateMessage, at_ms: int, heard_ms: int) -> dict[str, Any]:
    """Return the birth of a session beside what was known of the one before (a row of `State`)."""
    left = row["presence"] == Presence.OFFLINE
    return {
        "device_id": device,
        "session": body.session,
        "received_ms": at_ms,
        "is_same_run": int(body.boot == row["boot"]),
        "uptime_s": body.uptime_s,
        "last_end": None if body.last_end is None else int(body.last_end),
        "away_s": body.away_s,
        "trouble": body.trouble_before,
        "heard_ms": heard_ms or None,
        "left_ms": row["presence_ms"] if left else None,
        "leaving": row["leaving"] if left else None,
        "quiet_s": row["quiet_s"] if left else None,
        "judged": 0,
        "power_before": None if body.power_before is None else int(body.power_before),
        "power_before_ms": body.power_before_ms,
    }


def _supervisor(told: SupervisorState | None) -> dict[str, Any] | None:
    """Return the fields by name; closed choices are their numbers."""
    if told is None:
        return None
    values = dataclasses.asdict(told)
    return {
        name: value if value is None or isinstance(value, bool | str) else int(value) for name, value in values.items()
    }


def _mark(row: Any) -> BeatMark:
    return BeatMark(boot=row.boot, seq=row.seq, received_ms=row.received_ms)
