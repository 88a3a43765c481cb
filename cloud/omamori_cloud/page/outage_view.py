"""Makes absences of boxes, our own outages and our workers ready to be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from omamori_cloud.facts import OutageFacts, ServiceOutageFacts, WorkerFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.liveness import OutageReason
from omamori_cloud.wording import Wording
from omamori_protocol.vocabulary import PowerKind

from .alert_view import TimeView, view_time
from .supervisor_view import power_name

MAX_OUTAGES = 20
MAX_SERVICE_OUTAGES = 10
SILENT_MS = 30_000
_QUIET = frozenset({OutageReason.MAINTENANCE, OutageReason.SERVICE, OutageReason.UNKNOWN, OutageReason.PROGRAM})


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutageView:
    """One absence; `tone` as for figures, `evidence` are sentences."""

    id: int
    start: TimeView
    length: str
    name: str
    meaning: str
    tone: str
    told: str
    evidence: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceView:
    """One outage of our own."""

    start: TimeView
    length: str
    cause: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerView:
    """One of our programs; `tone` as for figures."""

    name: str
    at: TimeView
    state: str
    tone: str


def view_outage(outage: OutageFacts, *, now_ms: int, words: Wording) -> OutageView:
    """Return an absence in `words`."""
    text = words.liveness
    about = text.outages[outage.reason]
    power = _power(outage)
    known = [(name, value) for name, value in outage.evidence.items() if name in text.evidence]
    return OutageView(
        id=outage.id,
        start=view_time(outage.start_ms, now_ms, words),
        length=_length(outage.start_ms, outage.end_ms, now_ms, words),
        name=about.name if power is None else power_name(*power, words),
        meaning=about.meaning if power is None else words.supervisor.powers[power[0]].meaning,
        tone="notice" if outage.reason not in _QUIET else "",
        told=text.told if outage.noticed_ms is not None else "",
        evidence=tuple(text.evidence[name].format(value=harmless(str(value), limit=40)) for name, value in known),
    )


def view_service(outage: ServiceOutageFacts, *, now_ms: int, words: Wording) -> ServiceView:
    """Return an outage of our own in `words`."""
    return ServiceView(
        start=view_time(outage.start_ms, now_ms, words),
        length=_length(outage.start_ms, outage.end_ms, now_ms, words),
        cause=harmless(outage.detail, limit=120) or words.liveness.service_stopped,
    )


def view_workers(workers: Sequence[WorkerFacts], *, now_ms: int, words: Wording) -> tuple[WorkerView, ...]:
    """Return those of our programs that take messages in, in `words`; `liveness` itself is not one."""
    found = []
    for worker in workers:
        if not worker.name.startswith("ingest"):
            continue
        is_silent = now_ms - worker.at_ms > SILENT_MS
        state = words.liveness.worker_silent if is_silent else harmless(worker.trouble, limit=120)
        found.append(
            WorkerView(
                name=harmless(worker.name, limit=64),
                at=view_time(worker.at_ms, now_ms, words),
                state=state or words.liveness.worker_fine,
                tone="danger" if is_silent or worker.trouble else "ok",
            )
        )
    return tuple(found)


def _power(outage: OutageFacts) -> tuple[PowerKind, int] | None:
    """Return what a supervisor saw, if the power was the reason; without one nobody knows more than that."""
    word, length_ms = outage.evidence.get("power"), outage.evidence.get("power_ms", 0)
    if outage.reason is not OutageReason.POWER or not isinstance(word, str) or not isinstance(length_ms, int):
        return None
    kind = next((kind for kind in PowerKind if kind.word == word), None)
    return None if kind is None else (kind, length_ms)


def _length(start_ms: int, end_ms: int | None, now_ms: int, words: Wording) -> str:
    seconds = max(0, (now_ms if end_ms is None else end_ms) - start_ms) // 1000
    span = words.times.span(seconds if seconds < 60 else seconds // 60 * 60)
    return words.liveness.lasts.format(span=span) if end_ms is None else span
