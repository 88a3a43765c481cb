"""Reads and changes customers' reports of false alarms. The only place that touches their table.

* Numbers of reports are never used twice: they stand in feeds and in what customers are told.
* Open reports are bounded, refused ones are forgotten from the oldest on; accepted ones stay, because the feed needs
  them, and are bounded where they are accepted.
* The file for the feed compiler is written inside a transaction that changes nothing and that only one process can
  have at a time, so an older list never replaces a newer one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from omamori_cloud.errors import ReportError, StoreUnavailableError
from omamori_cloud.reports import Decision, NewReport, ReportFacts, ReportState
from omamori_protocol.accepted_reports import AcceptedReport, render_reports
from omamori_protocol.durable import write_atomic
from omamori_protocol.feed_book import Kind

from .schema import Report

MAX_OPEN = 1_000
MAX_REFUSED = 5_000
MAX_ACCEPTED = 20_000
MAX_PAGE = 100
_MAX_TIMES = 1_000_000


class ReportStore:
    """The reports; safe to use from several threads.

    Args:
        engine: The database.
        allow_file: File that the feed compiler reads accepted reports from; None: they are only exported.
    """

    def __init__(self, engine: Engine, *, allow_file: Path | None = None) -> None:
        self._engine = engine
        self._allow_file = allow_file
        self._handing_over = threading.Lock()

    def file(self, report: NewReport, now_ms: int) -> int:
        """Keep a report; return its number. One that is open already is counted once more instead.

        Raises:
            ReportError: Too many are open.
            StoreUnavailableError: The database does not answer.
        """
        with self._changing() as connection:
            same = connection.execute(
                select(Report.id, Report.times).where(
                    Report.state == int(ReportState.OPEN),
                    Report.kind == report.kind.value,
                    Report.indicator == report.indicator,
                    Report.device == report.device,
                )
            ).first()
            if same is not None:
                times = min(same.times + 1, _MAX_TIMES)
                connection.execute(update(Report).where(Report.id == same.id).values(times=times))
                return int(same.id)
            if _count(connection, ReportState.OPEN) >= MAX_OPEN:
                raise ReportError(f"{MAX_OPEN} reports are open", hint="decide on some of them first")
            made = connection.execute(
                insert(Report).values(
                    created_ms=now_ms,
                    kind=report.kind.value,
                    indicator=report.indicator,
                    note=report.note,
                    reporter=report.reporter,
                    times=1,
                    device=report.device,
                    alert_id=report.alert_id,
                    terminal_ip=report.terminal_ip,
                    terminal_mac=report.terminal_mac,
                    state=int(ReportState.OPEN),
                    decided_by="",
                    reason="",
                )
            )
            key: Any = made.inserted_primary_key
            return int(key[0])

    def decide(self, number: int, decision: Decision, now_ms: int) -> None:
        """Accept or refuse a report, whatever was decided before, and tell the feed compiler.

        Raises:
            ReportError: There is no such report, or too many are accepted.
            StoreUnavailableError: The database does not answer.
            OSError: The decision is kept, but the file for the compiler could not be written.
        """
        with self._changing() as connection:
            state = connection.execute(select(Report.state).where(Report.id == number)).scalar()
            if state is None:
                raise ReportError(f"there is no report {number}")
            is_new = decision.state is ReportState.ACCEPTED and state != int(ReportState.ACCEPTED)
            if is_new and _count(connection, ReportState.ACCEPTED) >= MAX_ACCEPTED:
                raise ReportError(f"{MAX_ACCEPTED} reports are accepted", hint="put some into own/allow.txt for good")
            connection.execute(
                update(Report)
                .where(Report.id == number)
                .values(
                    state=int(decision.state),
                    decided_ms=now_ms,
                    decided_by=decision.by,
                    reason=decision.reason,
                    accepted_kind=None if decision.kind is None else decision.kind.value,
                    accepted_indicator=decision.indicator,
                )
            )
            _forget(connection)
        self.hand_over()

    def hand_over(self) -> None:
        """Write the file for the feed compiler, if one is configured.

        Raises:
            StoreUnavailableError: The database does not answer.
            OSError: The file could not be written; the one before is untouched.
        """
        if self._allow_file is not None:
            self.export(self._allow_file)

    def export(self, path: Path) -> int:
        """Write all accepted reports to a file; return how many.

        Raises:
            StoreUnavailableError: The database does not answer.
            OSError: The file could not be written; the one before is untouched.
        """
        with self._handing_over, self._changing() as connection:
            accepted = [
                AcceptedReport(number=row.id, kind=Kind(row.accepted_kind), indicator=row.accepted_indicator)
                for row in connection.execute(
                    select(Report.id, Report.accepted_kind, Report.accepted_indicator)
                    .where(Report.state == int(ReportState.ACCEPTED), Report.accepted_indicator.is_not(None))
                    .order_by(Report.id)
                    .limit(MAX_ACCEPTED)
                )
            ]
            data = render_reports(accepted)
            if not path.is_file() or path.read_bytes() != data:  # an untouched file costs no flash and no new copy
                write_atomic(path, data)
        return len(accepted)

    def report(self, number: int) -> ReportFacts | None:
        """Return a report, or None."""
        found = self._read(select(Report.__table__).where(Report.id == number))
        return found[0] if found else None

    def reports(
        self, state: ReportState | None = None, *, before: int | None = None, limit: int = 50
    ) -> tuple[ReportFacts, ...]:
        """Return reports, the newest first.

        Args:
            state: Only these; None means all.
            before: Only those with a smaller number.
            limit: At most so many, up to `MAX_PAGE`.
        """
        conditions: list[Any] = []
        if state is not None:
            conditions.append(Report.state == int(state))
        if before is not None:
            conditions.append(Report.id < before)
        limit = max(1, min(limit, MAX_PAGE))
        return self._read(select(Report.__table__).where(*conditions).order_by(Report.id.desc()).limit(limit))

    def counts(self) -> dict[ReportState, int]:
        """Return how many reports there are in each state."""
        with self._asking() as connection:
            rows = connection.execute(select(Report.state, func.count()).group_by(Report.state)).all()
        found = {int(state): int(count) for state, count in rows}
        return {state: found.get(int(state), 0) for state in ReportState}

    def _read(self, statement: Any) -> tuple[ReportFacts, ...]:
        with self._asking() as connection:
            return tuple(_facts(dict(row)) for row in connection.execute(statement).mappings().all())

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except (DBAPIError, PoolTimeoutError) as err:
            raise StoreUnavailableError(f"database: {str(err)[:200]}") from err

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except (DBAPIError, PoolTimeoutError) as err:
            raise StoreUnavailableError(f"database: {str(err)[:200]}") from err


def _count(connection: Connection, state: ReportState) -> int:
    found = connection.execute(select(func.count()).select_from(Report).where(Report.state == int(state))).scalar()
    return int(found or 0)


def _forget(connection: Connection) -> None:
    beyond = (
        select(Report.id)
        .where(Report.state == int(ReportState.REFUSED))
        .order_by(Report.id.desc())
        .limit(1)
        .offset(MAX_REFUSED)
    ).scalar_subquery()
    connection.execute(delete(Report).where(Report.state == int(ReportState.REFUSED), Report.id <= beyond))


def _facts(row: dict[str, Any]) -> ReportFacts:
    row["number"] = row.pop("id")
    row["kind"] = Kind(row["kind"])
    row["state"] = ReportState(row["state"])
    row["accepted_kind"] = None if row["accepted_kind"] is None else Kind(row["accepted_kind"])
    return ReportFacts(**row)
