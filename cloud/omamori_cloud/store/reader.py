"""Answers questions about the store. Changes nothing; every answer is bounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import LABEL_STYLE_TABLENAME_PLUS_COL, Engine, and_, case, func, or_, select, true
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from omamori_cloud.errors import StoreUnavailableError
from omamori_cloud.facts import (
    AlertTotals,
    BoxFacts,
    DiagnosticsFacts,
    EventFacts,
    FirmwareFacts,
    LedgerFacts,
    LedgerSum,
    OutageFacts,
    PartFacts,
    RefusalFacts,
    ServiceOutageFacts,
    SettingsFacts,
    SupervisorFacts,
    WorkerFacts,
)
from omamori_cloud.feed_trial import TrialFacts
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

from .absence_reader import MAX_OUTAGES, read_outages, read_service_outages, read_workers
from .queries import AlertPage, AlertQuery, Cursor, LedgerPage, LedgerQuery, parse_terminal
from .schema import Device, Diagnostics, Event, Firmware, Heartbeat, LedgerEntry, LedgerTotal, Refusal, Setting, State
from .trial_reader import read_trial

MAX_BOXES = 1_000
MAX_TERMINALS = 50


class Reader:
    """Reads; safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        """Take the database; nothing is read yet."""
        self._engine = engine

    def _rows(self, statement: Any) -> Sequence[Any]:
        """Return rows that can be read by column name."""
        try:
            with self._engine.connect() as connection:
                return connection.execute(statement).mappings().all()
        except DBAPIError as err:
            raise StoreUnavailableError(f"database: {str(err.orig)[:200]}") from err
        except PoolTimeoutError as err:
            raise StoreUnavailableError("database: too many questions at once") from err

    def boxes(self) -> tuple[BoxFacts, ...]:
        """Return the boxes by device id, at most `MAX_BOXES`."""
        return self._boxes(true())

    def box(self, device: str) -> BoxFacts | None:
        """Return one box; None if nothing was ever heard of it."""
        found = self._boxes(Device.id == device)
        return found[0] if found else None

    def _boxes(self, condition: Any) -> tuple[BoxFacts, ...]:
        chosen = select(Device.id).where(condition).order_by(Device.id).limit(MAX_BOXES)
        rows = self._rows(
            select(Device.__table__, State.__table__, Heartbeat.__table__, Setting.__table__, Firmware.__table__)
            .select_from(Device)
            .outerjoin(State, State.device_id == Device.id)
            .outerjoin(Heartbeat, Heartbeat.id == Device.latest_heartbeat_id)
            .outerjoin(Setting, Setting.device_id == Device.id)
            .outerjoin(Firmware, Firmware.device_id == Device.id)
            .where(Device.id.in_(chosen))
            .order_by(Device.id)
            .set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL)
        )
        sums: dict[str, list[LedgerSum]] = {}
        for row in self._rows(
            select(LedgerTotal.__table__)
            .where(LedgerTotal.device_id.in_(chosen))
            .order_by(LedgerTotal.device_id, LedgerTotal.reason)
        ):
            reason = _maybe(UninspectedReason, row["reason"])
            if reason is not None:
                sums.setdefault(row["device_id"], []).append(_sum(reason, row))
        outages = {
            found.device: found
            for found in read_outages(self._rows, device=None, before=None, limit=MAX_OUTAGES, is_open=True)
        }
        return tuple(_box(row, tuple(sums.get(row["devices_id"], ())), outages.get(row["devices_id"])) for row in rows)

    def diagnostics(self, device: str) -> DiagnosticsFacts | None:
        """Return what a box last told about itself when it was asked; None if it never did."""
        rows = self._rows(select(Diagnostics.__table__).where(Diagnostics.device_id == device))
        if not rows:
            return None
        return DiagnosticsFacts(**{item.name: rows[0][item.name] for item in dataclasses.fields(DiagnosticsFacts)})

    def outages(self, device: str | None, *, before: int | None = None, limit: int = 50) -> tuple[OutageFacts, ...]:
        """Return absences, of one box or of all, the newest first."""
        return read_outages(self._rows, device=device, before=before, limit=limit)

    def service_outages(self, since_ms: int, limit: int = 50) -> tuple[ServiceOutageFacts, ...]:
        """Return times since some moment in which nothing came in, the newest first."""
        return read_service_outages(self._rows, since_ms=since_ms, limit=limit)

    def workers(self) -> tuple[WorkerFacts, ...]:
        """Return the last signs of our own workers."""
        return read_workers(self._rows)

    def ledger(self, query: LedgerQuery) -> LedgerPage:
        """Return one page of a box's ledger."""
        conditions = self._ledger_conditions(query.device, query.since_ms)
        if query.before is not None:
            conditions.append(_before(LedgerEntry, query.before))
        rows = self._rows(
            select(LedgerEntry.__table__)
            .where(*conditions)
            .order_by(LedgerEntry.occurred_ms.desc(), LedgerEntry.id.desc())
            .limit(query.limit + 1)
        )
        entries = tuple(_ledger_entry(row) for row in rows[: query.limit])
        more = len(rows) > query.limit
        return LedgerPage(
            entries=entries, next=Cursor(occurred_ms=entries[-1].occurred_ms, id=entries[-1].id) if more else None
        )

    def ledger_sums(self, device: str, since_ms: int | None) -> tuple[LedgerSum, ...]:
        """Return what passed a box uninspected, by reason, from the entries that are still kept."""
        rows = self._rows(
            select(
                LedgerEntry.reason,
                func.sum(LedgerEntry.seconds).label("seconds"),
                func.sum(LedgerEntry.packets).label("packets"),
                func.sum(LedgerEntry.size_bytes).label("size_bytes"),
                func.max(LedgerEntry.occurred_ms).label("latest_ms"),
            )
            .where(*self._ledger_conditions(device, since_ms))
            .group_by(LedgerEntry.reason)
            .order_by(LedgerEntry.reason)
        )
        return tuple(_sum(UninspectedReason(row["reason"]), row) for row in rows)

    @staticmethod
    def _ledger_conditions(device: str, since_ms: int | None) -> list[Any]:
        known = [int(reason) for reason in UninspectedReason]
        conditions: list[Any] = [LedgerEntry.device_id == device, LedgerEntry.reason.in_(known)]
        if since_ms is not None:
            conditions.append(LedgerEntry.occurred_ms >= since_ms)
        return conditions

    def alerts(self, query: AlertQuery) -> AlertPage:
        """Return one page of alerts."""
        conditions: list[Any] = [Event.kind == int(EventKind.ALERT)]
        if query.device is not None:
            conditions.append(Event.device_id == query.device)
        if query.severity is not None:
            conditions.append(Event.severity >= int(query.severity))
        if query.function is not None:
            conditions.append(Event.function == int(query.function))
        if query.terminal is not None:
            terminal = parse_terminal(query.terminal)
            column: Any = Event.terminal_mac if isinstance(terminal, bytes) else Event.terminal_ip
            conditions.append(column == terminal)
        if query.since_ms is not None:
            conditions.append(Event.occurred_ms >= query.since_ms)
        if query.before is not None:
            conditions.append(_before(Event, query.before))
        found = self._events(conditions, query.limit + 1)
        alerts = found[: query.limit]
        more = len(found) > query.limit
        return AlertPage(
            alerts=alerts, next=Cursor(occurred_ms=alerts[-1].occurred_ms, id=alerts[-1].id) if more else None
        )

    def alert(self, number: int) -> EventFacts | None:
        """Return one alert by the number that lists give it, or None."""
        found = self._events([Event.kind == int(EventKind.ALERT), Event.id == number], 1)
        return found[0] if found else None

    def happenings(self, limit: int) -> tuple[EventFacts, ...]:
        """Return the newest events that are not alerts: feeds and the boxes' own."""
        return self._events([Event.kind != int(EventKind.ALERT)], limit)

    def _events(self, conditions: list[Any], limit: int) -> tuple[EventFacts, ...]:
        rows = self._rows(
            select(Event.__table__).where(*conditions).order_by(Event.occurred_ms.desc(), Event.id.desc()).limit(limit)
        )
        return tuple(_event(row) for row in rows)

    def alert_totals(self, since_ms: int) -> AlertTotals:
        """Return how many alerts occurred since a moment."""

        def total(condition: Any, value: Any) -> Any:
            return func.coalesce(func.sum(case((condition, value), else_=0)), 0)

        row = self._rows(
            select(
                total(Event.action == int(Action.BLOCKED), Event.count).label("blocked"),
                total(Event.action == int(Action.LOGGED), Event.count).label("logged"),
                total(Event.severity == int(Severity.THREE), 1).label("urgent"),
            ).where(Event.kind == int(EventKind.ALERT), Event.occurred_ms >= since_ms)
        )[0]
        return AlertTotals(**{name: int(value) for name, value in row.items()})

    def terminals(self, since_ms: int) -> tuple[str, ...]:
        """Return the IP addresses with alerts since a moment, the latest first, at most `MAX_TERMINALS`."""
        rows = self._rows(
            select(Event.terminal_ip)
            .where(Event.kind == int(EventKind.ALERT), Event.occurred_ms >= since_ms, Event.terminal_ip.is_not(None))
            .group_by(Event.terminal_ip)
            .order_by(func.max(Event.occurred_ms).desc())
            .limit(MAX_TERMINALS)
        )
        return tuple(row["terminal_ip"] for row in rows)

    def trial(self, serial: int, now_ms: int) -> list[TrialFacts]:
        """Return what is known of a feed on every box."""
        return read_trial(self._rows, serial, now_ms)

    def refusals(self, limit: int) -> tuple[RefusalFacts, ...]:
        """Return the newest messages that were not taken in."""
        rows = self._rows(select(Refusal.__table__).order_by(Refusal.id.desc()).limit(limit))
        return tuple(RefusalFacts(**{name: row[name] for name in _REFUSAL}) for row in rows)


def _maybe(choice: Any, value: Any) -> Any:
    """Return the member of a closed choice; a number this program does not know is "it has not said"."""
    try:
        return None if value is None else choice(value)
    except ValueError:
        return None


def _before(table: Any, cursor: Cursor) -> Any:
    return or_(
        table.occurred_ms < cursor.occurred_ms,
        and_(table.occurred_ms == cursor.occurred_ms, table.id < cursor.id),
    )


def _sum(reason: UninspectedReason, row: Any) -> LedgerSum:
    # PostgreSQL sums integers to a decimal.
    values = {name: int(row[name]) for name in ("seconds", "packets", "size_bytes", "latest_ms")}
    return LedgerSum(reason=reason, **values)


def _ledger_entry(row: Any) -> LedgerFacts:
    values = dict(row)
    values["device"] = values.pop("device_id")
    values["reason"] = UninspectedReason(values["reason"])
    return LedgerFacts(**values)


def _settings(row: Any) -> SettingsFacts | None:
    if row["settings_device_id"] is None:
        return None
    parts = [
        PartFacts(part=PartName(part), state=PartState(state), reason=reason)
        for part, state, reason in row["settings_parts"]
        if _maybe(PartName, part) is not None and _maybe(PartState, state) is not None
    ]
    same = ("received_ms", "at_s", "version", "refused_version", "refused_reason", "command_id", "command_reason")
    return SettingsFacts(
        **{name: row[f"settings_{name}"] for name in same},
        state=_maybe(PartState, row["settings_state"]),
        parts=tuple(parts),
        command_state=_maybe(PartState, row["settings_command_state"]),
        bypass_until_s=row["settings_bypass_until_s"],
    )


def _update(row: Any) -> FirmwareFacts | None:
    state = _maybe(FirmwareState, row["firmware_state"])
    if state is None:
        return None
    return FirmwareFacts(
        version=row["firmware_version"],
        state=state,
        reason=_maybe(FirmwareReason, row["firmware_reason"]) or FirmwareReason.NONE,
        occurred_ms=row["firmware_occurred_ms"],
        detail=row["firmware_detail"],
        slot=_maybe(Slot, row["firmware_slot"]),
        running=row["firmware_running"],
    )


def _supervisor(row: Any) -> SupervisorFacts | None:
    told = row["states_supervisor"]
    if told is None:
        return None
    names = {item.name for item in dataclasses.fields(SupervisorFacts)}
    figures = ("celsius", "celsius_ms", "millivolts", "millivolts_ms")
    values = {name: value for name, value in told.items() if name in names}
    values["power_kind"] = _maybe(PowerKind, values.get("power_kind"))
    return SupervisorFacts(**values, **{name: row[f"devices_{name}"] for name in figures})


def _box(row: Any, ledger: tuple[LedgerSum, ...], outage: OutageFacts | None) -> BoxFacts:
    state_ms, heartbeat_ms = row["states_received_ms"], row["heartbeats_received_ms"]
    newer = "heartbeats" if state_ms is None or (heartbeat_ms or 0) > state_ms else "states"
    feed_state = _maybe(FeedState, row[f"{newer}_feed_state"])
    reason_holds = feed_state is not None and feed_state == row["states_feed_state"]
    return BoxFacts(
        device=row["devices_id"],
        first_seen_ms=row["devices_first_seen_ms"],
        last_contact_ms=row["devices_last_contact_ms"],
        refused=row["devices_refused"],
        presence=_maybe(Presence, row["states_presence"]),
        presence_ms=row["states_presence_ms"],
        model=row["states_model"],
        flavour=row["states_flavour"],
        certificate_expires_s=row["states_certificate_expires_s"],
        firmware=row[f"{newer}_firmware"],
        slot=_maybe(Slot, row[f"{newer}_slot"]),
        feed_serial=row[f"{newer}_feed_serial"],
        feed_state=feed_state,
        feed_reason=row["states_feed_reason"] if reason_holds else None,
        engine=_maybe(EngineState, row["heartbeats_engine"]),
        uptime_s=row["heartbeats_uptime_s"],
        agent_rss_kib=row["heartbeats_agent_rss_kib"],
        memory_available_kib=row["heartbeats_memory_available_kib"],
        spool_depth=row["heartbeats_spool_depth"],
        uninspected_s=row["heartbeats_uninspected_s"],
        inspected_packets=row["heartbeats_inspected_packets"],
        bypassed_packets=row["heartbeats_bypassed_packets"],
        blocked_packets=row["heartbeats_blocked_packets"],
        settings=_settings(row),
        ledger=ledger,
        update=_update(row),
        trouble=row["states_trouble"],
        outage=outage,
        supervisor=_supervisor(row),
    )


_REFUSAL = tuple(item.name for item in dataclasses.fields(RefusalFacts))
_CHOICES: dict[str, Any] = {
    "function": Function,
    "direction": Direction,
    "action": Action,
    "feed_state": FeedState,
    "power_kind": PowerKind,
}


def _event(row: Any) -> EventFacts:
    values = dict(row)
    values["device"] = values.pop("device_id")
    values["kind"] = EventKind(values["kind"])
    values["severity"] = Severity(values["severity"])
    for name, choice in _CHOICES.items():
        values[name] = _maybe(choice, values[name])
    return EventFacts(**values)
