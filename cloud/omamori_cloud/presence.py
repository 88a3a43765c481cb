"""Decides whether a box is there, and which of its states counts. Rules only: no clock, no database.

A box that loses its connection cannot say so; the broker publishes its will instead. A will may arrive late, after
the box has already connected again. Every connection therefore has a session id, carried by its birth message and by
its will:

* a birth (presence online) counts, unless its session's end is known already: a session does not come back;
* a will (presence offline) counts for the session that the newest birth named;
* a will of another session counts only if it is from a later connection (boot counter, then start time): then we
  missed the birth. Otherwise it is late, and ignored.

Births are not compared with each other: the clock of a box may step back, and its boot counter may begin anew. Their
order is the broker's, who hands every worker all states of a box one after the other; whatever one worker stores late,
it overwrites itself with what came after (docs/adr/0045-shared-ingest.md).

Of heartbeats, which come over any worker, the newest by (boot, number) describes the box.
"""

from __future__ import annotations

import dataclasses

from omamori_protocol.messages import State
from omamori_protocol.vocabulary import Presence

COUNTER_LOST_MS = 10 * 60 * 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionMark:
    """What must be remembered of the state that counts, to judge the next one."""

    session: bytes
    boot: int
    since_s: int
    ended: bool = False

    @classmethod
    def of(cls, state: State) -> SessionMark:
        """Return the mark of `state`."""
        ended = state.presence is Presence.OFFLINE
        return cls(session=state.session, boot=state.boot, since_s=state.since_s, ended=ended)


def state_counts(known: SessionMark | None, incoming: State) -> bool:
    """Return whether `incoming` replaces the state that counts so far."""
    if known is None:
        return True
    if incoming.presence is Presence.ONLINE:
        return not (known.ended and incoming.session == known.session)
    if incoming.session == known.session:
        return True
    return (incoming.boot, incoming.since_s) > (known.boot, known.since_s)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeatMark:
    """What must be remembered of the heartbeat that describes a box."""

    boot: int
    seq: int
    received_ms: int


def beat_counts(known: BeatMark | None, incoming: BeatMark) -> bool:
    """Return whether `incoming` replaces the heartbeat that describes the box so far.

    Workers hand over what they have within seconds. What is much newer and yet has a smaller number is from a box whose
    counter began anew.
    """
    if known is None or incoming.received_ms - known.received_ms > COUNTER_LOST_MS:
        return True
    return (incoming.boot, incoming.seq) >= (known.boot, known.seq)


def is_online(
    *,
    presence: Presence | None,
    presence_ms: int | None,
    last_contact_ms: int | None,
    now_ms: int,
    offline_after_s: int,
) -> bool:
    """Return whether the box is there now.

    Args:
        presence: What the state that counts says; None before the first.
        presence_ms: When that was received.
        last_contact_ms: When the box itself was last heard: any message but a will or a retained copy.
        now_ms: The present.
        offline_after_s: Silence after which a box counts as offline.
    """
    if last_contact_ms is None or now_ms - last_contact_ms > offline_after_s * 1000:
        return False
    return not (presence is Presence.OFFLINE and presence_ms is not None and presence_ms >= last_contact_ms)
