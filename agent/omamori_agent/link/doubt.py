"""Which acknowledged events the broker may have forgotten; no input or output.

An acknowledgement says that the broker has the event, not that the cloud has. A broker that dies loses what it had not
written down; one that comes back without its memory loses all that the cloud had not fetched. The first looks like any
lost connection, so the events of the last minutes before it are sent again. The second shows: our session is gone, and
everything that the spool still keeps is sent again. The cloud recognises what it has.
"""

from __future__ import annotations

from collections import deque


class Doubt:
    """Remembers acknowledgements across connections; times are monotonic seconds. Used by one thread.

    Args:
        doubt_s: How long before a loss an acknowledgement is worth little.
        maximum: How many acknowledgements are remembered; the spool keeps no more.
    """

    def __init__(self, doubt_s: float, maximum: int) -> None:
        self._doubt_s = doubt_s
        self._confirmed: deque[tuple[float, int]] = deque(maxlen=maximum)
        self._doubtful: set[int] = set()
        self._all = False

    def confirmed(self, position: int, now_s: float) -> None:
        """Note that the event at `position` was acknowledged."""
        self._confirmed.append((now_s, position))

    def connection_lost(self, now_s: float) -> None:
        """Note that a connection ended without our doing."""
        self._doubtful |= {position for at_s, position in self._confirmed if at_s >= now_s - self._doubt_s}
        self._confirmed.clear()

    def session_lost(self) -> None:
        """Note that the broker does not know us any more."""
        self._all = True

    @property
    def exists(self) -> bool:
        """Whether anything has to be recalled."""
        return self._all or bool(self._doubtful)

    def doubtful(self) -> list[int] | None:
        """Return the positions to recall; None for all."""
        return None if self._all else sorted(self._doubtful)

    def settle(self) -> None:
        """Note that they were recalled."""
        self._all = False
        self._doubtful.clear()
