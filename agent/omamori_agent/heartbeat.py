"""The sign of life: once a minute, and at once after each connect.

It only gathers what others know; sending is the link's part. Counters of the gate that cannot be read are 0.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from omamori_protocol.messages import Heartbeat

from . import vitals
from .config import AgentConfig
from .errors import AgentError
from .gate import Count
from .gate.layout import Counter
from .ports import Clock
from .spool import Spool
from .status import Status, StatusBoard

logger = logging.getLogger(__name__)

_POLL_S = 0.5  # upper bound of the reaction to a stop


class GateCounters(Protocol):
    """The part of the gate that a heartbeat reads."""

    def counters(self) -> Mapping[Counter, Count]:
        """Return all counters since the gate was loaded; raises `AgentError` when it cannot."""


class LateGate:
    """The gate's counters as soon as there is a gate: it is opened when asked, and again after it failed.

    Args:
        opener: Opens the gate; raises `AgentError` while it is not there.
    """

    def __init__(self, opener: Callable[[], GateCounters]) -> None:
        self._opener = opener
        self._gate: GateCounters | None = None

    def counters(self) -> Mapping[Counter, Count]:
        """Return all counters since the gate was loaded; raises `AgentError` when it cannot."""
        if self._gate is None:
            self._gate = self._opener()
        try:
            return self._gate.counters()
        except AgentError:
            self._gate = None  # its maps close with the last reference
            raise


class HeartbeatWorker:
    """`ports.Worker` of the heartbeat.

    Args:
        config: Interval, and what the heartbeat says about the image.
        spool: Gives boot number and depth.
        status: What the box does.
        gate: Its counters; without them, a heartbeat says 0.
        clock: Time.
        offer: Takes the encoded heartbeat for sending.
    """

    name = "heartbeat"

    def __init__(
        self,
        *,
        config: AgentConfig,
        spool: Spool,
        status: StatusBoard,
        gate: GateCounters,
        clock: Clock,
        offer: Callable[[bytes], None],
    ) -> None:
        self._config = config
        self._spool = spool
        self._status = status
        self._gate = gate
        self._clock = clock
        self._offer = offer
        self._seq = 0
        self._connected = False
        self._connects = threading.Event()
        self._ticks = (0, 0)
        status.subscribe(self._on_status)

    def run(self, stop: threading.Event) -> None:
        """Offer a heartbeat when one is due, until `stop`."""
        due_s = self._clock.monotonic()
        while not stop.is_set():
            if self._connects.is_set() or self._clock.monotonic() >= due_s:
                self._connects.clear()
                due_s = self._clock.monotonic() + self._config.heartbeat_s
                if self._status.get().connected:
                    self._offer(self.compose().encode())
            self._connects.wait(_POLL_S)

    def compose(self) -> Heartbeat:
        """Return the heartbeat of this moment; each one has the next number."""
        self._seq += 1
        status = self._status.get()
        spool = self._spool.status()
        counters = self._counters()
        proc = self._config.paths.proc
        return Heartbeat(
            boot=spool.boot,
            seq=self._seq,
            sent_s=int(self._clock.now()),
            uptime_s=vitals.uptime_s(proc),
            firmware=self._config.release.version,
            slot=self._config.slot,
            feed_serial=status.feed_serial,
            feed_state=status.feed_state,
            engine=status.engine,
            agent_rss_kib=vitals.own_rss_kib(proc),
            memory_available_kib=vitals.memory_available_kib(proc),
            spool_depth=spool.events,
            uninspected_s=int(status.uninspected_s + status.passed_by_s),
            inspected_packets=_packets(counters, Counter.INSPECTED),
            bypassed_packets=_packets(counters, Counter.BYPASSED),
            blocked_packets=_packets(counters, Counter.BLOCKED),
            busy_permille=self._busy_permille(),
            # In turn: both are more than a heartbeat has room for.
            celsius=None if self._seq % 2 else status.celsius,
            millivolts=status.millivolts if self._seq % 2 else None,
        )

    def _busy_permille(self) -> int:
        """Return the processors' use since the last heartbeat; the first one tells it since power-on."""
        busy, total = vitals.processor_ticks(self._config.paths.proc)
        busy_before, total_before = self._ticks
        self._ticks = (busy, total)
        if total <= total_before or busy < busy_before:
            return 0
        return min(1000, 1000 * (busy - busy_before) // (total - total_before))

    def _on_status(self, status: Status) -> None:
        if status.connected and not self._connected:
            self._connects.set()
        self._connected = status.connected

    def _counters(self) -> Mapping[Counter, Count]:
        try:
            return self._gate.counters()
        except AgentError as err:
            logger.debug("no counters from the gate: %s", err)
            return {}


def _packets(counters: Mapping[Counter, Count], counter: Counter) -> int:
    count = counters.get(counter)
    return 0 if count is None else count.packets
