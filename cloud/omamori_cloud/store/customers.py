"""Customers, their contracts and their boxes; and deletion on request, of a box or of a customer with all boxes.

What is deleted is gone from every table, in small transactions so that ingest is not held up; the last one deletes the
box itself together with a record of how many rows of what went. Accepted reports of false alarms stay, because feeds
depend on them, but no longer say who reported what about which terminal. A box that goes on sending is a new box.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from omamori_cloud.errors import QueryError, StoreUnavailableError
from omamori_cloud.reports import ReportState
from omamori_cloud.retention import MAX_DAYS

from .batch import insert_or
from .queries import is_device_id
from .schema import (
    Assignment,
    Customer,
    Device,
    Diagnostics,
    Erasure,
    Event,
    Firmware,
    Heartbeat,
    HeartbeatSpan,
    LedgerEntry,
    LedgerTotal,
    Outage,
    Refusal,
    Report,
    Return,
    Setting,
    State,
)

MAX_CUSTOMERS = 100_000
_BATCH_ROWS = 2_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_LARGE = (Heartbeat, HeartbeatSpan, Event, LedgerEntry, Return, Outage)
_SMALL = (LedgerTotal, State, Setting, Firmware, Diagnostics)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CustomerFacts:
    """A customer; `alert_days` is None if alerts are kept as long as usual."""

    id: str
    alert_days: int | None
    devices: tuple[str, ...]


class CustomerStore:
    """Reads and changes customers, and deletes what is known of them."""

    def __init__(self, engine: Engine, *, batch_rows: int = _BATCH_ROWS) -> None:
        """Take the database; `batch_rows` is how many rows go in one transaction."""
        self._engine = engine
        self._batch_rows = batch_rows

    def customers(self) -> tuple[CustomerFacts, ...]:
        """Return all customers with their boxes."""
        with self._changing() as connection:
            boxes: dict[str, list[str]] = {}
            for row in connection.execute(
                select(Assignment)
                .order_by(Assignment.device)
                .with_only_columns(Assignment.device, Assignment.customer_id)
            ):
                boxes.setdefault(row.customer_id, []).append(row.device)
            rows = connection.execute(
                select(Customer.id, Customer.alert_days).order_by(Customer.id).limit(MAX_CUSTOMERS)
            ).all()
        return tuple(
            CustomerFacts(id=row.id, alert_days=row.alert_days, devices=tuple(boxes.get(row.id, ()))) for row in rows
        )

    def set_contract(self, customer: str, alert_days: int | None, now_ms: int) -> None:
        """Make a customer, or change for how long alerts are kept.

        Raises:
            QueryError: Not such a name, or not such a number of days.
            StoreUnavailableError: The database does not answer.
        """
        if not _NAME.fullmatch(customer):
            raise QueryError("customer", f"{customer[:40]!r} is not a name", hint="letters, digits, . _ -; at most 32")
        if alert_days is not None and not 1 <= alert_days <= MAX_DAYS:
            raise QueryError("alert-days", f"{alert_days} is outside 1..{MAX_DAYS}")
        with self._changing() as connection:
            connection.execute(
                insert_or(connection, Customer)
                .values(id=customer, created_ms=now_ms, alert_days=alert_days)
                .on_conflict_do_update(index_elements=["id"], set_={"alert_days": alert_days})
            )

    def assign(self, customer: str, device: str) -> None:
        """Say whose a box is, whether or not it was heard of yet.

        Raises:
            QueryError: There is no such customer, or no box can have that name.
            StoreUnavailableError: The database does not answer.
        """
        if not is_device_id(device):
            raise QueryError("device", f"{device[:40]!r} is not a box's name")
        with self._changing() as connection:
            _known(connection, customer)
            connection.execute(
                insert_or(connection, Assignment)
                .values(device=device, customer_id=customer)
                .on_conflict_do_update(index_elements=["device"], set_={"customer_id": customer})
            )

    def forget_device(self, device: str, now_ms: int) -> dict[str, int]:
        """Delete all that is known of a box; returns how many rows of each table went.

        Raises:
            QueryError: Nothing is known of it.
            StoreUnavailableError: The database does not answer; calling again goes on.
        """
        with self._changing() as connection:
            if not any(
                connection.scalar(select(func.count()).where(_of(table, device)))
                for table in (Device, Assignment, Report, Refusal)
            ):
                raise QueryError("device", f"nothing is known of {device[:40]!r}")
        gone: Counter[str] = Counter()
        for table in _LARGE:
            while count := self._delete_some(table, device):
                gone[table.__tablename__] += count
        with self._changing() as connection:
            connection.execute(select(Device.id).where(Device.id == device).with_for_update()).all()
            _forget_rest(connection, device, gone)
            rows = {name: count for name, count in sorted(gone.items()) if count}
            connection.execute(insert(Erasure).values(at_ms=now_ms, subject=f"device {device}", rows=rows))
        return rows

    def forget_customer(self, customer: str, now_ms: int) -> dict[str, int]:
        """Delete a customer and all that is known of the boxes; returns how many rows of each table went.

        Raises:
            QueryError: There is no such customer.
            StoreUnavailableError: The database does not answer; calling again goes on.
        """
        gone: Counter[str] = Counter()
        with self._changing() as connection:
            _known(connection, customer)
            chosen = select(Assignment.device).where(Assignment.customer_id == customer).order_by(Assignment.device)
            devices = list(connection.scalars(chosen))
        for device in devices:
            gone.update(self.forget_device(device, now_ms))
        with self._changing() as connection:
            gone["customers"] += _run(connection, delete(Customer).where(Customer.id == customer))
            values = {"at_ms": now_ms, "subject": f"customer {customer}", "rows": dict(gone)}
            connection.execute(insert(Erasure).values(**values))
        return dict(sorted(gone.items()))

    def _delete_some(self, table: Any, device: str) -> int:
        with self._changing() as connection:
            key = [getattr(table, column.name) for column in table.__table__.primary_key]
            chosen = select(*key).where(_of(table, device)).limit(self._batch_rows).with_for_update(skip_locked=True)
            rows = [tuple(row) for row in connection.execute(chosen)]
            if not rows:
                return 0
            wanted = key[0].in_([row[0] for row in rows]) if len(key) == 1 else tuple_(*key).in_(rows)
            return _run(connection, delete(table).where(wanted))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except DBAPIError as err:
            raise StoreUnavailableError(f"database: {str(err.orig)[:200]}") from err


def _known(connection: Connection, customer: str) -> None:
    if connection.execute(select(Customer.id).where(Customer.id == customer)).first() is None:
        raise QueryError(
            "customer", f"there is no {customer[:40]!r}", hint="omamori-cloud retention contract makes one"
        )


def _of(table: Any, device: str) -> Any:
    if table is Device:
        return Device.id == device
    if table is Refusal:  # of a box one too many, the name stands in the text
        nameless = and_(Refusal.device == "", Refusal.detail.startswith(f"{device}:", autoescape=True))
        return or_(Refusal.device == device, nameless)
    return (table.device if table in (Assignment, Report) else table.device_id) == device


def _forget_rest(connection: Connection, device: str, gone: Counter[str]) -> None:
    """Delete what is left, the box included; nobody can add to it: its row is locked."""
    accepted = Report.state == int(ReportState.ACCEPTED)
    gone["reports"] += _run(connection, delete(Report).where(Report.device == device, ~accepted))
    gone["reports made anonymous"] += _run(
        connection,
        update(Report)
        .where(Report.device == device)
        .values(device="", alert_id=None, terminal_ip=None, terminal_mac=None, reporter="", note=""),
    )
    for table in (*_LARGE, *_SMALL, Refusal, Assignment, Device):
        gone[table.__tablename__] += _run(connection, delete(table).where(_of(table, device)))


def _run(connection: Connection, statement: Any) -> int:
    return int(connection.execute(statement).rowcount)
