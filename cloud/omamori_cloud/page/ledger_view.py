"""Makes a box's uninspected ledger and the state of its settings ready to be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from urllib.parse import urlencode

from omamori_cloud.clock import JAPAN, to_datetime
from omamori_cloud.facts import BoxFacts, LedgerFacts, LedgerSum, SettingsFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.health import bypassed_until_ms
from omamori_cloud.store.queries import Cursor, LedgerQuery
from omamori_cloud.store.reader import Reader
from omamori_cloud.wording import Wording
from omamori_protocol.reported import PartName, PartState

from .alert_view import TimeView, view_time
from .box_view import BoxView, view_box
from .firmware_view import FirmwareView, view_firmware
from .outage_view import MAX_OUTAGES, OutageView, view_outage
from .supervisor_view import SupervisorView, view_supervisor

PAGE_SIZE = 50
_DAY_MS = 86_400_000
_TONES = {PartState.APPLIED: "ok", PartState.REFUSED: "danger", PartState.PENDING: "notice"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SumView:
    """What passed for one reason in one period."""

    name: str
    meaning: str
    seconds: str
    packets: str
    size: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeriodView:
    """The sums of one period; none if nothing passed."""

    title: str
    sums: tuple[SumView, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EntryView:
    """One line of the ledger."""

    id: int
    time: TimeView
    name: str
    seconds: str
    packets: str
    size: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartView:
    """One part of the settings; `tone` as for figures, `reason` is the box's own explanation or empty."""

    name: str
    state: str
    tone: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SettingsView:
    """The state of the settings; texts are empty where there is nothing to say."""

    version: str
    reported: TimeView
    parts: tuple[PartView, ...]
    refused: str
    refused_version: str
    command: PartView | None
    bypass: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxPage:
    """Everything the page of one box shows; `newest` is empty on the first page of the ledger."""

    box: BoxView
    settings: SettingsView | None
    firmware: FirmwareView | None
    supervisor: SupervisorView | None
    outages: tuple[OutageView, ...]
    periods: tuple[PeriodView, ...]
    entries: tuple[EntryView, ...]
    next: str
    newest: str


def make_box_page(
    reader: Reader,
    facts: BoxFacts,
    before: Cursor | None,
    *,
    name: str | None,
    now_ms: int,
    offline_after_s: int,
    words: Wording,
) -> BoxPage:
    """Read the rest about a box and return what its page shows.

    Args:
        reader: The store.
        facts: What the box last said.
        before: Where the ledger's page begins; None: at the newest.
        name: What its owner calls it, if anything.
        now_ms: The present.
        offline_after_s: Silence after which it counts as offline.
        words: The language.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    page = reader.ledger(LedgerQuery(device=facts.device, before=before, limit=PAGE_SIZE))
    spans = ((words.ledger.day, _DAY_MS), (words.ledger.month, 30 * _DAY_MS))
    return BoxPage(
        box=view_box(facts, name=name, now_ms=now_ms, offline_after_s=offline_after_s, words=words),
        settings=None if facts.settings is None else view_settings(facts.settings, now_ms=now_ms, words=words),
        firmware=None if facts.update is None else view_firmware(facts.update, now_ms=now_ms, words=words),
        supervisor=view_supervisor(facts, words=words),
        outages=tuple(
            view_outage(item, now_ms=now_ms, words=words) for item in reader.outages(facts.device, limit=MAX_OUTAGES)
        ),
        periods=tuple(
            PeriodView(title=title, sums=view_sums(reader.ledger_sums(facts.device, now_ms - span_ms), words))
            for title, span_ms in spans
        ),
        entries=tuple(view_entry(entry, now_ms=now_ms, words=words) for entry in page.entries),
        next="" if page.next is None else box_url(facts.device, before=str(page.next)),
        newest="" if before is None else box_url(facts.device),
    )


def box_url(device: str, *, before: str = "", live: bool = False) -> str:
    """Return the address of a box's page, or of the part of it that changes."""
    path = f"/box/{device}/live" if live else f"/box/{device}"
    return f"{path}?{urlencode({'before': before})}" if before else path


def view_sums(sums: Sequence[LedgerSum], words: Wording) -> tuple[SumView, ...]:
    """Return the sums of one period, the largest in bytes first."""
    return tuple(
        SumView(
            name=words.uninspected[entry.reason].name,
            meaning=words.uninspected[entry.reason].meaning,
            seconds=words.times.span(entry.seconds),
            packets=f"{entry.packets:,}",
            size=_size(entry.size_bytes, words),
        )
        for entry in sorted(sums, key=lambda entry: -entry.size_bytes)
    )


def view_entry(entry: LedgerFacts, *, now_ms: int, words: Wording) -> EntryView:
    """Return `entry` in `words`."""
    return EntryView(
        id=entry.id,
        time=view_time(entry.occurred_ms, now_ms, words),
        name=words.uninspected[entry.reason].name,
        seconds=words.times.span(entry.seconds),
        packets=f"{entry.packets:,}",
        size=_size(entry.size_bytes, words),
    )


def view_settings(settings: SettingsFacts, *, now_ms: int, words: Wording) -> SettingsView:
    """Return the state of the settings in `words`."""
    text = words.settings
    until_ms = bypassed_until_ms(settings, now_ms)
    order = {part: place for place, part in enumerate(PartName)}
    command = None
    if settings.command_id is not None and settings.command_state is not None:
        command = _part(text.command, settings.command_state, settings.command_reason, words)
    return SettingsView(
        version=text.version.format(version=settings.version) if settings.version else text.no_version,
        reported=view_time(settings.at_s * 1000, now_ms, words),
        parts=tuple(
            _part(words.parts[part.part], part.state, part.reason, words)
            for part in sorted(settings.parts, key=lambda part: order[part.part])
        ),
        refused="" if settings.refused_reason is None else harmless(settings.refused_reason, limit=200),
        refused_version=(
            ""
            if settings.refused_reason is None or settings.refused_version is None
            else text.refused_version.format(version=settings.refused_version)
        ),
        command=command,
        bypass="" if until_ms is None else text.bypass.format(time=_clock(until_ms, now_ms, words)),
    )


def _part(name: str, state: PartState, reason: str | None, words: Wording) -> PartView:
    return PartView(
        name=name,
        state=words.part_states[state],
        tone=_TONES.get(state, ""),
        reason=harmless(reason or "", limit=200),
    )


def _clock(at_ms: int, now_ms: int, words: Wording) -> str:
    return words.times.moment(to_datetime(at_ms).astimezone(JAPAN), to_datetime(now_ms).astimezone(JAPAN))


def _size(size_bytes: int, words: Wording) -> str:
    sizes = words.ledger.sizes
    if size_bytes < 1000:
        return sizes[0].format(number=size_bytes)
    value, unit = size_bytes / 1000, 1
    while value >= 999.95 and unit < len(sizes) - 1:
        value, unit = value / 1000, unit + 1
    return sizes[unit].format(number=f"{value:,.1f}")
