"""Reads what the boxes said and did around the moment they took a feed, in a handful of questions for any fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Subquery, case, func, select

from omamori_cloud.feed_trial import TrialFacts
from omamori_ota.rollout import Vitals
from omamori_protocol.vocabulary import EventKind, FeedState, UninspectedReason

from .schema import Device, Event, Heartbeat, LedgerEntry

MAX_BOXES = 200_000
WINDOW_S = 3600  # before and after the change that are compared
_STATES = (FeedState.ACTIVE, FeedState.REFUSED, FeedState.ROLLED_BACK)
_STOPS = (UninspectedReason.ENGINE_DOWN, UninspectedReason.ENGINE_HUNG)


Rows = Callable[[Any], Sequence[Mapping[str, Any]]]


def read_trial(rows: Rows, serial: int, now_ms: int) -> list[TrialFacts]:
    """Return what is known of a feed on every box (at most `MAX_BOXES`, by device id).

    Args:
        rows: Asks the database.
        serial: The feed.
        now_ms: The present, Unix time in milliseconds.
    """
    devices = rows(select(Device.id, Device.first_seen_ms, Device.last_contact_ms).order_by(Device.id).limit(MAX_BOXES))
    verdicts = {row["device_id"]: row for row in rows(_verdicts(serial))}
    taken = _taken(serial)
    around = [
        {row["device_id"]: row for row in rows(question)}
        for question in (_alerts(taken), _ledger(taken), _heartbeats(taken))
    ]
    return [
        _facts(device, verdicts.get(device["id"]), [found.get(device["id"], {}) for found in around], now_ms)
        for device in devices
    ]


def _facts(
    device: Mapping[str, Any], verdict: Mapping[str, Any] | None, around: Sequence[Mapping[str, Any]], now_ms: int
) -> TrialFacts:
    if verdict is None:
        return TrialFacts(device=device["id"], last_contact_ms=device["last_contact_ms"])
    at_ms = verdict["occurred_ms"]
    before_s = max(0, min(WINDOW_S * 1000, at_ms - device["first_seen_ms"])) / 1000
    after_s = max(0, min(WINDOW_S * 1000, now_ms - at_ms)) / 1000
    return TrialFacts(
        device=device["id"],
        last_contact_ms=device["last_contact_ms"],
        verdict=FeedState(verdict["feed_state"]),
        reason=verdict["text"],
        before=_vitals(around, "before", before_s),
        after=_vitals(around, "after", after_s),
    )


def _about(serial: int) -> list[ColumnElement[bool]]:
    states = [int(state) for state in _STATES]
    return [Event.kind == int(EventKind.FEED), Event.feed_serial == serial, Event.feed_state.in_(states)]


def _verdicts(serial: int) -> Any:
    """Ask for each box's newest word about the feed."""
    newest = select(func.max(Event.id)).where(*_about(serial)).group_by(Event.device_id)
    return select(Event.device_id, Event.occurred_ms, Event.feed_state, Event.text).where(Event.id.in_(newest))


def _taken(serial: int) -> Subquery:
    """Ask when each box took the feed."""
    return (
        select(Event.device_id, func.max(Event.occurred_ms).label("at_ms"))
        .where(*_about(serial), Event.feed_state == int(FeedState.ACTIVE))
        .group_by(Event.device_id)
        .subquery()
    )


def _split(taken: Subquery, moment: Any, value: Any, name: str) -> tuple[Any, Any]:
    """Return two sums of a value: before the feed was taken, and since."""
    is_before = moment < taken.c.at_ms
    return (
        func.sum(case((is_before, value), else_=0)).label(f"{name}_before"),
        func.sum(case((is_before, 0), else_=value)).label(f"{name}_after"),
    )


def _window(taken: Subquery, table: Any, moment: Any) -> list[Any]:
    span_ms = WINDOW_S * 1000
    return [
        table.device_id == taken.c.device_id,
        moment >= taken.c.at_ms - span_ms,
        moment < taken.c.at_ms + span_ms,
    ]


def _alerts(taken: Subquery) -> Any:
    moment = Event.occurred_ms
    return (
        select(taken.c.device_id, *_split(taken, moment, Event.count, "alerts"))
        .where(*_window(taken, Event, moment), Event.kind == int(EventKind.ALERT))
        .group_by(taken.c.device_id)
    )


def _ledger(taken: Subquery) -> Any:
    moment = LedgerEntry.occurred_ms
    stops = case((LedgerEntry.reason.in_([int(reason) for reason in _STOPS]), 1), else_=0)
    lost = case((LedgerEntry.reason == int(UninspectedReason.OVERLOAD), LedgerEntry.packets), else_=0)
    return (
        select(taken.c.device_id, *_split(taken, moment, stops, "stops"), *_split(taken, moment, lost, "lost"))
        .where(*_window(taken, LedgerEntry, moment))
        .group_by(taken.c.device_id)
    )


def _heartbeats(taken: Subquery) -> Any:
    moment = Heartbeat.received_ms
    return (
        select(
            taken.c.device_id,
            *_split(taken, moment, Heartbeat.busy_permille, "busy"),
            *_split(taken, moment, 1, "beats"),
        )
        .where(*_window(taken, Heartbeat, moment))
        .group_by(taken.c.device_id)
    )


def _vitals(rows: Sequence[Mapping[str, Any]], when: str, seconds: float) -> Vitals:
    alerts, ledger, beats = rows
    count = int(beats.get(f"beats_{when}") or 0)
    busy = int(beats.get(f"busy_{when}") or 0)
    return Vitals(
        seconds=seconds,
        engine_restarts=int(ledger.get(f"stops_{when}") or 0),
        busy_share=busy / count / 1000 if count else 0.0,
        uninspected_packets=int(ledger.get(f"lost_{when}") or 0),
        alerts=int(alerts.get(f"alerts_{when}") or 0),
    )
