"""Which events may be sent now, and what an acknowledgement means; no input or output.

* Each lane goes out in its order, at most `size` events of all lanes unacknowledged.
* An acknowledged event may be confirmed. A refused one stays in the spool and is sent again later; refusals in a row
  slow everything down, a single one does not hold up the others.
* "No matching subscribers" counts as a refusal: the broker took the event and threw it away.
* A new connection starts from the oldest event again.
"""

from __future__ import annotations

import dataclasses

from omamori_agent.backoff import Backoff
from omamori_agent.spool import Lane

_SUCCESS = 0x00


@dataclasses.dataclass(frozen=True)
class _Sent:
    position: int
    at_s: float


class SendWindow:
    """State of one connection's event traffic; times are monotonic seconds.

    Args:
        size: Largest number of unacknowledged events.
        pause: Delays of everything after refusals in a row.
        again: Delays until refused events are tried again; starts over when one of them is taken.
    """

    def __init__(self, size: int, pause: Backoff, again: Backoff) -> None:
        self._size = size
        self._pause = pause
        self._again = again
        self._refused: set[int] = set()  # positions; never more than the spool holds
        self._sent: dict[int, _Sent] = {}
        self._paused_until_s = 0.0
        self._rewind_at_s: float | None = None
        self._reached: dict[Lane, int] = {}
        self._rewound = False

    def reached(self, lane: Lane) -> int:
        """Return the position up to which `lane` has been sent on this connection."""
        return self._reached.get(lane, 0)

    def room(self, now_s: float) -> int:
        """Return how many more events may be sent now."""
        if now_s < self._paused_until_s:
            return 0
        if self._rewind_at_s is not None and now_s >= self._rewind_at_s:
            if self._sent:
                return 0  # an event must not be on its way twice
            self._rewind_at_s = None
            self._reached.clear()
            self._rewound = True
        return self._size - len(self._sent)

    def has_rewound(self) -> bool:
        """Return whether `room` went back to the oldest events since this was asked last."""
        rewound, self._rewound = self._rewound, False
        return rewound

    def sent(self, message_id: int, lane: Lane, position: int, now_s: float) -> None:
        """Note that the event at `position` of `lane` went out as `message_id`."""
        self._sent[message_id] = _Sent(position, now_s)
        self._reached[lane] = max(self.reached(lane), position)

    def answered(self, message_id: int, reason: int, now_s: float) -> int | None:
        """Take an acknowledgement.

        Returns:
            Position of the event to confirm, or None if there is none (refused, or not an event of this window).
        """
        sent = self._sent.pop(message_id, None)
        if sent is None:
            return None
        if reason == _SUCCESS:
            self._pause.reset()
            if sent.position in self._refused:
                self._refused.discard(sent.position)
                self._again.reset()
            return sent.position
        self._refused.add(sent.position)
        if now_s >= self._paused_until_s:
            self._paused_until_s = now_s + self._pause.next_s()
        if self._rewind_at_s is None:
            self._rewind_at_s = now_s + self._again.next_s()
        return None

    def waits_since(self) -> float | None:
        """Return when the oldest unacknowledged event was sent, or None."""
        return min((sent.at_s for sent in self._sent.values()), default=None)
