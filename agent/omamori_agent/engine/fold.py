"""Keeps alerts readable: repeats become counts, twins disappear, a flood ends at a daily limit.

Pure. The rules:

* The first occurrence of (what, terminal, destination, action) is told at once. Repeats within the window are only
  counted and told as one event with their number when the window ends; then a new window begins. *What* is the rule,
  for list functions (dangerous site, category, virus) the list's function and category: several rules look for the
  same list in different protocols.
* Two rules of one list function that match the same transaction (exact name and registrable domain) are one
  occurrence.
* Each severity has its own daily limit of events, so that noise never takes the place of ★★★. What exceeds it is
  counted and told once when the day ends.
* Everything is bounded: when the table is full, the oldest window ends early.

After an orderly stop (`flush`) nothing is missing. When the agent is killed, the counts of open windows (at most
`window_s` of repeats, never a first occurrence) may be lost, and limits begin anew; nothing is told twice.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Hashable, Mapping

from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind, Function, Severity

_DAY_MS = 86_400_000
_MAX_COUNT = 2**32 - 1
_LIST_FUNCTIONS = frozenset({Function.DANGEROUS_SITE, Function.CATEGORY, Function.VIRUS})
DAILY_LIMITS: Mapping[Severity, int] = {Severity.ONE: 2000, Severity.TWO: 2000, Severity.THREE: 2000}


@dataclasses.dataclass
class _Window:
    started_s: float
    latest: Event
    pending: int = 0


class Folder:
    """Turns a stream of occurrences into the events worth telling; one thread uses it.

    Args:
        window_s: Seconds for which repeats are only counted.
        max_keys: How many windows may be open.
        max_origins: How many transactions are remembered to recognise twins.
        daily_limits: Events of each severity in one day (UTC).
    """

    def __init__(
        self,
        *,
        window_s: float = 60.0,
        max_keys: int = 2048,
        max_origins: int = 1024,
        daily_limits: Mapping[Severity, int] = DAILY_LIMITS,
    ) -> None:
        self._window_s = window_s
        self._max_keys = max_keys
        self._max_origins = max_origins
        self._limits = daily_limits
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()  # oldest window first
        self._origins: OrderedDict[Hashable, int | None] = OrderedDict()
        self._day = -1
        self._told: dict[Severity, int] = {}
        self._suppressed: dict[Severity, int] = {}

    def add(self, event: Event, *, now_s: float, origin: Hashable = None) -> list[Event]:
        """Take one occurrence (its `count` may be above one) and return what is to be told now.

        Args:
            event: The occurrence.
            now_s: Monotonic seconds.
            origin: Equal for occurrences that may be twins.
        """
        if origin is not None and self._is_twin(event, origin):
            return []
        out = self.due(now_s=now_s)
        key = _key(event)
        window = self._windows.get(key)
        if window is not None:
            window.latest = event
            window.pending = min(window.pending + event.count, _MAX_COUNT)
            return out
        while len(self._windows) >= self._max_keys:
            out += self._tell_pending(self._windows.popitem(last=False)[1])
        self._windows[key] = _Window(now_s, event)
        return out + self._tell(event)

    def due(self, *, now_s: float) -> list[Event]:
        """Return the counts of windows that have ended."""
        out: list[Event] = []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now_s - window.started_s < self._window_s:
                break
            del self._windows[key]
            if window.pending:
                out += self._tell_pending(window)
                self._windows[key] = _Window(now_s, window.latest)
        return out

    def flush(self) -> list[Event]:
        """End all windows and return their counts and what the daily limits held back."""
        out: list[Event] = []
        for window in self._windows.values():
            out += self._tell_pending(window)
        self._windows.clear()
        at_ms = out[-1].at_ms if out else self._day * _DAY_MS
        return out + self._tell_suppressed(max(at_ms, 0))

    def _is_twin(self, event: Event, origin: Hashable) -> bool:
        if event.function not in _LIST_FUNCTIONS:
            return False
        key = (origin, event.function, event.category, event.action)
        if key in self._origins:
            return self._origins[key] != event.rule_id
        while len(self._origins) >= self._max_origins:
            self._origins.popitem(last=False)
        self._origins[key] = event.rule_id
        return False

    def _tell_pending(self, window: _Window) -> list[Event]:
        return self._tell(dataclasses.replace(window.latest, count=window.pending)) if window.pending else []

    def _tell(self, event: Event) -> list[Event]:
        out: list[Event] = []
        day = event.at_ms // _DAY_MS
        if day not in {self._day, self._day - 1}:  # a count told just after midnight belongs to neither side
            out = self._tell_suppressed(event.at_ms)
            self._day = day
            self._told.clear()
        told = self._told.get(event.severity, 0)
        if told >= self._limits[event.severity]:
            self._suppressed[event.severity] = self._suppressed.get(event.severity, 0) + event.count
            return out
        self._told[event.severity] = told + 1
        return [*out, event]

    def _tell_suppressed(self, at_ms: int) -> list[Event]:
        out = [
            Event(
                boot=0,
                seq=0,
                at_ms=at_ms,
                kind=EventKind.SYSTEM,
                severity=severity,
                count=min(count, _MAX_COUNT),
                text=f"alerts {severity.stars} beyond the daily limit of {self._limits[severity]} were only counted",
            )
            for severity, count in sorted(self._suppressed.items())
        ]
        self._suppressed.clear()
        return out


def _key(event: Event) -> Hashable:
    what: Hashable = event.rule_id
    if event.rule_id is None or event.function in _LIST_FUNCTIONS:
        what = (event.function, event.category)
    return what, event.kind, event.severity, event.direction, event.terminal_ip, event.destination, event.action
