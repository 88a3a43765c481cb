"""Ways back from a bad feed, on a real engine: it is refused, it kills the engine again and again, memory ends.

Each function publishes a bad feed to a box that works well, does to the engine what such a feed does, and waits until
the box is where it was: the serial before is current, the engine holds it and has proved itself (the agent's settling
and canary included), the bad serial is never taken again.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from omamori_protocol.vocabulary import FeedState

from .errors import LabError
from .served_feed_lane import ServedFeedLane
from .waiting import wait_for

_WAIT_S = 600.0


@dataclasses.dataclass(frozen=True)
class WayBack:
    """How it went.

    Attributes:
        seconds: From what went wrong first to the feed before having proved itself again.
        protected_s: From there to an engine that inspects with the feed before.
        deaths: How often the engine ended on the way.
        reason: What the box reports.
    """

    seconds: float
    protected_s: float
    deaths: int
    reason: str


def from_refusal(lane: ServedFeedLane, pack: Path, serial: int) -> WayBack:
    """Publish a feed whose rules do not load; nothing of it may reach the running engine.

    Raises:
        LabError: The engine was touched, or the serial is not quarantined.
        NotReadyError: It was not refused in time.
    """
    before, deaths = lane.store.current().serial, lane.deaths
    run_id = lane.control.run_id()
    at_s = lane.publish(pack, serial)
    shown = lane.wait_shown(before, FeedState.REFUSED, timeout_s=_WAIT_S)
    seconds = time.time() - at_s
    if lane.control.run_id() != run_id or lane.deaths != deaths:
        raise LabError("the engine was restarted for a feed that does not load")
    return _arrived(lane, WayBack(seconds, 0.0, 0, shown.feed_reason), before, serial)


def from_crashes(lane: ServedFeedLane, pack: Path, serial: int) -> WayBack:
    """Publish a feed, let it be taken, and let the engine crash whenever it inspects with it.

    Raises:
        LabError: The box is not where it was.
        NotReadyError: It did not go back in time.
    """
    before = lane.store.current().serial
    lane.publish(pack, serial)
    lane.wait_shown(serial, FeedState.ACTIVE, timeout_s=_WAIT_S)
    deaths = lane.deaths
    began_s = time.monotonic()
    while lane.store.current().serial == serial:
        seen = lane.deaths
        lane.kill_engine()
        wait_for(lambda seen=seen: lane.deaths > seen, "the engine to die", timeout_s=30, every_s=0.01)  # type: ignore[misc]
        wait_for(
            lambda: lane.store.current().serial != serial or lane.is_answering(),
            "the engine or the way back",
            timeout_s=_WAIT_S,
            every_s=0.05,
        )
    return _way_back(lane, before, serial, began_s, deaths)


def from_no_memory(lane: ServedFeedLane, pack: Path, serial: int, *, room_bytes: int) -> WayBack:
    """Publish a feed for which the engine has no room, and let the kernel kill it for that.

    The time runs from the engine's first unwanted end.

    Raises:
        LabError: The box is not where it was.
        NotReadyError: It did not go back in time.
    """
    before = lane.store.current().serial
    with lane.bounded_memory() as group:
        wait_for(lambda: not lane.activator.is_unfinished, "the box at rest", timeout_s=_WAIT_S)
        group.limit(group.used_bytes + room_bytes)
        kills = group.kills
        deaths = lane.deaths
        lane.publish(pack, serial)
        wait_for(lambda: group.kills > kills, "the kernel to kill the engine", timeout_s=_WAIT_S, every_s=0.02)
        return _way_back(lane, before, serial, time.monotonic(), deaths)


def _way_back(lane: ServedFeedLane, before: int, serial: int, began_s: float, deaths: int) -> WayBack:
    shown = lane.wait_shown(
        before, FeedState.ROLLED_BACK, timeout_s=_WAIT_S, then=lambda status: f"serial {serial}:" in status.feed_reason
    )
    wait_for(lane.is_answering, "the engine", timeout_s=_WAIT_S, every_s=0.05)
    protected_s = time.monotonic() - began_s
    wait_for(lambda: not lane.activator.is_unfinished, "the feed before to have settled", timeout_s=_WAIT_S)
    seconds = time.monotonic() - began_s
    found = WayBack(round(seconds, 1), round(protected_s, 1), lane.deaths - deaths, shown.feed_reason)
    return _arrived(lane, found, before, serial)


def _arrived(lane: ServedFeedLane, found: WayBack, before: int, serial: int) -> WayBack:
    if lane.store.current().serial != before or lane.store.record.transition is not None:
        raise LabError(f"feed {lane.store.current().serial} is current, expected {before}")
    if not lane.is_quarantined(serial):
        raise LabError(f"feed {serial} is not quarantined")
    return found
