"""Answers questions about the store. Changes nothing; every answer is bounded."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Sequence
from typing import Any

from sqlalchemy import LABEL_STYLE_TABLENAME_PLUS_COL, Engine, and_, case, func, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from omamori_cloud.errors import QueryError, StoreUnavailableError
from omamori_cloud.facts import AlertTotals, BoxFacts, EventFacts, RefusalFacts
from omamori_protocol.device import check_device_id, parse_mac
from omamori_protocol.errors import ProtocolError
from omamori_protocol.vocabulary import (
    Action,
    Direction,
    EngineState,
    EventKind,
    FeedState,
    Function,
    Presence,
    Severity,
    Slot,
)

from .schema import Device, Event, Heartbeat, Refusal, State

MAX_BOXES = 1_000
MAX_ALERTS = 500
MAX_TERMINALS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where a page of alerts begins: after this one, in the order newest first."""

    occurred_ms: int
    id: int

    def __str__(self) -> str:
        return f"{self.occurred_ms}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` gave.

        Raises:
            QueryError: It is not that.
        """
        parts = text.split("-")
        if len(text) > 40 or len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise QueryError("before", f"{text[:40]!r} is not a place in the list")
        occurred_ms, row = map(int, parts)
        if max(occurred_ms, row) >= 2**63:
            raise QueryError("before", f"{text[:40]!r} is not a place in the list")
        return cls(occurred_ms=occurred_ms, id=row)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertQuery:
    """Which alerts; None means any.

    `severity` is the lowest one wanted, `terminal` an IP or MAC address, `since_ms` the earliest time of occurrence.
    """

    device: str | None = None
    severity: Severity | None = None
    function: Function | None = None
    terminal: str | None = None
    since_ms: int | None = None
    before: Cursor | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            QueryError: A value is out of its form.
        """
        if not 1 <= self.limit <= MAX_ALERTS:
            raise QueryError("limit", f"{self.limit} is outside 1..{MAX_ALERTS}")
        if self.device is not None:
            try:
                check_device_id(self.device)
            except ProtocolError as err:
                raise QueryError("device", str(err), hint=err.hint) from err
        if self.terminal is not None:
            _terminal(self.terminal)


def _terminal(text: str) -> str | bytes:
    """Return a canonical IP address, or six bytes of a MAC address."""
    try:
        return parse_mac(text)
    except ProtocolError:
        pass
    try:
        return str(ipaddress.ip_address(text[:64]))
    except ValueError as err:
        raise QueryError("terminal", f"{text[:40]!r} is neither an IP nor a MAC address") from err


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlertPage:
    """One page of alerts, newest first; `next` is where the following page begins, None at the end."""

    alerts: tuple[EventFacts, ...]
    next: Cursor | None


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
        rows = self._rows(
            select(Device.__table__, State.__table__, Heartbeat.__table__)
            .select_from(Device)
            .outerjoin(State, State.device_id == Device.id)
            .outerjoin(Heartbeat, Heartbeat.id == Device.latest_heartbeat_id)
            .order_by(Device.id)
            .limit(MAX_BOXES)
            .set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL)
        )
        return tuple(_box(row) for row in rows)

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
            terminal = _terminal(query.terminal)
            column: Any = Event.terminal_mac if isinstance(terminal, bytes) else Event.terminal_ip
            conditions.append(column == terminal)
        if query.since_ms is not None:
            conditions.append(Event.occurred_ms >= query.since_ms)
        if query.before is not None:
            conditions.append(
                or_(
                    Event.occurred_ms < query.before.occurred_ms,
                    and_(Event.occurred_ms == query.before.occurred_ms, Event.id < query.before.id),
                )
            )
        found = self._events(conditions, query.limit + 1)
        alerts = found[: query.limit]
        more = len(found) > query.limit
        return AlertPage(
            alerts=alerts, next=Cursor(occurred_ms=alerts[-1].occurred_ms, id=alerts[-1].id) if more else None
        )

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


def _box(row: Any) -> BoxFacts:
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
    )


_REFUSAL = tuple(item.name for item in dataclasses.fields(RefusalFacts))
_CHOICES: dict[str, Any] = {
    "function": Function,
    "direction": Direction,
    "action": Action,
    "feed_state": FeedState,
}


def _event(row: Any) -> EventFacts:
    values = dict(row)
    values["device"] = values.pop("device_id")
    values["kind"] = EventKind(values["kind"])
    values["severity"] = Severity(values["severity"])
    for name, choice in _CHOICES.items():
        values[name] = _maybe(choice, values[name])
    return EventFacts(**values)
