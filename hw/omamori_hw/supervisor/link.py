"""Talks with the supervisor: reports that the box forwards, makes requests, hears events.

One thread owns the line. It reports in fixed intervals, resends requests until they are answered, opens the line
again when it broke, and never raises: a box whose supervisor is silent works on, and `is_up` says so.

Rules:
- A report is a lease (`lease_ms`), renewed three times within its length. What the box says of itself comes from
  `say`; before the first call it is STARTING, and the supervisor leaves the wire past the box.
- A request has a number and is done once, however often it is repeated.
- Nothing the supervisor sends is believed beyond its ranges; what is no message is counted.
"""

import logging
import secrets
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omamori_hw.errors import BadMessageError, LinkLostError, NoAnswerError, RefusedError
from omamori_hw.supervisor import messages
from omamori_hw.supervisor.frames import Decoder, encode
from omamori_hw.supervisor.line import Line, open_line
from omamori_hw.supervisor.messages import Ask, BoxState, EventKind, Kind, Reason, Result, Show, Status, Welcome
from omamori_hw.supervisor.telemetry import Measurement, resolve

logger = logging.getLogger(__name__)
MAX_EVENTS = 64


@dataclass(frozen=True)
class LinkConfig:
    """How the link is run.

    Attributes:
        device: Terminal device or unix socket.
        version: The box's firmware version, up to 32 letters, for the supervisor's log.
        lease_ms: How long one report counts.
        answer_s: How long a request waits for its answer.
        resend_s: After which time a request is repeated.
        reopen_s: How long a broken line rests before it is opened again.
        silent_s: The link counts as down when nothing was heard for so long.
        boot: Number of this boot of the box; another one tells the supervisor that the box restarted. `kernel_boot`
            gives the right one; None stands for a random one, as if each link were a boot.
    """

    device: Path
    version: str
    lease_ms: int = 150
    answer_s: float = 3.0
    resend_s: float = 0.2
    reopen_s: float = 1.0
    silent_s: float = 5.0
    boot: int | None = None


def kernel_boot(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> int:
    """Return a number that is the same for every link of one boot of this machine.

    Raises:
        LinkLostError: The kernel does not tell.
    """
    try:
        with path.open("rb") as stream:
            return zlib.crc32(stream.read(64))
    except OSError as err:
        raise LinkLostError(f"{path} cannot be read ({err.strerror})") from err


@dataclass
class _Request:
    """A request or query on its way."""

    body: bytes
    number: int | None
    answer: Kind
    done: threading.Event = field(default_factory=threading.Event)
    values: list[Any] = field(default_factory=list)
    next_at: float = 0.0


class SupervisorLink:
    """The link; `start` begins, `stop` ends it. Everything may be called from any thread."""

    def __init__(
        self,
        config: LinkConfig,
        *,
        open_: Callable[[Path], Line] = open_line,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember how to talk; nothing is opened yet.

        Args:
            config: The link's configuration.
            open_: Opens the line.
            clock: Seconds that only grow.
        """
        self._config = config
        self._open = open_
        self._clock = clock
        self._boot = secrets.randbelow(1 << 32) if config.boot is None else config.boot
        self._state = BoxState.STARTING
        self._decoder = Decoder()
        self._sequence = secrets.randbelow(1 << 16)
        self._number = secrets.randbelow(1 << 16)
        self._requests: list[_Request] = []
        self._events: deque[tuple[EventKind, int]] = deque(maxlen=MAX_EVENTS)
        self._welcome: Welcome | None = None
        self._heard_at: float | None = None
        self._unknown = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._urgent = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to talk, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="supervisor-link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; without further reports the supervisor leads the wire past the box."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def say(self, state: BoxState) -> None:
        """Set what is reported from now on."""
        self._state = state
        self._urgent.set()

    @property
    def is_up(self) -> bool:
        """Say whether the supervisor was heard lately."""
        heard = self._heard_at
        return heard is not None and self._clock() - heard < self._config.silent_s

    @property
    def welcome(self) -> Welcome | None:
        """How the supervisor introduced itself last, or None before it did."""
        return self._welcome

    @property
    def unknown(self) -> int:
        """How many whole frames were no message."""
        return self._unknown

    @property
    def decoder(self) -> Decoder:
        """The decoder, for its counters."""
        return self._decoder

    def take_events(self) -> list[tuple[EventKind, int]]:
        """Return the events since the last call, oldest first; beyond 64 the oldest are lost."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def announce(self, reason: Reason, quiet_s: int) -> None:
        """Say that the box will be silent; the wire goes past it at once.

        Args:
            reason: Why.
            quiet_s: How long that may take, 1 to 900 seconds.

        Raises:
            NoAnswerError: No answer came.
            RefusedError: The supervisor refused.
        """
        self._request(Kind.ANNOUNCE, int(reason), quiet_s)

    def pass_by(self, seconds: int) -> None:
        """Lead the wire past the box for some time, or with 0 end that.

        Raises:
            NoAnswerError: No answer came.
            RefusedError: The owner decided otherwise, with the button.
        """
        self._request(Kind.WIRE, seconds)

    def show(self, show: Show, seconds: int) -> None:
        """Let the lamp show the result of an update for some time.

        Raises:
            NoAnswerError: No answer came.
        """
        self._request(Kind.SHOW, int(show), seconds)

    def set_code(self, code: int) -> None:
        """Set the diagnosis code that is shown while all else is well; 0 for the supervisor's own.

        Raises:
            NoAnswerError: No answer came.
        """
        self._request(Kind.CODE, code)

    def reset_box(self) -> None:
        """Have the box reset, as by its reset button.

        Raises:
            NoAnswerError: No answer came (perhaps because it was done).
            RefusedError: It was asked for too often.
        """
        self._request(Kind.RESET)

    def settle(self, *, boot_s: int, silence_s: int, resets: int) -> None:
        """Set how patient the supervisor is.

        Args:
            boot_s: How long the box may take to forward after a start, 30 to 1800 seconds.
            silence_s: How long it may be silent before it is reset, 5 to 600 seconds.
            resets: How many resets are tried, 1 to 9.

        Raises:
            NoAnswerError: No answer came.
        """
        self._request(Kind.SETTINGS, boot_s, silence_s, resets)

    def status(self) -> Status:
        """Ask for the supervisor's status.

        Raises:
            NoAnswerError: No answer came.
        """
        return messages.status(self._query(Ask.STATUS, Kind.STATUS))

    def telemetry(self) -> dict[str, Measurement]:
        """Ask for measurements.

        Raises:
            NoAnswerError: No answer came.
            BadMessageError: The answer is no pack of measurements.
        """
        return resolve(self._query(Ask.TELEMETRY, Kind.TELEMETRY)[0])

    def _request(self, kind: Kind, *values: int) -> None:
        with self._lock:
            self._number = (self._number + 1) & 0xFFFF
            number = self._number
        result = self._wait(_Request(messages.build(kind, number, *values), number, Kind.ANSWER))[1]
        if result != Result.DONE:
            raise RefusedError(kind.name, result)

    def _query(self, ask: Ask, answer: Kind) -> list[Any]:
        return self._wait(_Request(messages.build(Kind.QUERY, int(ask)), None, answer))

    def _wait(self, request: _Request) -> list[Any]:
        with self._lock:
            self._requests.append(request)
        self._urgent.set()
        answered = request.done.wait(self._config.answer_s)
        with self._lock:
            if request in self._requests:
                self._requests.remove(request)
        if not answered:
            raise NoAnswerError("the supervisor does not answer")
        return request.values

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._open(self._config.device) as line:
                    self._talk(line)
            except LinkLostError as err:
                logger.debug("supervisor: %s", err)
                self._stopping.wait(self._config.reopen_s)

    def _talk(self, line: Line) -> None:
        self._send(line, messages.build(Kind.HELLO, messages.PROTOCOL, self._boot, self._config.version[:32]))
        interval = self._config.lease_ms / 3000
        report_at = self._clock()
        hello_at = report_at + 1.0
        while not self._stopping.is_set():
            now = self._clock()
            if self._urgent.is_set() or now >= report_at:
                self._urgent.clear()
                report_at = now + interval
                self._send(line, messages.build(Kind.REPORT, int(self._state), self._config.lease_ms))
            if self._welcome is None and now >= hello_at:
                hello_at = now + 1.0
                self._send(line, messages.build(Kind.HELLO, messages.PROTOCOL, self._boot, self._config.version[:32]))
            self._resend(line, now)
            data = line.read(min(report_at - self._clock(), interval))
            if data:
                self._hear(data)

    def _resend(self, line: Line, now: float) -> None:
        with self._lock:
            due = [request for request in self._requests if now >= request.next_at]
        for request in due:
            request.next_at = now + self._config.resend_s
            self._send(line, request.body)

    def _send(self, line: Line, body: bytes) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        line.write(encode(self._sequence, body))

    def _hear(self, data: bytes) -> None:
        for body in self._decoder.feed(data):
            try:
                kind, values = messages.parse(body)
            except BadMessageError:
                self._unknown += 1
                continue
            self._heard_at = self._clock()
            self._take(kind, values)

    def _take(self, kind: Kind, values: list[Any]) -> None:
        with self._lock:
            if kind is Kind.EVENT:
                self._events.append((EventKind(values[0]), values[1]))
            elif kind is Kind.WELCOME:
                self._welcome = messages.welcome(values)
            for request in self._requests:
                if request.answer is kind and request.number in {None, values[0]} and not request.done.is_set():
                    request.values = values
                    request.done.set()
                    if request.number is not None:
                        break
