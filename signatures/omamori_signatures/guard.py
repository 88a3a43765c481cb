"""Whether a new copy of a source is believable, judged by numbers alone. Pure.

What happened to published lists, and must not reach a box: emptied files, files cut to a twentieth within two hours,
files that suddenly are something else. A refused copy costs freshness, never protection: the previous one stays. When
a source has truly changed, an operator accepts it by name.
"""

from __future__ import annotations

import dataclasses

from .catalogue import Source
from .errors import GuardError

# Small lists may change by so many entries, whatever share that is.
SMALL_CHANGE = 20
# So many bad lines are never held against a list.
_TOLERATED_BAD = 10


@dataclasses.dataclass(frozen=True)
class Counts:
    """Indicators (or active rules) and bad lines of one copy."""

    used: int
    bad: int


def judge(source: Source, now: Counts, previous: Counts | None) -> None:
    """Refuse a copy that is not plausible.

    Args:
        source: Its bounds.
        now: The new copy.
        previous: The copy in use; None if there is none yet.

    Raises:
        GuardError: Too few or too many entries, too many bad lines, or too great a change; the message has the numbers.
    """
    what = f"source {source.name}"
    low, high = source.entries
    if not low <= now.used <= high:
        raise GuardError(f"{what}: {now.used} entries, plausible are {low} to {high}", hint=_HINT)
    if now.bad > max(_TOLERATED_BAD, (now.used + now.bad) * source.bad_percent // 100):
        raise GuardError(f"{what}: {now.bad} bad lines beside {now.used} good ones", hint=_HINT)
    if previous is None or abs(now.used - previous.used) <= SMALL_CHANGE:
        return
    if now.used * 100 < previous.used * (100 - source.shrink_percent):
        raise GuardError(
            f"{what} shrank from {previous.used} to {now.used} entries, allowed are {source.shrink_percent} %",
            hint=_HINT,
        )
    if now.used * 100 > previous.used * (100 + source.growth_percent):
        change = f"{what} grew from {previous.used} to {now.used} entries"
        raise GuardError(f"{change}, allowed are {source.growth_percent} %", hint=_HINT)


_HINT = "the previous copy stays in use; if the new one is right: omamori-feed fetch --accept NAME"
