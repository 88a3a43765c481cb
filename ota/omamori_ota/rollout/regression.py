"""Whether a box is worse off than before a release, by what its heartbeats say.

Absolute limits catch what no release may do; ratios catch a change against the same box's own past. A ratio counts
only above a floor, because twice nearly nothing is nothing.
"""

from __future__ import annotations

import dataclasses
import enum


class Regression(enum.Enum):
    """What became worse."""

    ENGINE_RESTARTS = "the engine restarts"
    PROCESSOR = "the processor works much more"
    UNINSPECTED = "traffic passes without inspection"
    ALERTS = "alerts jumped"


@dataclasses.dataclass(frozen=True)
class Vitals:
    """A box over some time.

    Attributes:
        seconds: How long it was watched.
        engine_restarts: How often the engine started, unasked.
        busy_share: Share of the processors' time in use, 0 to 1.
        uninspected_packets: Packets that passed without inspection although the engine was there.
        alerts: Alerts raised.
    """

    seconds: float
    engine_restarts: int
    busy_share: float
    uninspected_packets: int
    alerts: int


@dataclasses.dataclass(frozen=True)
class Limits:
    """From when on it is worse; every limit must be exceeded, not reached.

    Attributes:
        engine_restarts: Unasked engine starts while watched.
        busy_ratio: Processor use against before; counts from `busy_floor` on.
        busy_floor: Share of the processors' time, 0 to 1.
        uninspected_ratio: Uninspected packets a second against before; counts from `uninspected_floor` on.
        uninspected_floor: Packets a second.
        alert_ratio: Alerts an hour against before; counts from `alert_floor` on.
        alert_floor: Alerts an hour.
    """

    engine_restarts: int = 1
    busy_ratio: float = 1.5
    busy_floor: float = 0.5
    uninspected_ratio: float = 2.0
    uninspected_floor: float = 1.0
    alert_ratio: float = 5.0
    alert_floor: float = 20.0


def find_regressions(before: Vitals, after: Vitals, limits: Limits) -> tuple[Regression, ...]:
    """Return what became worse, in a fixed order.

    Without a past (`before.seconds` is 0) only the floors count. Nothing is said about a box that was not watched.
    """
    if after.seconds <= 0:
        return ()
    found = []
    if after.engine_restarts > limits.engine_restarts:
        found.append(Regression.ENGINE_RESTARTS)
    if _is_worse(before.busy_share, after.busy_share, limits.busy_ratio, limits.busy_floor):
        found.append(Regression.PROCESSOR)
    lost = (_rate(before.uninspected_packets, before.seconds), _rate(after.uninspected_packets, after.seconds))
    if _is_worse(*lost, limits.uninspected_ratio, limits.uninspected_floor):
        found.append(Regression.UNINSPECTED)
    alerts = (_rate(before.alerts, before.seconds) * 3600, _rate(after.alerts, after.seconds) * 3600)
    if _is_worse(*alerts, limits.alert_ratio, limits.alert_floor):
        found.append(Regression.ALERTS)
    return tuple(found)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _is_worse(before: float, after: float, ratio: float, floor: float) -> bool:
    return after > floor and after > before * ratio
