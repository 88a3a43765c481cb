"""Brings a stored feed to engine and gate, or brings the one before back.

Order of an activation, and what a kill or a power cut leaves:

1. The engine's own test, if rules, digests or names of lists differ.           nothing has changed
2. The transition is written down; the gate gets its block list.                `current` is the old feed
3. The link is switched.                                                        `current` is the new feed
4. The engine: entries of lists over its socket, reload or restart if needed.   the transition says: look again
5. It has to stay healthy for a while, and to notice the canary if it did so
   before; then the transition ends.                                            done

`reconcile` ends what a kill left: it repeats step 4, whose every part may be repeated, and step 5. If step 4 or 5
fails, the serial is quarantined first, then the same steps lead back. So they do when the engine dies again and again
(`watch_over`), during an activation or within an hour after it: what a rule does to it may show late. An engine that
is not inspecting anyway says nothing about a feed: then step 4 waits, and `reconcile` does it as soon as the engine is
back.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import threading
from collections.abc import Iterator

from omamori_agent.engine import (
    BlockLists,
    EngineControl,
    EngineRefusedError,
    EngineUnavailableError,
    EngineWatch,
    GatePort,
)
from omamori_agent.errors import AgentError, RejectedError, TransientError
from omamori_agent.ports import Clock
from omamori_agent.status import StatusBoard
from omamori_protocol.vocabulary import EngineState

from .block_entries import blocked_lists, entries, entry_changes
from .canary import Canary
from .crash_loop import CrashLoop
from .engine_files import ENGINE_DIRECTORY
from .engine_test import EngineTest
from .errors import ActivationInterruptedError, ActivationRolledBackError, FeedPostponedError, PackRefusedError
from .exclusion import RuleExclusion
from .limits import FeedLimits
from .lists import changes
from .plan import ActivationPlan, make_plan
from .record import Transition
from .store import FeedStore
from .stored import StoredFeed
from .verify import find_difference

logger = logging.getLogger(__name__)

_LEAVE_OUT_RETRY_S = 60.0  # a reload of the engine is work
_DRAIN_S = 0.2  # for what waits in the queues of an engine that is about to be stopped


class Progress(enum.Enum):
    """How far an activation got."""

    DONE = "done"
    WAITING = "waiting for the engine"


class Activator:
    """Runs activations, one at a time, in one thread.

    Args:
        store: The packs.
        control: The engine.
        watch: Told before the engine is restarted on purpose.
        gate: Gets the block list.
        block_lists: Told what the numbers in the block list mean.
        engine_test: Tests a feed without touching the running engine.
        status: Says whether the engine inspects.
        clock: Bounds the waiting.
        limits: Times.
        exclusion: Rules that shall be left out of every feed.
        canary: Proves that the engine matches; None for no such proof.
    """

    def __init__(
        self,
        *,
        store: FeedStore,
        control: EngineControl,
        watch: EngineWatch,
        gate: GatePort,
        block_lists: BlockLists,
        engine_test: EngineTest,
        status: StatusBoard,
        clock: Clock,
        limits: FeedLimits,
        exclusion: RuleExclusion | None = None,
        canary: Canary | None = None,
    ) -> None:
        self._canary = canary
        self._exclusion = exclusion or RuleExclusion()
        self._store = store
        self._control = control
        self._watch = watch
        self._gate = gate
        self._block_lists = block_lists
        self._test = engine_test
        self._status = status
        self._clock = clock
        self._limits = limits
        self._gate_serial: int | None = None
        self._is_gate_missing = False
        self._wait_until_s: float | None = None
        self._must_restart = False
        self._has_switched = False
        self._process_at_switch: int | None = None
        self._is_verified = False
        self._leave_out_at_s = 0.0
        self._crashes = CrashLoop(limits.crashes, limits.crash_window_s)

    @property
    def is_unfinished(self) -> bool:
        """Whether something is left for `reconcile`."""
        if self._store.record.transition is not None or self._gate_serial != self._store.current().serial:
            return True
        if self._crashes.is_looping(self._clock.monotonic()):
            return True
        wanted = self._exclusion.wanted
        if wanted is not None and (wanted != self._exclusion.applied or not self._has_just_left_out(wanted)):
            return True
        return not self._is_verified and self._is_inspecting()

    def watch_over(self) -> bool:
        """Look whether the engine has begun anew; cheap, to be called often. True if it dies again and again."""
        now_s = self._clock.monotonic()
        self._crashes.look(self._watch.process(), now_s)
        return self._crashes.is_looping(now_s)

    def activate(self, new: StoredFeed, stop: threading.Event) -> Progress:
        """Make a stored feed the current one.

        Raises:
            PackRefusedError: Engine or gate would not take it; nothing changed.
            ActivationRolledBackError: It was taken and did not work; the previous one is current again.
            FeedPostponedError: It could not be tested now; nothing changed.
            ActivationInterruptedError: The agent stops; `reconcile` goes on at the next start.
        """
        old = self._store.current()
        is_unclear = self._store.record.transition is not None
        plan = _plan(old, new)
        if is_unclear:
            plan = dataclasses.replace(plan.with_restart(), needs_test=True)
        was_inspecting = self._is_inspecting()
        if plan.needs_test or not was_inspecting:
            self._test.check(new.directory, stop)
        if plan.changes_blocks or self._gate_serial != old.serial:
            self._sync_gate_strictly(new, old)
        else:
            self._block_lists.set(blocked_lists(new.manifest))
            self._gate_serial = new.serial
        transition = Transition(old.serial, new.serial, is_unclear)
        self._store.remember(dataclasses.replace(self._store.record, transition=transition))
        self._switch(new)
        # An engine that was well has to be well again by then; one that was not says nothing about the feed.
        self._wait_until_s = self._clock.monotonic() + self._limits.restart_timeout_s if was_inspecting else None
        return self._finish(plan, old, new, stop) if was_inspecting else Progress.WAITING

    def reconcile(self, stop: threading.Event) -> Progress:
        """Finish what an earlier run or a missing engine or gate left unfinished.

        Raises:
            ActivationRolledBackError: What was begun did not work; the previous feed is current again.
            ActivationInterruptedError: The agent stops.
        """
        current = self._store.current()
        if self._gate_serial != current.serial:
            self._sync_gate(current)
        record = self._store.record
        if self.watch_over():
            self._end_crashes(current, stop)
            record = self._store.record
            current = self._store.current()
        if record.transition is None:
            if self._is_inspecting():
                self._verify(current, stop)
            self._leave_out(current, stop)
            return Progress.DONE
        origin, goal = self._store.get(record.transition.origin), self._store.get(record.transition.goal)
        if goal is not None and current.serial != goal.serial:
            if record.quarantine_reason(record.transition.origin) is None:
                # Written down, but the link was not switched: engine and link are as they were.
                self._store.remember(dataclasses.replace(record, transition=None))
                return Progress.DONE
            self._switch(goal)
            self._sync_gate(goal)
            current = goal
        if not self._is_inspecting():
            return self._wait_on(origin, current, stop)
        plan = _plan(origin if origin is not None else current, current)
        if self._has_begun_since_switch():
            plan = plan.when_loaded()
        elif origin is None or record.transition.is_unclear or self._must_restart:
            plan = plan.with_restart()
        elif plan.restarts and find_difference(self._control, current) is None:
            # It has the lists that only this feed names, so it has started with this feed.
            plan = dataclasses.replace(plan, restarts=False)
        return self._finish(plan, origin, current, stop)

    def _end_crashes(self, current: StoredFeed, stop: threading.Event) -> None:
        """Go back from a feed with which the engine dies again and again, if it is new and there is one to go back to.

        Raises:
            ActivationRolledBackError: The previous feed is current again.
        """
        record = self._store.record
        self._crashes.forget()
        back: int | None
        if record.transition is not None:
            back = record.transition.origin
        else:
            age_s = self._clock.now() - record.activated_s
            # The empty feed is no way back from one that has settled: it protects from nothing.
            back = (record.previous or None) if 0 <= age_s <= self._limits.probation_s else None
        old = self._store.get(back) if back is not None else None
        if old is None or old.serial == current.serial or not self._is_allowed(old):
            logger.warning("the engine dies again and again; feed %d stays, there is no better one", current.serial)
            return
        reason = "the engine dies again and again with this feed"
        self._go_back(old, current, reason, stop)
        raise ActivationRolledBackError(reason)

    def rules_to_leave_out(self) -> frozenset[int]:
        """Return which rules a new feed shall lack; before anybody has said so, those that the current one lacks."""
        wanted = self._exclusion.wanted
        return self._store.current().left_out.rule_ids if wanted is None else wanted

    def _has_just_left_out(self, rule_ids: frozenset[int]) -> bool:
        current = self._store.current()
        return current.serial == 0 or current.left_out.is_just(rule_ids)  # the empty feed has no rules

    def _leave_out(self, current: StoredFeed, stop: threading.Event) -> None:
        """Bring the current feed's rules to what is wanted, and the engine with them.

        Raises:
            TransientError: Not yet; it is tried again after a while.
            OSError: The rules could not be written.
        """
        wanted = self._exclusion.wanted
        if wanted is None:
            return
        if not self._has_just_left_out(wanted):
            if self._clock.monotonic() < self._leave_out_at_s:
                return
            self._leave_out_at_s = self._clock.monotonic() + _LEAVE_OUT_RETRY_S
            changed = self._store.leave_out(current, wanted)
            # An engine that is not there loads the file when it starts.
            if self._is_inspecting():
                self._control.reload_rules(timeout_s=self._limits.reload_timeout_s, stop=stop)
                difference = find_difference(self._control, changed)
                if difference is not None:
                    raise FeedPostponedError(f"leaving out rules: {difference}")
            self._store.confirm_left_out(changed)
            self._leave_out_at_s = 0.0
            logger.info("feed %d: %d rules left out", current.serial, changed.left_out.count)
        self._exclusion.report(wanted)

    def _verify(self, current: StoredFeed, stop: threading.Event) -> None:
        """Once after the start, make sure that the engine holds `current`; if not, a restart lets it load that."""
        if self._is_verified:
            return
        self._is_verified = True
        difference = find_difference(self._control, current)
        if difference is not None:
            logger.warning("feed %d: %s; restarting the engine", current.serial, difference)
            self._restart(stop)

    def _switch(self, feed: StoredFeed) -> None:
        """Make a feed current, and remember which process of the engine may have read the one before."""
        self._store.switch(feed)
        self._has_switched, self._process_at_switch = True, self._watch.process()

    def _has_begun_since_switch(self) -> bool:
        process = self._watch.process()
        return self._has_switched and process is not None and process != self._process_at_switch

    def _is_inspecting(self) -> bool:
        return self._status.get().engine is EngineState.INSPECTING

    def _wait_on(self, old: StoredFeed | None, new: StoredFeed, stop: threading.Event) -> Progress:
        """Wait for the engine, but not for ever if it was well before the change."""
        if self._wait_until_s is None or self._clock.monotonic() < self._wait_until_s:
            return Progress.WAITING
        if old is None or not self._is_allowed(old):
            return Progress.WAITING
        self._wait_until_s = None
        reason = "the engine does not inspect with this feed"
        self._go_back(old, new, reason, stop)
        raise ActivationRolledBackError(reason)

    def _finish(self, plan: ActivationPlan, old: StoredFeed | None, new: StoredFeed, stop: threading.Event) -> Progress:
        """Do steps 4 and 5; on failure lead back to `old`."""
        try:
            self._bring(plan, old, new, stop)
        except AgentError as err:
            if stop.is_set():
                raise ActivationInterruptedError("the agent stops during an activation") from err
            if isinstance(err, EngineUnavailableError) and not (plan.restarts or plan.reloads):
                logger.warning("%s; it will load feed %d when it is back", err, new.serial)
                return Progress.WAITING
            if old is not None and self._is_allowed(old):
                self._go_back(old, new, str(err), stop)
                raise ActivationRolledBackError(str(err)) from err
            # There is nothing better than `new`: a restart is tried once, then the engine keeps what it has.
            logger.warning("feed %d: %s", new.serial, err)
            if not plan.restarts:
                self._must_restart = True
                return Progress.WAITING
        self._must_restart = False
        self._is_verified = True
        record = self._store.record
        previous = old.serial if old is not None else record.previous
        if old is not None and not self._is_allowed(old):
            previous = None
        self._store.remember(
            dataclasses.replace(record, transition=None, previous=previous, activated_s=int(max(0, self._clock.now())))
        )
        self._store.prune()
        return Progress.DONE

    def _is_allowed(self, feed: StoredFeed) -> bool:
        return self._store.record.quarantine_reason(feed.serial) is None

    def _go_back(self, old: StoredFeed, new: StoredFeed, reason: str, stop: threading.Event) -> None:
        """Quarantine `new` and make `old` current again; what fails of that is left to `reconcile`."""
        record = self._store.record.with_quarantined(new.serial, reason)
        logger.warning("going back from feed %d to %d: %s", new.serial, old.serial, reason)
        self._crashes.forget()
        transition = Transition(new.serial, old.serial)
        self._store.remember(dataclasses.replace(record, transition=transition))
        self._switch(old)
        self._sync_gate(old)
        if not self._is_inspecting():
            return
        try:
            self._bring(_plan(new, old), new, old, stop)
        except AgentError as err:
            logger.warning("feed %d is not yet back in the engine: %s", old.serial, err)
            return
        self._store.remember(dataclasses.replace(self._store.record, transition=None, previous=None))
        self._store.prune()

    def _bring(self, plan: ActivationPlan, old: StoredFeed | None, new: StoredFeed, stop: threading.Event) -> None:
        is_canary_alive = (plan.restarts or plan.reloads) and old is not None and self._sees_canary(old, stop)
        restarts = plan.restarts or not self._change_lists(plan, old, new, stop)
        if restarts:
            self._restart(stop)
        elif plan.reloads:
            self._control.reload_rules(timeout_s=self._limits.reload_timeout_s, stop=stop)
        if restarts or plan.reloads or plan.is_loaded:
            self._settle(new, stop)
            # Only if the feed before was noticed: what was broken before is not the new feed.
            if is_canary_alive and self._sees_canary(new, stop) is False:
                raise PackRefusedError("the engine does not notice the canary any more")
        else:
            self._check(new)

    def _sees_canary(self, feed: StoredFeed, stop: threading.Event) -> bool | None:
        if self._canary is None:
            return None
        return self._canary.is_noticed(feed.directory / ENGINE_DIRECTORY, stop)

    def _change_lists(
        self, plan: ActivationPlan, old: StoredFeed | None, new: StoredFeed, stop: threading.Event
    ) -> bool:
        """Change entries of lists in the engine; returns False if it does not have one of the lists."""
        for name in plan.changed_lists:
            before = old.list_path(name) if old is not None else None
            entries = changes(before, new.list_path(name))
            try:
                change = self._control.change_dataset(name, _interruptible(entries, stop))
            except EngineRefusedError as err:
                if "set not found" not in err.answer:
                    raise
                logger.warning("the engine does not have list %s", name)
                return False
            logger.info("list %s: %d entries added, %d removed", name, change.added, change.removed)
        return True

    def _restart(self, stop: threading.Event) -> None:
        """End the engine; its supervisor starts it again with the new configuration."""
        self._watch.expect_restart()
        self.watch_over()  # the process that goes is not one that came
        self._crashes.expect_restart()
        deadline = self._clock.monotonic() + self._limits.restart_timeout_s
        before = self._control.run_id()
        self._pause_engine(stop)
        self._control.shutdown()
        while True:
            _wait(stop, self._limits.settle_poll_s)
            try:
                if self._control.run_id() != before:
                    self._resume_engine()
                    return
            except EngineUnavailableError as err:
                logger.debug("engine not back yet: %s", err)
            if self.watch_over():
                raise EngineUnavailableError("the engine dies again and again after a restart")
            if self._clock.monotonic() > deadline:
                raise EngineUnavailableError("the engine did not come back after a restart")

    def _pause_engine(self, stop: threading.Event) -> None:
        """Lead traffic past the engine and let it answer what waits: that would be lost when its queues close."""
        try:
            self._gate.pause_engine()
        except TransientError as err:
            logger.debug("no pause before the restart: %s", err)
        else:
            _wait(stop, _DRAIN_S)

    def _resume_engine(self) -> None:
        try:
            self._gate.resume_engine()
        except TransientError as err:
            logger.debug("the pause ends by itself: %s", err)

    def _settle(self, feed: StoredFeed, stop: threading.Event) -> None:
        """Watch the engine for a while; raise if it restarts or has not loaded what it should."""
        until = self._clock.monotonic() + self._limits.settle_s
        run_id = self._control.run_id()
        self._check(feed)
        while self._clock.monotonic() < until:
            _wait(stop, self._limits.settle_poll_s)
            if self._control.run_id() != run_id:
                raise EngineUnavailableError("the engine restarted by itself")
        self._check(feed)

    def _check(self, feed: StoredFeed) -> None:
        difference = find_difference(self._control, feed)
        if difference is not None:
            raise PackRefusedError(difference)

    def _sync_gate(self, feed: StoredFeed) -> None:
        """Bring the block list to the gate; whatever prevents it is told, and tried again by `reconcile`."""
        try:
            self._sync_gate_strictly(feed)
        except RejectedError as err:
            logger.warning("block list of feed %d not taken: %s", feed.serial, err)
            self._gate_serial = feed.serial  # asking again gives the same answer

    def _sync_gate_strictly(self, feed: StoredFeed, old: StoredFeed | None = None) -> None:
        """Bring the block list to the gate: only what differs from `old` if that is what the gate has."""
        is_known = old is not None and self._gate_serial == old.serial
        try:
            if old is not None and is_known:
                added, removed = self._gate.change_block(entry_changes(old, feed))
            else:
                added, removed = self._gate.replace_block(lambda: entries(feed))
        except TransientError as err:
            if not self._is_gate_missing:
                logger.warning("block list waits: %s", err)
            self._is_gate_missing = True
            self._gate_serial = None
            return
        except RejectedError as err:
            if old is not None:
                self._sync_gate(old)  # some of it may be in force
            raise PackRefusedError(f"block list: {err}") from err
        self._is_gate_missing = False
        self._block_lists.set(blocked_lists(feed.manifest))
        self._gate_serial = feed.serial
        logger.info("block list of feed %d: %d entries written, %d removed", feed.serial, added, removed)


def _plan(old: StoredFeed, new: StoredFeed) -> ActivationPlan:
    """Compare two feeds as the engine sees them: by their manifests, and by the rules that are left out of each."""
    plan = make_plan(old.manifest, new.manifest)
    if old.left_out.rule_ids != new.left_out.rule_ids and not plan.restarts:
        return dataclasses.replace(plan, reloads=True)
    return plan


def _wait(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise ActivationInterruptedError("the agent stops during an activation")


def _interruptible(entries: Iterator[tuple[bool, bytes]], stop: threading.Event) -> Iterator[tuple[bool, bytes]]:
    for entry in entries:
        if stop.is_set():
            raise ActivationInterruptedError("the agent stops during an activation")
        yield entry
