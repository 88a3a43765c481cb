"""Brings the box to the firmware that it shall run, one step at a time, and judges a firmware on trial.

`machine.next_step` says what is to be done; here it is done, and every state is on disk before its work begins. What
ends early goes on where it was: at the next step, at the next start of the agent, or after the next start of the box.
Nothing here stands in the way of traffic but the one restart.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence

from omamori_agent.backoff import Backoff
from omamori_agent.config import AgentConfig
from omamori_agent.errors import SetupError, TransientError
from omamori_agent.ports import Clock
from omamori_agent.status import StatusBoard
from omamori_agent.text import clean_text
from omamori_protocol.desired import FirmwareSettings
from omamori_protocol.firmware_release import Importance
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState

from .errors import UpdateInterruptedError, UpdateRefusedError, UpdateWaitsError
from .fetch import BundleFetcher, DeltaUnusableError, choose_payload
from .floor import judge_release
from .health_gate import Health, HealthGate, Verdict
from .installer import SlotInstaller
from .limits import FirmwareLimits
from .machine import BootFacts, Step, is_refused_by_owner, may_try_again, next_step, observe
from .part import FirmwareDesk
from .record import MAX_DETAIL_LENGTH, Record
from .release import PayloadTarget
from .report import FirmwareReporter
from .restart import RestartTimer
from .sources import Source, look_up
from .store import FirmwareStore
from .stream import RateCap, waiter

logger = logging.getLogger(__name__)

_S = FirmwareState
_R = FirmwareReason
_BYTES_OF_KBIT = 125
# Told as an event when they begin; the others may come and go with the network.
_NEWS = frozenset({_R.METADATA_EXPIRED, _R.NEEDS_PERMISSION, _R.OWNER_REFUSES, _R.NO_SPACE, _R.CLOCK_UNKNOWN})


class FirmwareWorker:
    """`ports.Worker` of firmware updates.

    Args:
        config: Who the box is and what runs.
        store: What is remembered.
        desk: What the box shall run.
        load_facts: Reads what is true about this boot; raises `SetupError`.
        sources: Where releases come from, the repository last.
        fetcher: Makes the bundle.
        installer: The slots.
        probe: Looks at the box's health; told whether the box had an identity.
        restart: Decides when, and restarts.
        make_reporter: Makes the reporter for a boot.
        status: Whether the broker is reached.
        clock: Time.
        boottime_s: Returns seconds since power-on.
        roothash: Root hash of the running image, hexadecimal; empty if it is not known.
        limits: Bounds and intervals.
    """

    name = "firmware"

    def __init__(
        self,
        *,
        config: AgentConfig,
        store: FirmwareStore,
        desk: FirmwareDesk,
        load_facts: Callable[[], BootFacts],
        sources: Sequence[Source],
        fetcher: BundleFetcher,
        installer: SlotInstaller,
        probe: Callable[[threading.Event, bool], Health],
        restart: RestartTimer,
        make_reporter: Callable[[BootFacts], FirmwareReporter],
        status: StatusBoard,
        clock: Clock,
        boottime_s: Callable[[], float],
        roothash: str,
        limits: FirmwareLimits,
    ) -> None:
        self._config = config
        self._running = config.release.version
        self._store = store
        self._desk = desk
        self._load_facts = load_facts
        self._sources = sources
        self._fetcher = fetcher
        self._installer = installer
        self._probe = probe
        self._restart = restart
        self._make_reporter = make_reporter
        self._status = status
        self._clock = clock
        self._boottime_s = boottime_s
        self._roothash = roothash
        self._limits = limits
        self._backoff = Backoff(limits.retry_first_s, limits.retry_cap_s)
        self._facts: BootFacts | None = None
        self._reporter: FirmwareReporter | None = None
        self._gate: HealthGate | None = None
        self._due_s = 0.0
        self._spoilt: set[str] = set()  # releases whose difference has not fitted
        self._is_activated = False
        self._present: list[bool] = []

    @property
    def record(self) -> Record:
        """How far it is."""
        return self._store.record

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`."""
        self.start()
        while not stop.is_set():
            try:
                self.step(stop)
            except (TransientError, OSError) as err:
                logger.warning("firmware: %s", err)
                self._due_s = self._clock.monotonic() + self._backoff.next_s()
            self._desk.changed.wait(self._limits.poll_s)

    def start(self) -> None:
        """Find out what is true after this start, and bring the record to it.

        Raises:
            SetupError: The data partition cannot be used.
        """
        self._store.load()
        try:
            facts = self._load_facts()
        except SetupError as err:
            logger.warning("no firmware updates: %s", err)
            return
        self._facts = facts
        self._present = [source.is_there() for source in self._sources]
        self._reporter = self._make_reporter(facts)
        record = observe(self.record, facts)
        if record.state is _S.ROLLED_BACK and not may_try_again(record, self._limits.trials):
            record = record.with_refused()
        if record.state is _S.ROLLED_BACK and self.record.state is not _S.ROLLED_BACK:
            self._due_s = self._clock.monotonic() + self._limits.trial_pause_s
        if not facts.is_trial:
            self._store.raise_floor(self._running, self._config.release.security_epoch)
        self._remember(record)
        if record.state is _S.COMMITTED or record.refusal(record.version) is not None:
            self._store.discard()
        self._show()

    def step(self, stop: threading.Event) -> None:
        """Do what is next."""
        if self._desk.changed.is_set():
            self._desk.changed.clear()
            self._backoff.reset()
            self._due_s = 0.0
        if self._facts is None:
            return
        self._tell()
        is_known, wanted = self._desk.wanted()
        if not is_known and self.record.state is not _S.TRYING:
            return  # nobody has said yet what the box shall be
        step = next_step(self.record, wanted, self._running, self._limits.trials)
        if step is Step.JUDGE:
            self._judge(stop)
        elif step in {Step.TAKE_BACK, Step.HOLD}:
            self._withdraw(step)
        elif step is Step.RESTART and wanted is not None:
            self._await_restart(wanted)
        elif step is not Step.REST and wanted is not None and self._is_due():
            self._go_on(step, wanted, stop)
        self._tell()
        self._show()

    def _is_due(self) -> bool:
        present = [source.is_there() for source in self._sources]
        if present != self._present:  # a stick has come: whatever we waited for, look now
            self._present = present
            self._due_s = 0.0
        return self._clock.monotonic() >= self._due_s

    def _go_on(self, step: Step, wanted: FirmwareSettings, stop: threading.Event) -> None:
        try:
            if step is Step.INSTALL:
                self._install(stop)
            else:
                self._fetch(wanted, stop)
        except UpdateInterruptedError as err:
            logger.info("firmware: %s", err)
        except UpdateWaitsError as err:
            self._wait_because(err.reason, str(err))
        except UpdateRefusedError as err:
            self._fail(wanted.version, err.reason, str(err))

    def _fetch(self, wanted: FirmwareSettings, stop: threading.Event) -> None:
        """Look the release up, fetch and verify it."""
        version = wanted.version
        self._adopt(version)
        source, release = look_up(self._sources, version)
        judge_release(release, board=self._config.release.board, running=self._running, floor=self._store.floor)
        record = dataclasses.replace(self.record, is_important=release.importance is Importance.IMPORTANT)
        if is_refused_by_owner(record, wanted):
            raise UpdateWaitsError(_R.OWNER_REFUSES, "the owner takes important updates only")
        if record.state is not _S.DOWNLOADING:
            record = record.move(_S.DOWNLOADING, is_told=False)
        self._remember(dataclasses.replace(record, sha256=release.bundle.sha256, length=release.bundle.length))
        self._tell()
        self._show()
        payload = choose_payload(
            release,
            running=self._running,
            metered=wanted.metered,
            can_use_delta=release.bundle.sha256 not in self._spoilt,
            is_free=source.is_free,
        )
        try:
            target = source.repository.payload(release, payload)
            self._check_base(target)
            cap = RateCap(0 if source.is_free else wanted.rate_kbps * _BYTES_OF_KBIT, waiter(stop, self._desk.changed))
            self._fetcher.obtain(target, payload, source.stream, cap, stop)
        except DeltaUnusableError as err:
            logger.warning("firmware %s: the difference cannot be used: %s", version, err)
            self._spoilt.add(release.bundle.sha256)
            return  # at the next step, the whole one, if that is allowed
        self._backoff.reset()
        self._remember(self.record.move(_S.VERIFIED, is_told=False))

    def _check_base(self, target: PayloadTarget) -> None:
        if target.index.base and not self._fetcher.can_refer():
            raise DeltaUnusableError("what runs cannot be read")
        if target.index.base and target.index.base_roothash != _digest(self._roothash):
            raise DeltaUnusableError("it refers to another build of the running version")

    def _adopt(self, version: str) -> None:
        """Let the record be about this firmware."""
        if self.record.version == version:
            return
        self._remember(Record(version=version, refused=self.record.refused, boot_id=self._boot_id))

    def _install(self, stop: threading.Event) -> None:
        """Write the other slot and prepare its trial."""
        record = self.record
        if not self._fetcher.is_whole(record.sha256, record.length, stop):
            self._remember(record.move(_S.DOWNLOADING))
            return
        if record.state is _S.VERIFIED:
            record = record.move(_S.INSTALLING, installs=record.installs + 1, boot_id=self._boot_id, is_told=False)
            self._remember(record)
            self._tell()
            self._show()
        self._installer.install(self._store.bundle, stop)
        # Written first: after a power cut right behind the activation, the box starts the trial.
        self._remember(
            record.move(
                _S.REBOOT_PENDING,
                boot_id=self._boot_id,
                waited_s=0,
                was_connected=self._status.get().connected,
                is_told=False,
            )
        )
        self._restart.begin(0)
        self._installer.activate()
        self._is_activated = True
        self._backoff.reset()

    def _await_restart(self, wanted: FirmwareSettings) -> None:
        if not self._is_activated:  # the agent was restarted, and nobody knows how far it had come
            if not self._is_due():
                return
            try:
                self._installer.activate()
            except UpdateWaitsError as err:
                self._wait_because(err.reason, str(err))
                return
            self._is_activated = True
            self._restart.begin(self.record.waited_s)
        reason, detail = self._restart.look(wanted)
        if reason is None:
            if not self._restart.is_request_due():
                return
            self._remember(self._noted(self.record, self.record.reason, self.record.detail))
            logger.warning("firmware %s: restarting the box for its trial", self.record.version)
            self._restart.request()
            return
        if self._restart.is_note_due() or reason is not self.record.reason:
            self._remember(self._noted(self.record, reason, detail))

    def _noted(self, record: Record, reason: FirmwareReason, detail: str) -> Record:
        connected = self._status.get().connected
        record = dataclasses.replace(record, waited_s=int(self._restart.waited_s()), was_connected=connected)
        return self._reasoned(record, reason, detail)

    def _withdraw(self, step: Step) -> None:
        record = self.record
        if record.state is _S.REBOOT_PENDING:
            self._installer.deactivate()
            self._is_activated = False
        if step is Step.HOLD:
            text = "the owner takes important updates only"
            self._remember(record.move(_S.VERIFIED, reason=_R.OWNER_REFUSES, detail=text, is_told=False))
            return
        self._remember(record.move(_S.IDLE, reason=_R.SUPERSEDED, is_told=False))
        self._store.discard()

    def _judge(self, stop: threading.Event) -> None:
        record = self.record
        if record.verdict is not _R.NONE:
            if self._restart.is_request_due():
                self._end_trial()
            return
        if self._clock.monotonic() < self._due_s:
            return
        self._due_s = self._clock.monotonic() + self._limits.health_poll_s
        if self._gate is None:
            self._gate = HealthGate(
                settle_s=self._limits.health_settle_s,
                deadline_s=self._limits.health_deadline_s,
                needs_cloud=record.was_connected,
            )
        verdict = self._gate.look(self._probe(stop, record.was_connected), self._boottime_s())
        if verdict is Verdict.KEEP:
            self._installer.commit()
            self._store.raise_floor(self._running, self._config.release.security_epoch)
            self._remember(record.move(_S.COMMITTED, is_told=False))
            self._store.discard()
            logger.warning("firmware %s is kept", self._running)
        elif verdict is Verdict.GIVE_UP:
            problem = self._gate.problem
            detail = f"not well {self._limits.health_deadline_s:.0f} s after the start"
            self._remember(dataclasses.replace(record, verdict=problem, detail=detail))
            logger.warning("firmware %s is given up: %s", self._running, problem.word)
            self._end_trial()

    def _end_trial(self) -> None:
        """Restart into the firmware before; what that costs to prepare must not keep the box here."""
        try:
            self._installer.reject()
        except UpdateWaitsError as err:
            logger.warning("firmware: %s", err)  # without it, the next start is the committed slot just the same
        self._restart.request()

    def _wait_because(self, reason: FirmwareReason, detail: str) -> None:
        """Take note of why it does not go on, and try again later."""
        if reason is _R.UNREACHABLE and not self._restart.is_clock_known():
            # No certificate is valid in 1970: it is the clock that somebody has to look after, not the network.
            reason, detail = _R.CLOCK_UNKNOWN, f"the time of day is not known, no server can be believed: {detail}"
        is_slow = reason in _NEWS and reason is not _R.CLOCK_UNKNOWN
        pause_s = self._limits.refused_retry_s if is_slow else self._backoff.next_s()
        self._due_s = self._clock.monotonic() + pause_s
        record = self.record
        logger.info("firmware %s waits: %s", record.version, detail)
        if record.state is _S.INSTALLING or reason is _R.ACTIVATION_FAILED:
            self._fail(record.version, reason, detail)
        elif record.state not in {_S.FAILED, _S.ROLLED_BACK}:  # these keep their own reason
            self._remember(self._reasoned(record, reason, detail))

    def _reasoned(self, record: Record, reason: FirmwareReason, detail: str) -> Record:
        is_news = reason is not record.reason and reason in _NEWS
        detail = clean_text(detail, MAX_DETAIL_LENGTH)
        return dataclasses.replace(record, reason=reason, detail=detail, is_told=record.is_told and not is_news)

    def _fail(self, version: str, reason: FirmwareReason, detail: str) -> None:
        self._adopt(version)
        record = self.record
        detail = clean_text(detail, MAX_DETAIL_LENGTH)
        is_new = record.state is not _S.FAILED or reason is not record.reason
        self._due_s = self._clock.monotonic() + self._limits.refused_retry_s
        record = record.move(_S.FAILED, reason=reason, detail=detail, is_told=record.is_told and not is_new)
        if not may_try_again(record, self._limits.trials) or record.installs >= self._limits.installs:
            record = record.with_refused()
            self._store.discard()
        self._remember(record)

    @property
    def _boot_id(self) -> str:
        return self._facts.boot_id if self._facts is not None else ""

    def _remember(self, record: Record) -> None:
        self._store.remember(record)

    def _tell(self) -> None:
        if not self.record.is_told and self._reporter is not None and self._reporter.tell(self.record):
            self._remember(dataclasses.replace(self.record, is_told=True))

    def _show(self) -> None:
        record = self.record
        if self._reporter is not None:
            self._reporter.show(record)
        self._desk.show(record, self._running, is_final=record.refusal(record.version) is not None)


def _digest(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) or None
    except ValueError:
        return None
