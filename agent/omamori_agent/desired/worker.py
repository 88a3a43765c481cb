"""The worker that takes documents and commands, and sees to it that the box is as it shall be.

A document is judged whole, then written down, then applied part by part. From then on it rules the box: the parts are
applied again at each start, without the cloud. What became of it goes to the cloud as one retained `Reported`. A
document that is refused changes nothing; it is told once, and who sends many is not told each time.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from omamori_agent.errors import TransientError
from omamori_agent.ports import Clock, Outbox
from omamori_agent.text import clean_text
from omamori_protocol.desired import FirmwareWindow
from omamori_protocol.messages import Event
from omamori_protocol.reported import MAX_REASON_LENGTH, PartName, PartState, Reported
from omamori_protocol.vocabulary import EventKind, Severity

from .bypass import Bypass
from .commands import Commands
from .diagnostics import DiagnosticsAnswer
from .errors import CommandRefusedError, DocumentRefusedError
from .limits import DesiredLimits
from .progress import Progress
from .store import DesiredStore, InForce, Refusal
from .verify import digest, judge_document, open_document

logger = logging.getLogger(__name__)

_MAX_TEXT_LENGTH = 300
_MAX_PENDING_EVENTS = 32


class EventDesk:
    """Puts lines into the outbox; while it does not take any, the newest few wait.

    Args:
        outbox: Where events go.
        clock: Their time.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._pending: list[Event] = []

    def tell(self, text: str, severity: Severity = Severity.ONE) -> None:
        """Take a line; it is logged, too."""
        logger.warning("%s", text)
        event = Event(
            boot=0,
            seq=0,
            at_ms=int(self._clock.now() * 1000),
            kind=EventKind.SYSTEM,
            severity=severity,
            text=clean_text(text, _MAX_TEXT_LENGTH),
        )
        self._pending = [*self._pending, event][-_MAX_PENDING_EVENTS:]
        self.flush()

    def flush(self) -> None:
        """Try again to get rid of what waits."""
        if not self._pending:
            return
        try:
            self._outbox.put(self._pending)
        except TransientError as err:
            logger.debug("events wait: %s", err)
        else:
            self._pending = []


class Budget:
    """At most `count` in any `window_s` seconds."""

    def __init__(self, count: int, window_s: float, clock: Clock) -> None:
        self._times: deque[float] = deque(maxlen=count)
        self._window_s = window_s
        self._clock = clock

    def spend(self) -> bool:
        """Take one; returns False if there is none left."""
        now_s = self._clock.monotonic()
        if len(self._times) == self._times.maxlen and now_s - self._times[0] < self._window_s:
            return False
        self._times.append(now_s)
        return True


class DesiredWorker:
    """`ports.Worker` of desired state and commands.

    Args:
        device: The box's id.
        keys: Keys that may sign documents; with none, every document is refused.
        store: The files.
        progress: The parts.
        commands: Does commands.
        bypass: Its end is part of the report.
        events: Where lines for the cloud go.
        clock: Time.
        limits: Bounds and intervals.
        dues: Parts that change by themselves: asked each time whether one has to be applied again.
    """

    name = "desired"

    def __init__(
        self,
        *,
        device: str,
        keys: Sequence[Ed25519PublicKey],
        store: DesiredStore,
        progress: Progress,
        commands: Commands,
        bypass: Bypass,
        events: EventDesk,
        clock: Clock,
        limits: DesiredLimits,
        dues: Mapping[PartName, Callable[[], bool]],
    ) -> None:
        self._device = device
        self._keys = keys
        self._store = store
        self._progress = progress
        self._commands = commands
        self._bypass = bypass
        self._events = events
        self._clock = clock
        self._limits = limits
        self._dues = dues
        self._budget = Budget(limits.refusals, limits.refusals_per_s, clock)
        self._untold = 0
        self._retry_s = 0.0
        self._retry_at_s = 0.0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._document: bytes | None = None
        self._waiting: deque[bytes] = deque(maxlen=limits.max_waiting_commands)
        self._in_force: InForce | None = None
        self._command: tuple[bytes, PartState, str | None] | None = None
        self._report: Reported | None = None
        self._encoded: bytes | None = None
        self._listeners: list[Callable[[], None]] = []
        self._told: set[tuple[int, PartName, str]] = set()

    # From other threads.

    def offer_document(self, signed: bytes) -> None:
        """Take a document that was delivered; returns at once. Only the newest one waits."""
        if not signed:
            return  # somebody removed the retained document; what was accepted stays in force
        with self._lock:
            self._document = signed
        self._wake.set()

    def offer_command(self, signed: bytes) -> None:
        """Take a command that was delivered; returns at once. When too many wait, the oldest are dropped."""
        with self._lock:
            if len(self._waiting) == self._waiting.maxlen:
                logger.warning("too many commands at once; one is dropped")
            self._waiting.append(signed)
        self._wake.set()

    def reported(self) -> bytes | None:
        """Return the report to retain at the broker, or None before the first."""
        return self._encoded

    @property
    def version(self) -> int:
        """Version of the document in force; 0 without one."""
        return self._in_force.document.version if self._in_force else 0

    def window(self) -> FirmwareWindow | None:
        """Return when the box may restart by the document in force; None if it does not say."""
        firmware = self._in_force.document.firmware if self._in_force else None
        return firmware.window if firmware is not None else None

    @property
    def jobs(self) -> DiagnosticsAnswer:
        """Answers to commands that wait to be sent."""
        return self._commands.jobs

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the report has changed; it must not block."""
        self._listeners.append(listener)

    # The worker's own thread.

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`."""
        self.start()
        while not stop.is_set():
            self.step()
            self._wake.wait(self._limits.poll_s)

    def start(self) -> None:
        """Take up what was in force."""
        self._in_force = self._store.load(self._keys, self._device)
        self._commands.load()
        if self._in_force is not None:
            logger.info("desired state %d is in force", self.version)
            self._progress.begin()

    def step(self) -> None:
        """Look at what was delivered, at the parts and at ends."""
        self._wake.clear()
        with self._lock:
            document = None
            if self._clock.monotonic() >= self._retry_at_s:
                document, self._document = self._document, None
            waiting = list(self._waiting)
            self._waiting.clear()
        if document is not None:
            self._take_document(document)
        for command in waiting:
            self._take_command(command)
        self._commands.tend()
        if self._in_force is not None:
            for name, is_due in self._dues.items():
                if is_due():
                    self._progress.again(name)
            if self._progress.step(self._in_force.document):
                self._tell_parts(self._in_force.document.version)
        self._events.flush()
        self._publish()

    def _take_document(self, signed: bytes) -> None:
        if self._in_force is not None and signed == self._in_force.signed:
            return  # the broker delivers the retained one at each connection
        try:
            document = open_document(signed, self._keys, self._device)
            judge_document(document, floor=self._store.floor, now_s=self._clock.now())
            self._in_force = self._store.accept(document, signed)
        except DocumentRefusedError as err:
            self._refuse(digest(signed), err)
            return
        except TransientError as err:
            if self._retry_s == 0:
                logger.warning("%s", err)
            self._retry_s = min(self._limits.retry_cap_s, max(self._limits.poll_s, self._retry_s * 2))
            self._retry_at_s = self._clock.monotonic() + self._retry_s
            with self._lock:
                self._document = self._document or signed  # unless a newer one has come meanwhile
            return
        self._retry_s = 0.0
        self._events.tell(f"desired state {document.version} accepted")
        self._told.clear()
        self._progress.begin()

    def _refuse(self, mark: bytes, err: DocumentRefusedError) -> None:
        """Tell a refusal, once: the broker delivers the retained document at each connection.

        It was judged again all the same: the clock, or the keys of a newer image, may have changed the answer.
        """
        told = self._store.refusal
        if told is not None and told.digest == mark:
            return
        if not self._budget.spend():
            self._untold += 1
            logger.debug("desired state refused: %s", err)
            return
        more = f" ({self._untold} more were refused before)" if self._untold else ""
        self._untold = 0
        reason = clean_text(str(err), MAX_REASON_LENGTH)
        self._store.remember_refusal(Refusal(mark, err.version, reason))
        self._events.tell(f"desired state refused: {reason}{more}", Severity.TWO)

    def _take_command(self, signed: bytes) -> None:
        try:
            command = self._commands.take(signed)
        except CommandRefusedError as err:
            if not self._budget.spend():
                self._untold += 1
                return
            reason = clean_text(str(err), MAX_REASON_LENGTH)
            if err.command_id is not None:
                self._command = (err.command_id, PartState.REFUSED, reason)
            self._events.tell(f"command refused: {reason}", Severity.TWO)
            return
        if command is not None:
            self._command = (command.command_id, PartState.APPLIED, None)

    def _tell_parts(self, version: int) -> None:
        for item in self._progress.reports():
            if item.state is PartState.REFUSED:
                mark = (version, item.part, item.reason or "")
                if mark not in self._told:
                    self._told.add(mark)
                    self._events.tell(f"desired state {version}: {item.part.word} refused: {item.reason}", Severity.TWO)

    def _publish(self) -> None:
        left_s = self._bypass.passing_s()
        refusal = self._store.refusal
        self._command = self._commands.outcome(self._command[0] if self._command else None) or self._command
        number, state, reason = self._command or (None, None, None)
        until_s = self._report.bypass_until_s if self._report is not None else None
        if left_s <= 0:
            until_s = None
        else:
            # The two clocks drift; a second or two of difference is no news.
            fresh_s = int(self._clock.now() + left_s)
            until_s = fresh_s if until_s is None or abs(fresh_s - until_s) > 2 else until_s
        report = Reported(
            at_s=self._report.at_s if self._report is not None else int(self._clock.now()),
            version=self.version,
            state=self._progress.worst if self._in_force is not None else PartState.NONE,
            parts=self._progress.reports() if self._in_force is not None else (),
            refused_version=refusal.version if refusal is not None else None,
            refused_reason=refusal.reason if refusal is not None else None,
            command_id=number,
            command_state=state,
            command_reason=reason,
            bypass_until_s=until_s,
        )
        if report == self._report:
            return
        if self._report is not None:
            report = dataclasses.replace(report, at_s=int(self._clock.now()))
        self._report = report
        self._encoded = report.encode()
        for listener in self._listeners:
            listener()
