"""Makes what a box told of its supervisor, and of its power, ready to be read."""

from __future__ import annotations

import dataclasses

from omamori_cloud.facts import BoxFacts, SupervisorFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.wording import Wording
from omamori_protocol.trouble import HOT_CELSIUS, LOW_MILLIVOLTS
from omamori_protocol.vocabulary import PowerKind

from .box_view import FigureView

FRESH_MS = 300_000  # a figure that is older than this beside the box's last word says nothing of now


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisorView:
    """The supervisor; `silent` is empty while it answers."""

    silent: str
    figures: tuple[FigureView, ...]


def view_supervisor(box: BoxFacts, *, words: Wording) -> SupervisorView | None:
    """Return what `box` told of its supervisor in `words`; None if it has none."""
    told = box.supervisor
    if told is None:
        return None
    text = words.supervisor
    return SupervisorView(
        silent="" if told.answers else text.silent,
        figures=(
            _temperature(told, box.last_contact_ms, words),
            _rail(told, box.last_contact_ms, words),
            _wire(told, words),
            FigureView(
                label=text.past_time,
                value=words.box.unknown if told.past_s is None else words.times.span(told.past_s),
                note="" if told.past_s is None else text.since_start,
            ),
            FigureView(label=text.moves, value=_count(told.moves, words)),
            FigureView(label=text.resets, value=_count(told.resets, words), tone="notice" if told.resets else ""),
            FigureView(label=text.power, value=_last_power(told, words)),
            FigureView(
                label=text.version, value=harmless(told.chip, limit=32) if told.chip is not None else words.box.unknown
            ),
        ),
    )


def power_name(kind: PowerKind, length_ms: int | None, words: Wording) -> str:
    """Return what happened to the power, with its length if that is known."""
    text = words.supervisor
    name = text.powers[kind].name
    if not length_ms:
        return name
    if length_ms < 60_000:
        span = text.seconds.format(number=f"{length_ms / 1000:.1f}" if length_ms < 10_000 else length_ms // 1000)
    else:
        span = words.times.span(length_ms // 1000)
    return text.length.format(name=name, span=span)


def _temperature(told: SupervisorFacts, contact_ms: int | None, words: Wording) -> FigureView:
    text = words.supervisor
    if told.celsius is None or not _is_fresh(told, told.celsius_ms, contact_ms):
        return FigureView(label=text.temperature, value=words.box.unknown)
    is_hot = told.celsius >= HOT_CELSIUS
    return FigureView(
        label=text.temperature,
        value=text.celsius.format(number=told.celsius),
        note=text.hot if is_hot else "",
        tone="danger" if is_hot else "",
    )


def _rail(told: SupervisorFacts, contact_ms: int | None, words: Wording) -> FigureView:
    text = words.supervisor
    if told.millivolts is None or not _is_fresh(told, told.millivolts_ms, contact_ms):
        return FigureView(label=text.rail, value=words.box.unknown)
    is_low = told.millivolts < LOW_MILLIVOLTS
    return FigureView(
        label=text.rail,
        value=text.volts.format(number=f"{told.millivolts / 1000:.2f}"),
        note=text.low if is_low else "",
        tone="danger" if is_low else "",
    )


def _wire(told: SupervisorFacts, words: Wording) -> FigureView:
    text = words.supervisor
    if told.through is None:
        return FigureView(label=text.wire, value=words.box.unknown)
    if told.through:
        return FigureView(label=text.wire, value=text.through, tone="ok" if told.answers else "")
    return FigureView(label=text.wire, value=text.past, note=text.past_meaning, tone="notice")


def _last_power(told: SupervisorFacts, words: Wording) -> str:
    if told.power_kind is None:
        return words.box.unknown
    return power_name(told.power_kind, told.power_ms, words)


def _is_fresh(told: SupervisorFacts, at_ms: int | None, contact_ms: int | None) -> bool:
    return told.answers and at_ms is not None and contact_ms is not None and contact_ms - at_ms <= FRESH_MS


def _count(number: int | None, words: Wording) -> str:
    return words.box.unknown if number is None else words.supervisor.times.format(number=f"{number:,}")
