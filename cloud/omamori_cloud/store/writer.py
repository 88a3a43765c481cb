"""The only place that changes rows of what boxes say, but for deletion (`sweeper`, `forget`).

It stores batches of what ingest took in, and keeps every table within its bound.

* A batch is one transaction. When `store` returns, it is on disk, and its messages may be acknowledged.
* Storing something twice is harmless: see `batch`.
* Any number of writers work at a time, in one process or in several: the rows of the boxes in a batch are locked, in
  one order, before anything of them is read or changed.
* A row that the database refuses for what it holds becomes a refusal; the rest of its batch is stored.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from omamori_cloud.config import Limits
from omamori_cloud.errors import StoreUnavailableError
from omamori_cloud.intake import MAX_DETAIL, Message, Refusal, RefusalReason

from . import schema
from .batch import DEVICE_COLUMNS, Batch, StoreReport, insert_or

_TRIM_EVERY = 256  # rows of one device that may pile up beyond the bound before they are trimmed


class _ForgottenDeviceError(Exception):
    """A device that was known was deleted meanwhile."""


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
        except (DBAPIError, PoolTimeoutError) as err:
            self._devices = None
            raise StoreUnavailableError(f"database: {str(getattr(err, 'orig', err))[:200]}") from err
        except (StatementError, OverflowError, UnicodeError) as err:
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

    def _store_all(self, items: Sequence[Message | Refusal]) -> StoreReport:
        try:
            return self._store_once(items)
        except _ForgottenDeviceError:
            self._devices = None
            return self._store_once(items)  # all of them are looked up again, and made if need be

    def _store_once(self, items: Sequence[Message | Refusal]) -> StoreReport:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            devices = self._known_devices(connection)
            items = self._admit(connection, items, devices)
            batch = Batch()
            for item in items:
                batch.add(item)
            report = batch.store(connection, _lock(connection, {item.device for item in items if item.device}))
            self._trim(connection, batch.inserted)
        self._devices = devices
        return report

    def _known_devices(self, connection: Connection) -> set[str]:
        if self._devices is None:
            self._devices = set(connection.scalars(select(schema.Device.id)))
        return set(self._devices)

    def _admit(
        self, connection: Connection, items: Sequence[Message | Refusal], devices: set[str]
    ) -> list[Message | Refusal]:
        """Make the devices that are new; what comes from one too many becomes a refusal."""
        first_seen: dict[str, int] = {}
        admitted: list[Message | Refusal] = []
        for item in items:
            if item.device and item.device not in devices:
                if len(devices) >= self._limits.devices:
                    admitted.append(_too_many(item, len(devices)))
                    continue
                devices.add(item.device)
                first_seen[item.device] = item.received_ms
            admitted.append(item)
        rows = [{"id": device, "first_seen_ms": at_ms, "refused": 0} for device, at_ms in sorted(first_seen.items())]
        if rows:  # another worker may make the same ones at this moment
            connection.execute(insert_or(connection, schema.Device).on_conflict_do_nothing(index_elements=["id"]), rows)
        return admitted

    def _trim(self, connection: Connection, inserted: Counter[tuple[str, str]]) -> None:
        bounds: dict[str, tuple[Any, Any, int]] = {
            "heartbeats": (schema.Heartbeat, schema.Heartbeat.device_id, self._limits.heartbeats_per_device),
            "events": (schema.Event, schema.Event.device_id, self._limits.events_per_device),
            "ledger": (schema.LedgerEntry, schema.LedgerEntry.device_id, self._limits.ledger_entries_per_device),
            "refusals": (schema.Refusal, schema.Refusal.device, self._limits.refusals_per_device),
            "returns": (schema.Return, schema.Return.device_id, self._limits.outages_per_device),
        }
        for key, count in sorted(inserted.items()):
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


def _too_many(item: Message | Refusal, known: int) -> Refusal:
    detail = f"{item.device}: {known} devices are known, which is the bound"
    return Refusal(device="", reason=RefusalReason.TOO_MANY_DEVICES, detail=detail, received_ms=item.received_ms)


def _lock(connection: Connection, wanted: set[str]) -> dict[str, Any]:
    """Lock the rows of devices until the transaction ends, and return them; SQLite has locked everything already."""
    table = schema.Device
    columns = (table.id, *(getattr(table, name) for name in DEVICE_COLUMNS))
    rows = connection.execute(
        select(*columns).where(table.id.in_(sorted(wanted))).order_by(table.id).with_for_update(key_share=True)
    )
    found = {row.id: row for row in rows}
    if len(found) != len(wanted):
        raise _ForgottenDeviceError
    return found


def _sum(reports: Iterable[StoreReport]) -> StoreReport:
    totals: Counter[str] = Counter()
    for report in reports:
        totals.update(dataclasses.asdict(report))
    return StoreReport(**totals)
