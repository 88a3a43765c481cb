"""Lets age what is in the store: heartbeats become spans, what is older than it is kept for is deleted.

It works in small transactions with pauses between them, so that ingest never waits for long, and can be stopped after
any of them. Rows are taken only if nobody else has them (`SKIP LOCKED`): it never waits for ingest while it holds
something that ingest could wait for. Of several that run at a time, one works.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, exists, or_, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from omamori_cloud.clock import Clock
from omamori_cloud.errors import StoreUnavailableError
from omamori_cloud.retention import DAY_S, HOUR_S, RetentionConfig, cutoff_ms, longer, merge, span_of
from omamori_protocol.vocabulary import EventKind

from .batch import insert_or
from .database import POSTGRESQL
from .schema import (
    Assignment,
    Customer,
    Device,
    Diagnostics,
    Event,
    Heartbeat,
    HeartbeatSpan,
    LedgerEntry,
    Outage,
    Refusal,
    Return,
    ServiceOutage,
)

logger = logging.getLogger(__name__)

_LOCK = 0x73776570  # "swep"
_FIRST_AFTER_S = 60.0
_AGAIN_AFTER_S = 60.0  # when the database did not answer
_SPAN_KEY = ("device_id", "length_s", "start_ms")

# Does one small piece of work; returns how many rows it looked at, 0 when there are none left.
_Step = Callable[[Connection], int]


class Sweeper:
    """One run, or one after the other until stopped."""

    name = "retention"

    def __init__(self, engine: Engine, config: RetentionConfig, *, clock: Clock, stop: threading.Event) -> None:
        """Take the collaborators; nothing is read yet."""
        self._engine = engine
        self._config = config
        self._clock = clock
        self._stop = stop
        self._done: Counter[str] = Counter()

    def run(self) -> None:
        """Sweep again and again until stopped."""
        pause_s = min(_FIRST_AFTER_S, self._config.every_s)
        while not self._stop.wait(pause_s):
            try:
                done = self.sweep()
                pause_s = self._config.every_s
                if done:
                    logger.info("retention: %s", ", ".join(f"{name} {count}" for name, count in sorted(done.items())))
            except StoreUnavailableError as err:
                logger.warning("retention waits: %s", err)
                pause_s = _AGAIN_AFTER_S

    def sweep(self) -> dict[str, int]:
        """Do all that is due now; returns how many rows went, by what they were.

        Raises:
            StoreUnavailableError: The database does not answer; what was done until then stays done.
        """
        self._done = Counter()
        now_ms = self._clock()
        for step in self._steps(now_ms):
            while not self._stop.is_set():
                began_s = time.monotonic()
                if self._transaction(step) == 0:
                    break
                self._stop.wait(time.monotonic() - began_s)  # half of the time belongs to ingest
        return dict(+self._done)

    def _transaction(self, step: _Step) -> int:
        try:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                if connection.dialect.name == POSTGRESQL:
                    ours = connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK})
                    if not ours.scalar_one():
                        return 0
                return step(connection)
        except (DBAPIError, PoolTimeoutError) as err:
            raise StoreUnavailableError(f"database: {str(getattr(err, 'orig', err))[:200]}") from err

    def _steps(self, now_ms: int) -> Iterator[_Step]:
        config = self._config
        heartbeats_ms = cutoff_ms(now_ms, config.heartbeat_days, HOUR_S)
        yield lambda connection: self._heartbeats_to_hours(connection, heartbeats_ms)
        hours_ms = cutoff_ms(now_ms, config.hourly_days, DAY_S)
        yield lambda connection: self._hours_to_days(connection, hours_ms)
        days_ms = cutoff_ms(now_ms, config.daily_days, DAY_S)
        old_days = (HeartbeatSpan.length_s == DAY_S, HeartbeatSpan.start_ms < days_ms)
        yield lambda connection: self._delete_spans(connection, *old_days)
        for kind in EventKind:
            yield self._events(kind, now_ms)
        for name, table, at_ms, days in (
            ("ledger", LedgerEntry, LedgerEntry.received_ms, config.ledger_days),
            ("refusals", Refusal, Refusal.received_ms, config.refusal_days),
            ("returns", Return, Return.received_ms, config.event_days),
            ("outages", Outage, Outage.known_ms, config.event_days),
            ("service outages", ServiceOutage, ServiceOutage.start_ms, config.event_days),
        ):
            yield self._by_age(name, table, at_ms, cutoff_ms(now_ms, days))
        diagnostics_ms = cutoff_ms(now_ms, config.diagnostics_days)
        yield lambda connection: self._old_diagnostics(connection, diagnostics_ms)

    def _heartbeats_to_hours(self, connection: Connection, before_ms: int) -> int:
        table: Any = Heartbeat.__table__
        # The newest heartbeat describes the box, however long ago it was.
        described = exists().where(Device.latest_heartbeat_id == Heartbeat.id)
        rows = connection.execute(
            select(table)
            .where(Heartbeat.received_ms < before_ms, ~described)
            .order_by(Heartbeat.received_ms, Heartbeat.id)
            .limit(self._config.batch_rows)
            .with_for_update(skip_locked=True, of=table)
        ).mappings()
        beats = list(rows)
        self._add_spans(connection, [span_of(dict(beat), HOUR_S) for beat in beats])
        self._delete(connection, Heartbeat, [beat["id"] for beat in beats])
        self._done["heartbeats"] += len(beats)
        return len(beats)

    def _hours_to_days(self, connection: Connection, before_ms: int) -> int:
        table: Any = HeartbeatSpan.__table__
        condition = (HeartbeatSpan.length_s == HOUR_S, HeartbeatSpan.start_ms < before_ms)
        rows = connection.execute(
            select(table)
            .where(*condition)
            .order_by(HeartbeatSpan.start_ms, HeartbeatSpan.device_id)
            .limit(self._config.batch_rows)
        ).mappings()
        spans = list(rows)
        self._add_spans(connection, [longer(dict(span), DAY_S) for span in spans])
        _delete_keys(connection, spans)
        self._done["hours"] += len(spans)
        return len(spans)

    def _delete_spans(self, connection: Connection, *condition: Any) -> int:
        key = (HeartbeatSpan.device_id, HeartbeatSpan.length_s, HeartbeatSpan.start_ms)
        spans = list(connection.execute(select(*key).where(*condition).limit(self._config.batch_rows)).mappings())
        _delete_keys(connection, spans)
        self._done["days"] += len(spans)
        return len(spans)

    def _add_spans(self, connection: Connection, parts: list[dict[str, Any]]) -> None:
        """Merge parts into the spans that are there; nobody else changes them meanwhile."""
        found: dict[tuple[Any, ...], list[Any]] = {}
        for part in parts:
            found.setdefault(tuple(part[name] for name in _SPAN_KEY), []).append(part)
        table: Any = HeartbeatSpan.__table__
        for device, length_s, start_ms in found:
            known = connection.execute(
                select(table).where(
                    HeartbeatSpan.device_id == device,
                    HeartbeatSpan.length_s == length_s,
                    HeartbeatSpan.start_ms == start_ms,
                )
            ).mappings()
            found[device, length_s, start_ms] += list(known)
        rows = [merge(same) for _, same in sorted(found.items())]
        if rows:
            statement = insert_or(connection, HeartbeatSpan)
            changed = {name: statement.excluded[name] for name in rows[0] if name not in _SPAN_KEY}
            connection.execute(statement.on_conflict_do_update(index_elements=list(_SPAN_KEY), set_=changed), rows)

    def _events(self, kind: EventKind, now_ms: int) -> _Step:
        """Walk through the events of one kind from the oldest on; those that a contract keeps are passed by once."""
        usual_days = self._config.alert_days if kind is EventKind.ALERT else self._config.event_days
        contracts: dict[str, int] | None = None
        place = (-1, -1)

        def step(connection: Connection) -> int:
            nonlocal contracts, place
            if contracts is None:
                contracts = _contracts(connection) if kind is EventKind.ALERT else {}
            shortest = min([usual_days, *contracts.values()])
            after = or_(Event.occurred_ms > place[0], and_(Event.occurred_ms == place[0], Event.id > place[1]))
            rows = connection.execute(
                select(Event.id, Event.device_id, Event.occurred_ms)
                .where(Event.kind == int(kind), after, Event.occurred_ms < cutoff_ms(now_ms, shortest))
                .order_by(Event.occurred_ms, Event.id)
                .limit(self._config.batch_rows)
                .with_for_update(skip_locked=True)
            ).all()
            old = [
                row.id for row in rows if row.occurred_ms < cutoff_ms(now_ms, contracts.get(row.device_id, usual_days))
            ]
            self._delete(connection, Event, old)
            self._done["alerts" if kind is EventKind.ALERT else "events"] += len(old)
            if rows:
                place = (rows[-1].occurred_ms, rows[-1].id)
            return len(rows)

        return step

    def _by_age(self, name: str, table: Any, at_ms: Any, before_ms: int) -> _Step:
        """Walk through a table from its oldest row on, as far as there are old ones; rows come nearly in order."""
        place = -1

        def step(connection: Connection) -> int:
            nonlocal place
            rows = connection.execute(
                select(table.id, at_ms.label("at_ms"))
                .where(table.id > place)
                .order_by(table.id)
                .limit(self._config.batch_rows)
                .with_for_update(skip_locked=True)
            ).all()
            old = [row.id for row in rows if row.at_ms < before_ms]
            self._delete(connection, table, old)
            self._done[name] += len(old)
            if rows:
                place = rows[-1].id
            return len(old)

        return step

    def _old_diagnostics(self, connection: Connection, before_ms: int) -> int:
        table = Diagnostics
        old = list(
            connection.scalars(
                select(table.device_id)
                .where(table.received_ms < before_ms)
                .limit(self._config.batch_rows)
                .with_for_update(skip_locked=True)
            )
        )
        if old:
            connection.execute(delete(table).where(table.device_id.in_(old)))
        self._done["diagnostics"] += len(old)
        return len(old)

    @staticmethod
    def _delete(connection: Connection, table: Any, ids: list[int]) -> None:
        if ids:
            connection.execute(delete(table).where(table.id.in_(ids)))


def _delete_keys(connection: Connection, spans: list[Any]) -> None:
    by_start: dict[tuple[int, int], list[str]] = {}
    for span in spans:
        by_start.setdefault((span["length_s"], span["start_ms"]), []).append(span["device_id"])
    for (length_s, start_ms), devices in by_start.items():
        connection.execute(
            delete(HeartbeatSpan).where(
                HeartbeatSpan.length_s == length_s,
                HeartbeatSpan.start_ms == start_ms,
                HeartbeatSpan.device_id.in_(devices),
            )
        )


def _contracts(connection: Connection) -> dict[str, int]:
    """Return for how many days alerts of a box are kept, where a contract says so."""
    rows = connection.execute(
        select(Assignment.device, Customer.alert_days)
        .join(Customer, Customer.id == Assignment.customer_id)
        .where(Customer.alert_days.is_not(None))
    )
    return {row.device: row.alert_days for row in rows}
