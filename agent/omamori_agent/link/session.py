"""One connection's conversation: birth, changes of state, heartbeats, events and their acknowledgements.

It lives as long as its connection; the next one starts from nothing but the spool and the status. Used by one thread.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from omamori_agent.backoff import Backoff
from omamori_agent.config import AgentConfig
from omamori_agent.identity import Identity
from omamori_agent.leaving import quiet_s
from omamori_agent.ports import Clock
from omamori_agent.spool import LANES, Lane, Spool, SpoolUnavailableError
from omamori_agent.status import StatusBoard
from omamori_protocol.errors import ProtocolError
from omamori_protocol.messages import Event
from omamori_protocol.topics import Leaf, device_topic
from omamori_protocol.vocabulary import Leaving, Presence

from .broker import Acknowledged, BrokerConnection, BrokerUnreachableError, Hello, Received, Waker
from .doubt import Doubt
from .job import JobMessage, JobPort
from .pace import Pace
from .presence import Beginning, describe
from .retained import RetainedMessage
from .window import SendWindow

logger = logging.getLogger(__name__)

_POLL_S = 1.0  # upper bound of the reaction to a stop
_SESSION_BYTES = 8
_SPOOL_RETRY_S = 2.0
_TELL_REFUSALS_S = 10.0
_HEARTBEATS_UNTIL_STALE = 3  # a heartbeat that is delivered later tells nothing any more


class LinkSession:
    """The conversation on one connection.

    Args:
        config: Limits and what the state says.
        identity: Who we are on this connection.
        boot: The agent's boot number.
        status: What the box does.
        spool: Where events wait.
        doubt: Which acknowledgements are worth nothing; outlives the session.
        clock: Time.
        waker: Set by others when there is something to send.
        take_heartbeat: Returns a heartbeat to send, once, or None.
        reported: Returns what became of the desired state, or None while nobody knows.
        jobs: Keeps answers to commands until they are sent.
        announcements: Topic of new feeds.
        on_received: Told about each message for us.
        beginning: What was before this connection.
    """

    def __init__(
        self,
        *,
        config: AgentConfig,
        identity: Identity,
        boot: int,
        status: StatusBoard,
        spool: Spool,
        doubt: Doubt,
        clock: Clock,
        waker: Waker,
        take_heartbeat: Callable[[], bytes | None],
        reported: Callable[[], bytes | None],
        jobs: JobPort,
        announcements: str,
        on_received: Callable[[Received], None],
        beginning: Beginning,
    ) -> None:
        self._config = config
        self._beginning = beginning
        self._limits = config.link
        self._identity = identity
        self._boot = boot
        self._status = status
        self._spool = spool
        self._doubt = doubt
        self._clock = clock
        self._waker = waker
        self._take_heartbeat = take_heartbeat
        self._on_received = on_received
        self._announcements = announcements
        self._connection: BrokerConnection | None = None
        self._id = secrets.token_bytes(_SESSION_BYTES)
        self._since_s = clock.now()
        self._window = self._make_window(1)
        self._paces: dict[bool, Pace] = {}  # of what waits, and of what is sent again
        self._backlog_end = 0  # position of the newest event that waited when we connected
        self._confirmable: list[int] = []
        self._refused = 0
        self._tell_refusals_at_s = 0.0
        self._spool_retry_at_s = 0.0
        self._nothing_new = False  # the spool was read to its end and nobody has put since
        retry_s = self._limits.refused_cap_s
        self._state = RetainedMessage(
            "state", self._topic(Leaf.STATE), lambda: self._describe(Presence.ONLINE), clock, retry_s=retry_s
        )
        self._reported = RetainedMessage("report", self._topic(Leaf.REPORTED), reported, clock, retry_s=retry_s)
        self._job = JobMessage(identity.device, jobs, clock, retry_s=retry_s)

    def hello(self) -> Hello:
        """Return how to introduce ourselves, the will included."""
        topic = device_topic(self._identity.device, Leaf.STATE)
        return Hello(self._identity.device, topic, self._describe(Presence.OFFLINE))

    def start(self, connection: BrokerConnection) -> None:
        """Say that we are here.

        Raises:
            BrokerUnreachableError: The connection is lost.
            SpoolUnavailableError: The disk does not answer.
        """
        self._connection = connection
        if connection.keeps_sessions and not connection.session_present:
            self._doubt.session_lost()
        if self._doubt.exists:
            recalled = self._spool.recall(self._doubt.doubtful())
            self._doubt.settle()
            if recalled:
                logger.info("%d acknowledged events are sent again: the broker may have lost them", recalled)
        self._measure_backlog()
        # Two places in the broker's window are kept: for the state, and for the report or the answer to a command.
        self._window = self._make_window(max(1, min(self._limits.window, connection.receive_maximum) - 2))
        self._state.send(connection)
        connection.subscribe(self._announcements)
        connection.subscribe(self._topic(Leaf.DESIRED))
        connection.subscribe(self._topic(Leaf.COMMAND))

    def step(self) -> None:
        """Send what is due, then wait up to a second for what comes.

        Raises:
            BrokerUnreachableError: The connection is lost, or the broker stopped acknowledging.
        """
        connection = self._live()
        if (heartbeat := self._take_heartbeat()) is not None:
            expires_s = int(_HEARTBEATS_UNTIL_STALE * self._config.heartbeat_s) or 1
            connection.publish(self._topic(Leaf.HEARTBEAT), heartbeat, confirmed=False, expires_s=expires_s)
        self._state.send(connection)
        if self._job.waits_since is None:
            self._reported.send(connection)
        if self._reported.waits_since is None:
            self._job.send(connection)
        self._send_events(connection)
        self._check_patience()
        self._take(connection)
        self._confirm()

    def finish(self, goodbye_s: float, leaving: Leaving) -> None:
        """Say that we leave and why; afterwards the connection may be closed in an orderly way."""
        connection = self._live()
        self._state.send(connection, self._describe(Presence.OFFLINE, leaving))
        deadline_s = self._clock.monotonic() + goodbye_s
        while self._state.waits_since is not None and self._clock.monotonic() < deadline_s:
            self._take(connection)
        self._confirm()

    def _make_window(self, size: int) -> SendWindow:
        limits = self._limits
        pause = Backoff(limits.refused_first_s, limits.refused_cap_s)
        return SendWindow(size, pause, again=Backoff(limits.again_first_s, limits.refused_cap_s))

    def _live(self) -> BrokerConnection:
        if self._connection is None:
            raise BrokerUnreachableError("not connected yet")
        return self._connection

    def _topic(self, leaf: Leaf) -> str:
        return device_topic(self._identity.device, leaf)

    def _describe(self, presence: Presence, leaving: Leaving | None = None) -> bytes:
        return describe(
            self._config,
            self._identity,
            self._status.get(),
            session=self._id,
            presence=presence,
            boot=self._boot,
            since_s=self._since_s,
            beginning=self._beginning,
            leaving=leaving,
            quiet_s=None if leaving is None else quiet_s(leaving),
        ).encode()

    def _measure_backlog(self) -> None:
        """Find out how much waits and since when, for the pace."""
        self._backlog_end = self._spool.newest()
        status = self._spool.status()
        oldest_ms = {lane: self._oldest_ms(lane) for lane in LANES}
        waiting_ms = [at_ms for lane, at_ms in oldest_ms.items() if at_ms is not None and lane is not Lane.AGAIN]
        again_ms = oldest_ms[Lane.AGAIN]
        self._paces = {
            False: self._pace(status.events, min(waiting_ms, default=None)),
            True: self._pace(status.again, again_ms),
        }

    def _oldest_ms(self, lane: Lane) -> int | None:
        for event in self._spool.read_after(lane, 0, 1):
            try:
                return Event.decode(event.body).at_ms
            except ProtocolError:  # the cloud will say so
                logger.debug("an event of the spool is none")
        return None

    def _pace(self, backlog: int, oldest_ms: int | None) -> Pace:
        age_s = 0.0 if oldest_ms is None else self._clock.now() - oldest_ms / 1000
        return Pace(backlog, age_s, self._clock.monotonic(), self._limits)

    def _send_events(self, connection: BrokerConnection) -> None:
        now_s = self._clock.monotonic()
        room = self._window.room(now_s)
        if self._window.has_rewound():
            self._nothing_new = False  # refused events are due again
        if room <= 0 or self._nothing_new or now_s < self._spool_retry_at_s:
            return
        # Before reading: an event put meanwhile must be looked for again.
        self._nothing_new = True
        try:
            for lane in LANES:
                room -= self._send_lane(connection, lane, room, now_s)
        except SpoolUnavailableError as err:
            self._spool_trouble(err)
            self._nothing_new = False
        if room <= 0:
            self._nothing_new = False

    def _send_lane(self, connection: BrokerConnection, lane: Lane, room: int, now_s: float) -> int:
        """Send what waits in a lane and may go; returns how many that were."""
        if room <= 0:
            return 0
        events = self._spool.read_after(lane, self._window.reached(lane), room)
        backlog = sum(event.position <= self._backlog_end for event in events)
        if lane is not Lane.THREE and backlog:
            pace = self._paces[lane is Lane.AGAIN]
            allowed = pace.room(now_s, backlog)
            pace.sent(allowed)
            if allowed < backlog:
                events = events[:allowed]  # a lane keeps its order: what is behind the backlog waits too
                self._nothing_new = False
        for event in events:
            message_id = connection.publish(self._topic(Leaf.EVENT), event.body, confirmed=True)
            self._window.sent(message_id, lane, event.position, now_s)
        return len(events)

    def _check_patience(self) -> None:
        own = (self._state.waits_since, self._reported.waits_since, self._job.waits_since)
        waiting = [since_s for since_s in (*own, self._window.waits_since()) if since_s is not None]
        if waiting and self._clock.monotonic() - min(waiting) > self._limits.ack_timeout_s:
            raise BrokerUnreachableError(f"the broker acknowledges nothing for {self._limits.ack_timeout_s:.0f} s")

    def _take(self, connection: BrokerConnection) -> None:
        for item in connection.poll(self._poll_s(), self._waker):
            if isinstance(item, Received):
                self._on_received(item)
            elif not any(sender.answered(item) for sender in (self._state, self._reported, self._job)):
                self._event_answered(item)
        if self._waker.clear():
            self._nothing_new = False

    def _poll_s(self) -> float:
        """Return how long to wait for the network at most: until a paced event may go."""
        if self._nothing_new:
            return _POLL_S
        return min([_POLL_S, *(wait_s for pace in self._paces.values() if (wait_s := pace.wait_s()) > 0)])

    def _event_answered(self, item: Acknowledged) -> None:
        position = self._window.answered(item.message_id, item.reason, self._clock.monotonic())
        if position is not None:
            self._confirmable.append(position)
        elif item.reason:
            self._tell_refusal(item.reason)

    def _tell_refusal(self, reason: int) -> None:
        self._refused += 1
        now_s = self._clock.monotonic()
        if now_s >= self._tell_refusals_at_s:
            self._tell_refusals_at_s = now_s + _TELL_REFUSALS_S
            logger.warning("the broker does not take an event (0x%02x, %d so far); kept", reason, self._refused)

    def _confirm(self) -> None:
        if not self._confirmable or self._clock.monotonic() < self._spool_retry_at_s:
            return
        try:
            self._spool.confirm(self._confirmable)
        except SpoolUnavailableError as err:
            self._spool_trouble(err)
        else:
            now_s = self._clock.monotonic()
            for position in self._confirmable:
                self._doubt.confirmed(position, now_s)
            self._confirmable.clear()

    def _spool_trouble(self, err: SpoolUnavailableError) -> None:
        logger.warning("%s", err)
        self._spool_retry_at_s = self._clock.monotonic() + _SPOOL_RETRY_S
