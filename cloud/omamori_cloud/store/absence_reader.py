"""Questions about absences, about times in which nothing came in, and about our own workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from omamori_cloud.facts import OutageFacts, ServiceOutageFacts, WorkerFacts
from omamori_cloud.liveness import OutageReason

from .schema import Outage, ServiceOutage, WorkerSign

MAX_OUTAGES = 500
MAX_WORKERS = 200

Rows = Callable[[Any], Sequence[Any]]


def read_outages(
    rows: Rows, *, device: str | None, before: int | None, limit: int, is_open: bool = False
) -> tuple[OutageFacts, ...]:
    """Return absences, the newest first.

    Args:
        rows: Asks the database.
        device: Of one box; None for all.
        before: Only those with smaller numbers; None from the newest on.
        limit: How many at most.
        is_open: Only those that last.
    """
    question = select(Outage.__table__).order_by(Outage.id.desc()).limit(min(limit, MAX_OUTAGES))
    if device is not None:
        question = question.where(Outage.device_id == device)
    if before is not None:
        question = question.where(Outage.id < before)
    if is_open:
        question = question.where(Outage.end_ms.is_(None))
    return tuple(outage(row) for row in rows(question))


def outage(row: Any, prefix: str = "") -> OutageFacts:
    """Return an absence from a row whose columns have this prefix."""
    names = ("id", "start_ms", "known_ms", "end_ms", "noticed_ms")
    return OutageFacts(
        **{name: row[f"{prefix}{name}"] for name in names},
        device=row[f"{prefix}device_id"],
        reason=_reason(row[f"{prefix}reason"]),
        evidence=row[f"{prefix}evidence"] or {},
    )


def _reason(number: int) -> OutageReason:
    try:
        return OutageReason(number)
    except ValueError:  # a newer program wrote it
        return OutageReason.UNKNOWN


def read_service_outages(rows: Rows, *, since_ms: int, limit: int) -> tuple[ServiceOutageFacts, ...]:
    """Return times since some moment in which nothing came in, the newest first."""
    table = ServiceOutage
    found = rows(
        select(table.__table__)
        .where((table.end_ms.is_(None)) | (table.end_ms >= since_ms))
        .order_by(table.id.desc())
        .limit(min(limit, MAX_OUTAGES))
    )
    return tuple(
        ServiceOutageFacts(start_ms=row["start_ms"], end_ms=row["end_ms"], detail=row["detail"]) for row in found
    )


def read_workers(rows: Rows) -> tuple[WorkerFacts, ...]:
    """Return our own workers by name."""
    return tuple(
        WorkerFacts(name=row["name"], at_ms=row["at_ms"], since_ms=row["since_ms"], trouble=row["trouble"])
        for row in rows(select(WorkerSign.__table__).order_by(WorkerSign.name).limit(MAX_WORKERS))
    )
