"""How long what boxes said is kept. Rules only: no clock, no database.

Heartbeats are kept one by one for a week, then as one span for each hour, then for each day. Days are Japan's, as in
everything that people read. Alerts are kept as the contract with the customer says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from omamori_protocol.vocabulary import EngineState

HOUR_S, DAY_S = 3_600, 86_400
DAY_MS = DAY_S * 1000
_JAPAN_MS = 9 * HOUR_S * 1000
MAX_DAYS = 36_500


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """For how many days things are kept, and how the job goes about it."""

    heartbeat_days: int = 7  # one by one
    hourly_days: int = 90  # one span for each hour
    daily_days: int = 1_100  # one span for each day: three years
    alert_days: int = 365  # unless the customer's contract says something else
    event_days: int = 365  # of feeds, firmware and the boxes themselves
    ledger_days: int = 365  # the sums are kept for ever
    refusal_days: int = 90
    diagnostics_days: int = 30
    every_s: int = 3_600  # between two runs of the job
    batch_rows: int = 2_000  # rows of one transaction, which ingest may have to wait for


def span_start_ms(at_ms: int, length_s: int) -> int:
    """Return when the span of `length_s` begins that a moment is in; both in ms since 1970."""
    length_ms = length_s * 1000
    return (at_ms + _JAPAN_MS) // length_ms * length_ms - _JAPAN_MS


def cutoff_ms(now_ms: int, days: int, length_s: int = 1) -> int:
    """Return the moment before which things are too old, at the beginning of a span: none is ever cut in two."""
    return span_start_ms(now_ms - days * DAY_MS, length_s)


def span_of(beat: Mapping[str, Any], length_s: int) -> dict[str, Any]:
    """Return the span that holds one heartbeat (a row of the store)."""
    same = ("device_id", "boot", "seq", "uptime_s", "firmware", "feed_serial", "uninspected_s")
    packets = ("inspected_packets", "bypassed_packets", "blocked_packets")
    return {name: beat[name] for name in same + packets} | {
        "length_s": length_s,
        "start_ms": span_start_ms(beat["received_ms"], length_s),
        "beats": 1,
        "inspecting": int(beat["engine"] == EngineState.INSPECTING),
        "busy_sum": beat["busy_permille"],
        "busy_max": beat["busy_permille"],
        "agent_rss_kib_max": beat["agent_rss_kib"],
        "memory_available_kib_min": beat["memory_available_kib"],
        "spool_depth_max": beat["spool_depth"],
        "celsius_max": beat["celsius"],
        "millivolts_min": beat["millivolts"],
    }


def longer(span: Mapping[str, Any], length_s: int) -> dict[str, Any]:
    """Return a span as a part of a longer one."""
    return {**span, "length_s": length_s, "start_ms": span_start_ms(span["start_ms"], length_s)}


def merge(spans: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one span for several of the same box, length and beginning, in whatever order."""
    result: dict[str, Any] = {}
    for span in spans:
        if not result:
            result = dict(span)
            continue
        newer = span if (span["boot"], span["seq"]) > (result["boot"], result["seq"]) else result
        sums = {name: result[name] + span[name] for name in ("beats", "inspecting", "busy_sum")}
        most = {name: max(result[name], span[name]) for name in ("busy_max", "agent_rss_kib_max", "spool_depth_max")}
        least = min(result["memory_available_kib_min"], span["memory_available_kib_min"])
        extremes = {
            name: choose((one[name] for one in (result, span) if one[name] is not None), default=None)
            for name, choose in (("celsius_max", max), ("millivolts_min", min))
        }
        result = {**newer, **sums, **most, **extremes, "memory_available_kib_min": least}
    return result
