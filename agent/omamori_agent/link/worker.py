"""The worker that keeps the box connected and empties the spool.

One thread owns the connection. Others leave a heartbeat, put events into the spool or change the status, and wake it.
A lost or refused connection is never fatal: wait, jittered and longer each time, and connect again. Nothing that
arrives is trusted: it is decoded within bounds, and what does not fit is counted and dropped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from omamori_agent import vitals
from omamori_agent.backoff import Backoff
from omamori_agent.config import AgentConfig
from omamori_agent.errors import AgentError
from omamori_agent.identity import Identity, IdentityHolder
from omamori_agent.ports import Clock
from omamori_agent.spool import Spool
from omamori_agent.status import StatusBoard
from omamori_agent.text import clean_text
from omamori_protocol.errors import MalformedError, ProtocolError
from omamori_protocol.messages import FeedAnnouncement
from omamori_protocol.topics import MAX_TOPIC_LENGTH, Leaf, device_topic, feed_announcement
from omamori_protocol.vocabulary import Leaving, PowerKind, RunEnd

from .broker import Broker, Received, Waker
from .doubt import Doubt
from .job import JobPort, NoJobs
from .presence import Beginning
from .session import LinkSession

logger = logging.getLogger(__name__)

_POLL_S = 1.0  # upper bound of the reaction to a stop


class DesiredPort(Protocol):
    """Who takes desired state and commands; nothing of it blocks."""

    def offer_document(self, signed: bytes) -> None:
        """Take a delivered document."""

    def offer_command(self, signed: bytes) -> None:
        """Take a delivered command."""

    def reported(self) -> bytes | None:
        """Return the report to retain."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the report has changed."""


class LinkWorker:
    """`ports.Worker` of the connection.

    Args:
        config: Addresses and limits.
        broker: Makes connections.
        holder: Gives the identity as soon as there is one.
        spool: Where events wait.
        status: What the box does; the link writes `connected`.
        clock: Time.
        on_announcement: Told about each announced feed serial, from the link's thread; must not block.
        desired: Takes documents and commands, and tells what became of them.
        waker: Interrupts the waiting; its own one unless somebody else waits for it.
        last_end: How the box's run before this one ended.
        why_leaving: Returns why the agent is being stopped, once it is.
        jobs: Keeps answers to commands until they are sent.
        channel: Returns the feed channel whose announcements are listened to; the factory's one by default. After a
            change somebody has to call `reconnect`.
        power_before: Returns what the supervisor saw of the power when this run of the box began; None if nobody did.
    """

    name = "link"

    def __init__(
        self,
        *,
        config: AgentConfig,
        broker: Broker,
        holder: IdentityHolder,
        spool: Spool,
        status: StatusBoard,
        clock: Clock,
        on_announcement: Callable[[int], None],
        desired: DesiredPort,
        waker: Waker | None = None,
        last_end: RunEnd = RunEnd.UNKNOWN,
        why_leaving: Callable[[], Leaving] = lambda: Leaving.PROGRAM,
        jobs: JobPort | None = None,
        channel: Callable[[], str] | None = None,
        power_before: Callable[[], tuple[PowerKind, int] | None] = lambda: None,
    ) -> None:
        self._config = config
        self._last_end = last_end
        self._why_leaving = why_leaving
        self._jobs = jobs or NoJobs()
        self._power_before = power_before
        self._lost_s: float | None = None  # when the last connection ended
        self._broker = broker
        self._holder = holder
        self._spool = spool
        self._status = status
        self._clock = clock
        self._on_announcement = on_announcement
        self._channel = channel or (lambda: config.provision.channel)
        self._announcement_topic = feed_announcement(self._channel())
        self._desired = desired
        self._desired_topic = device_topic(config.device, Leaf.DESIRED)
        self._command_topic = device_topic(config.device, Leaf.COMMAND)
        self._reconnect = threading.Event()
        self._connections = 0
        self._live: tuple[int, str] | None = None
        self._waker = waker or Waker()
        self._doubt = Doubt(config.link.doubt_s, config.spool.kept_events)
        self._heartbeat_lock = threading.Lock()
        self._heartbeat: bytes | None = None
        self._bad_messages = 0
        spool.subscribe(self._waker.set)
        status.subscribe(lambda _status: self._waker.set())
        desired.subscribe(self._waker.set)
        self._jobs.subscribe(self._waker.set)

    @property
    def bad_messages(self) -> int:
        """How many messages arrived that could not be understood."""
        return self._bad_messages

    def offer_heartbeat(self, payload: bytes) -> None:
        """Send this heartbeat next; it replaces one that still waits and is dropped when there is no connection."""
        with self._heartbeat_lock:
            self._heartbeat = payload
        self._waker.set()

    def reconnect(self) -> None:
        """Give up the present connection, or the pause before the next try, and connect now; from any thread."""
        self._reconnect.set()
        self._waker.set()

    def connection(self) -> tuple[int, str] | None:
        """Return number and local address of the present connection, or None without one; from any thread."""
        return self._live

    def run(self, stop: threading.Event) -> None:
        """Stay connected until `stop`."""
        limits = self._config.link
        backoff = Backoff(limits.reconnect_first_s, limits.reconnect_cap_s)
        while not stop.is_set():
            identity = self._holder.wait(_POLL_S)
            if identity is None:
                continue
            began_s = self._clock.monotonic()
            try:
                self._serve(identity, stop)
            except AgentError as err:
                self._doubt.connection_lost(self._clock.monotonic())
                if self._clock.monotonic() - began_s >= limits.stable_after_s:
                    backoff.reset()
                delay_s = backoff.next_s()
                logger.warning("not connected: %s; next try in %.1f s", err, delay_s)
                self.pause(delay_s, stop)
            finally:
                self._status.update(connected=False)

    def pause(self, delay_s: float, stop: threading.Event) -> None:
        """Wait until the next try: `delay_s` seconds, or until `stop` or `reconnect`."""
        until_s = self._clock.monotonic() + delay_s
        while not stop.is_set() and not self._reconnect.is_set() and self._clock.monotonic() < until_s:
            self._reconnect.wait(max(0.0, min(_POLL_S / 2, until_s - self._clock.monotonic())))

    def _serve(self, identity: Identity, stop: threading.Event) -> None:
        """Use one connection until it is lost, `stop` is set, the identity changes or a new one is asked for."""
        self._reconnect.clear()
        self._announcement_topic = feed_announcement(self._channel())
        session = LinkSession(
            config=self._config,
            identity=identity,
            boot=self._spool.boot,
            status=self._status,
            spool=self._spool,
            doubt=self._doubt,
            clock=self._clock,
            waker=self._waker,
            take_heartbeat=self._take_heartbeat,
            reported=self._desired.reported,
            jobs=self._jobs,
            announcements=self._announcement_topic,
            on_received=self._on_received,
            beginning=self._beginning(),
        )
        connection = self._broker.connect(session.hello(), identity, stop)
        goodbye_s = 0.0
        try:
            logger.info("connected to %s", self._config.provision.broker_host)
            self._take_heartbeat()  # one from before the connection would be stale; a fresh one follows
            session.start(connection)
            self._connections += 1
            self._live = (self._connections, connection.local_address)
            self._status.update(connected=True)
            while not stop.is_set() and not self._reconnect.is_set() and self._holder.get() == identity:
                session.step()
            if not self._reconnect.is_set():  # then we are back before the will is published
                leaving = self._why_leaving() if stop.is_set() else Leaving.SESSION
                session.finish(self._config.link.goodbye_s, leaving)
                goodbye_s = self._config.link.goodbye_s
        finally:
            if self._live is not None:
                self._lost_s = self._clock.monotonic()
            self._live = None
            connection.close(goodbye_s=goodbye_s)

    def _beginning(self) -> Beginning:
        away_s = None if self._lost_s is None else int(self._clock.monotonic() - self._lost_s)
        return Beginning(
            uptime_s=vitals.uptime_s(self._config.paths.proc),
            last_end=self._last_end,
            away_s=away_s,
            trouble_before=self._status.get().trouble_before,
            power_before=self._power_before(),
        )

    def _take_heartbeat(self) -> bytes | None:
        with self._heartbeat_lock:
            heartbeat, self._heartbeat = self._heartbeat, None
            return heartbeat

    def _on_received(self, message: Received) -> None:
        try:
            if message.topic == self._desired_topic:
                self._desired.offer_document(message.payload)
                return
            if message.topic == self._command_topic:
                self._desired.offer_command(message.payload)
                return
            if message.topic != self._announcement_topic:
                raise MalformedError(f"nothing is expected on {clean_text(message.topic, MAX_TOPIC_LENGTH)!r}")
            announcement = FeedAnnouncement.decode(message.payload)
        except ProtocolError as err:
            self._bad_messages += 1
            logger.warning("message dropped (%d so far): %s", self._bad_messages, err)
            return
        self._on_announcement(announcement.serial)
