"""Puts the overview together: one snapshot of the store, one language, one present."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from omamori_cloud.clock import JAPAN, to_datetime
from omamori_cloud.facts import AlertTotals
from omamori_cloud.health import Level
from omamori_cloud.store.reader import Reader
from omamori_cloud.wording import Wording

from .alert_view import (
    AlertView,
    HappeningView,
    RefusalView,
    view_alert,
    view_happening,
    view_refusal,
)
from .box_view import BoxView, view_box
from .filters import Filters
from .ledger_view import box_url
from .outage_view import MAX_SERVICE_OUTAGES, ServiceView, WorkerView, view_service, view_workers

MAX_CARDS = 60
MAX_HAPPENINGS = 12
MAX_REFUSALS = 30
_DAY_MS = 86_400_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
    """The status at the top; `level` is ``ok``, ``notice``, ``danger`` or ``empty``."""

    level: str
    title: str
    text: str
    lines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything the page shows."""

    headline: Headline
    urgent: str
    as_of: str
    totals: AlertTotals
    boxes: tuple[BoxView, ...]
    more_boxes: str
    choices: tuple[tuple[str, str], ...]  # device and name, for the filter
    alerts: tuple[AlertView, ...]
    next: str
    terminals: tuple[str, ...]
    happenings: tuple[HappeningView, ...]
    refusals: tuple[RefusalView, ...]
    refused: str
    service: tuple[ServiceView, ...]
    workers: tuple[WorkerView, ...]


def headline(boxes: tuple[BoxView, ...], *, ingest_trouble: bool, words: Wording) -> Headline:
    """Return the status for all `boxes`; it never claims more than is known."""
    text = words.headline
    if not boxes:
        if ingest_trouble:
            return Headline(level="notice", title=text.ingest_trouble, text=text.ingest_trouble_help)
        return Headline(level="empty", title=text.no_boxes, text=text.no_boxes_help)
    troubled = [box for box in boxes if box.level != Level.OK.word]
    lines = tuple(f"{box.name}: {box.findings[0].title}" for box in troubled[:5])
    if ingest_trouble:
        return Headline(level="notice", title=text.ingest_trouble, text=text.ingest_trouble_help, lines=lines)
    if troubled:
        level = Level.DANGER if any(box.level == Level.DANGER.word for box in troubled) else Level.NOTICE
        return Headline(level=level.word, title=text.need_attention(len(troubled)), text="", lines=lines)
    return Headline(level=Level.OK.word, title=text.all_protected, text=text.all_protected_help(len(boxes)))


def make_overview(
    reader: Reader,
    filters: Filters,
    *,
    names: Mapping[str, str],
    now_ms: int,
    offline_after_s: int,
    ingest_trouble: bool,
    words: Wording,
) -> Overview:
    """Read the store and return what the page shows.

    Args:
        reader: The store.
        filters: Which alerts.
        names: What owners call their boxes.
        now_ms: The present.
        offline_after_s: Silence after which a box counts as offline.
        ingest_trouble: Whether messages do not come in now.
        words: The language.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    facts = reader.boxes()
    boxes = tuple(
        view_box(
            box,
            name=names.get(box.device),
            now_ms=now_ms,
            offline_after_s=offline_after_s,
            words=words,
            more_url=box_url(box.device),
        )
        for box in facts
    )
    # Whoever needs attention comes first; of equals, the order of the serial numbers.
    order = {level.word: -level for level in Level}
    cards = sorted(boxes, key=lambda box: order[box.level])
    page = reader.alerts(filters.query())
    totals = reader.alert_totals(now_ms - _DAY_MS)
    return Overview(
        headline=headline(tuple(cards), ingest_trouble=ingest_trouble, words=words),
        urgent=words.headline.urgent(totals.urgent) if totals.urgent else "",
        as_of=words.other.as_of.format(time=f"{to_datetime(now_ms).astimezone(JAPAN):%Y-%m-%d %H:%M}"),
        totals=totals,
        boxes=tuple(cards[:MAX_CARDS]),
        more_boxes=words.box.more(len(cards) - MAX_CARDS) if len(cards) > MAX_CARDS else "",
        choices=tuple((box.device, box.name) for box in boxes),
        alerts=tuple(view_alert(alert, names=names, now_ms=now_ms, words=words) for alert in page.alerts),
        next="" if page.next is None else filters.url("/", before=str(page.next)),
        terminals=reader.terminals(now_ms - 7 * _DAY_MS),
        happenings=tuple(
            view_happening(event, names=names, now_ms=now_ms, words=words)
            for event in reader.happenings(MAX_HAPPENINGS)
        ),
        refusals=tuple(view_refusal(refusal, now_ms=now_ms, words=words) for refusal in reader.refusals(MAX_REFUSALS)),
        refused=words.other.refusals_count(sum(box.refused for box in facts)),
        service=tuple(
            view_service(item, now_ms=now_ms, words=words)
            for item in reader.service_outages(now_ms - 7 * _DAY_MS, MAX_SERVICE_OUTAGES)
        ),
        workers=view_workers(reader.workers(), now_ms=now_ms, words=words),
    )
