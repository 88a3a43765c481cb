"""Asks for the time soon after the start and a few times a day, and has the clock corrected.

It is in nobody's way: a box that cannot ask goes on with the time it has.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from omamori_agent.backoff import Backoff
from omamori_agent.config import AgentConfig
from omamori_agent.errors import AgentError, TransientError
from omamori_agent.files import write_atomic
from omamori_agent.ports import Outbox
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EventKind

from .files import Wanted, encode_known
from .rules import Correction, Testimony, judge
from .testimony import ask

logger = logging.getLogger(__name__)

_ASK_S = 6 * 3600.0
_JITTER = 0.1
_CONFIRM_S = 15.0  # after a correction: did it help?
_FIRST_RETRY_S, _RETRY_CAP_S = 1.0, 300.0
_KEEP_S = 3600.0
# What a person may want to know: times that the box told before were wrong by more than this.
_TOLD_S = 60.0


class TimeWorker:
    """`ports.Worker` of the clock.

    Args:
        ask_time: Returns what a server says; raises `AgentError` when none answers.
        floor_s: When the running firmware was built.
        wanted: Where a request is left.
        known: Where the last known time is kept.
        outbox: Is told about a clock that was far off.
        report: Prints a line on the console.
        clock_s: The kernel's Unix time.
        boottime_s: Seconds since power-on.
    """

    name = "time"

    def __init__(
        self,
        *,
        ask_time: Callable[[], Testimony],
        floor_s: float,
        wanted: Path,
        known: Path,
        outbox: Outbox,
        report: Callable[[str], None],
        clock_s: Callable[[], float] = time.time,
        boottime_s: Callable[[], float],
    ) -> None:
        self._ask_time = ask_time
        self._floor_s = floor_s
        self._wanted = wanted
        self._known = known
        self._outbox = outbox
        self._report = report
        self._clock_s = clock_s
        self._boottime_s = boottime_s
        self._backoff = Backoff(_FIRST_RETRY_S, _RETRY_CAP_S)
        self._is_right = False
        self._asked_for: Correction | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`."""
        ask_at_s = keep_at_s = self._boottime_s()
        while not stop.is_set():
            now_s = self._boottime_s()
            if now_s >= ask_at_s:
                ask_at_s = now_s + self.step()
                keep_at_s = now_s
            if self._is_right and now_s >= keep_at_s:
                keep_at_s = now_s + _KEEP_S
                self._keep()
            stop.wait(1.0)
        if self._is_right:
            self._keep()

    def step(self) -> float:
        """Ask once and do what follows; returns after how many seconds to ask again."""
        try:
            testimony = self._ask_time()
            correction = judge(testimony, clock_s=self._clock_s(), boottime_s=self._boottime_s(), floor_s=self._floor_s)
        except AgentError as err:
            logger.info("the time is not known: %s", err)
            return self._backoff.next_s()
        self._backoff.reset()
        if correction is None:
            self._is_right = True
            self._tell()
            return _ASK_S * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads a fleet
        self._is_right = False
        self._asked_for = self._asked_for or correction
        try:
            write_atomic(self._wanted, Wanted(correction.unix_s, correction.boottime_s).encode())
        except OSError as err:
            logger.warning("the clock is %.0f s off and cannot be set: %s", correction.offset_s, err)
        return _CONFIRM_S

    def _tell(self) -> None:
        """Say that the clock has been set, once it is right."""
        if self._asked_for is None:
            return
        offset_s, self._asked_for = self._asked_for.offset_s, None
        text = f"clock set: it was {abs(offset_s):.0f} s {'slow' if offset_s > 0 else 'fast'}"
        self._report(text)
        if abs(offset_s) < _TOLD_S:
            return
        event = Event(boot=0, seq=0, at_ms=int(self._clock_s() * 1000), kind=EventKind.SYSTEM, text=text)
        try:
            self._outbox.put([event])
        except TransientError as err:
            logger.warning("not on record: %s: %s", text, err)

    def _keep(self) -> None:
        try:
            write_atomic(self._known, encode_known(self._clock_s()))
        except OSError as err:
            logger.warning("the time is not kept: %s", err)


def build(
    config: AgentConfig, outbox: Outbox, *, report: Callable[[str], None], boottime_s: Callable[[], float]
) -> TimeWorker:
    """Make the worker of a box."""
    provision = config.provision

    def ask_time() -> Testimony:
        return ask(provision.repository_url, str(config.paths.service_ca), proxy=provision.proxy, boottime_s=boottime_s)

    return TimeWorker(
        ask_time=ask_time,
        floor_s=config.release.build_time,
        wanted=config.paths.time_wanted,
        known=config.paths.time_known,
        outbox=outbox,
        report=report,
        boottime_s=boottime_s,
    )
