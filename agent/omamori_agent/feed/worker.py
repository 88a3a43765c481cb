"""Keeps the box's feed fresh: asks the repository, takes what is new, puts right what was left unfinished.

It asks at the start, every few minutes, and at once when a newer serial is announced. An announcement is only a
hint: what counts is what TUF verifies. Whatever goes wrong, the last good feed stays.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
from collections.abc import Callable, Sequence

from omamori_agent.backoff import Backoff
from omamori_agent.engine import EngineControl
from omamori_agent.errors import SetupError, TransientError
from omamori_agent.ports import Clock, Worker
from omamori_protocol.feed_manifest import FeedManifest
from omamori_protocol.feed_offer import OfferedIncrement, choose_chain
from omamori_protocol.vocabulary import FeedState

from .activate import Activator, Progress
from .channel import FeedChannel, FeedPart
from .errors import (
    ActivationInterruptedError,
    ActivationRolledBackError,
    FeedPostponedError,
    FeedRefusedError,
    MetadataExpiredError,
    PackRefusedError,
    RepositoryUnavailableError,
)
from .limits import FeedLimits
from .reporter import FeedReporter
from .store import FeedStore
from .stored import StoredFeed
from .trust import FeedRepository, FeedTarget

logger = logging.getLogger(__name__)


class FeedWorker:
    """`ports.Worker` of the feed.

    Args:
        channel: Feed channel that the box follows; told which one the feed in force is from.
        repository: Where feeds come from.
        store: Where they are kept.
        activator: Brings them to engine and gate.
        control: The engine, asked for its version.
        reporter: Tells what happened.
        clock: Time between polls.
        limits: Intervals.
        uniform: Random number between two bounds; a parameter for tests.
    """

    name = "feed"

    def __init__(
        self,
        *,
        channel: FeedChannel,
        repository: FeedRepository,
        store: FeedStore,
        activator: Activator,
        control: EngineControl,
        reporter: FeedReporter,
        clock: Clock,
        limits: FeedLimits,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._choice = channel
        self._channel = channel.get()
        self._repository = repository
        self._store = store
        self._activator = activator
        self._control = control
        self._reporter = reporter
        self._clock = clock
        self._limits = limits
        self._uniform = uniform
        self._backoff = Backoff(limits.retry_first_s, limits.retry_cap_s, uniform=uniform)
        self._wake = threading.Event()
        self._announced = 0
        self._known = 0  # newest serial we have judged, so that announcements of it wake nobody
        self._named = 0  # newest serial the repository has named, for us or for other boxes
        self._shown = 0  # serial last reported as active
        channel.subscribe(self._wake.set)

    def on_announcement(self, serial: int) -> None:
        """Take note of an announced serial; returns at once, from any thread.

        One that is lower than the active one says that the active one was taken back.
        """
        if serial > self._known or 0 < serial < self._shown:
            self._announced = serial
            self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`."""
        self.start()
        next_s = self._clock.monotonic()
        while not stop.is_set():
            self._tend(stop)
            now_s = self._clock.monotonic()
            if now_s >= next_s or self._wake.is_set():
                self._wake.clear()
                delay_s = self.poll(stop)
                next_s = self._clock.monotonic() + max(delay_s, self._limits.min_gap_s)
            self._sleep(next_s, stop)

    def _sleep(self, until_s: float, stop: threading.Event) -> None:
        """Wait for the next poll, an announcement, unfinished business, or the stop."""
        started_s = self._clock.monotonic()
        first_s = started_s + self._limits.min_gap_s
        look_s = started_s + self._limits.reconcile_s
        while not stop.is_set():
            now_s = self._clock.monotonic()
            is_woken = self._wake.is_set() and now_s >= first_s
            if now_s >= until_s or now_s >= look_s or is_woken or self._activator.watch_over():
                return
            # Short enough to notice the stop; an announcement ends it at once.
            left_s = max(0.0, min(until_s, look_s) - now_s)
            if self._wake.is_set():
                stop.wait(min(first_s - now_s, left_s, 0.5))
            else:
                self._wake.wait(min(left_s, 0.5))

    def start(self) -> None:
        """Repair what a power cut left and show the current feed.

        Raises:
            SetupError: The data partition cannot be used.
        """
        serial = self._store.recover().serial
        newer = [item for item in self._store.record.quarantined if item[0] > serial]
        reason = f"serial {newer[-1][0]}: {newer[-1][1]}" if newer else None
        self._known = self._shown = serial
        self._reporter.restore(serial, reason)
        self._show_channel()

    def _tend(self, stop: threading.Event) -> None:
        """Look after what is unfinished: an activation, a block list, an event."""
        self._reporter.flush()
        if not self._activator.is_unfinished:
            return
        try:
            progress = self._activator.reconcile(stop)
        except ActivationRolledBackError as err:
            self._rolled_back(str(err))
        except (TransientError, OSError) as err:
            logger.warning("feed: %s", err)
        else:
            if progress is Progress.DONE:
                self._show_active()

    def poll(self, stop: threading.Event) -> float:
        """Ask the repository and take what is new; returns seconds until the next time."""
        self._follow()
        try:
            target = self._repository.refresh()
            self._named = max(self._named, target.newest)
            self._take(target, stop)
        except MetadataExpiredError as err:
            self._reporter.trouble(self._shown, FeedState.STALE, str(err))
        except RepositoryUnavailableError as err:
            logger.info("repository: %s", err)
            expired = self._repository.expired()
            if expired is not None:
                self._reporter.trouble(self._shown, FeedState.STALE, expired)
        except ActivationInterruptedError as err:
            logger.info("%s", err)
        except (FeedRefusedError, FeedPostponedError, SetupError, OSError) as err:
            self._reporter.trouble(self._shown, FeedState.REFUSED, str(err))
        else:
            if self._announced <= max(self._known, self._named):
                self._backoff.reset()
                jitter = self._limits.poll_jitter
                return self._limits.poll_s * self._uniform(1 - jitter, 1 + jitter)
        # Trouble, or announced while the repository (or a cache of it) is not so far yet.
        return self._backoff.next_s()

    def _follow(self) -> None:
        """Ask the channel that is wanted now; what was known of another one says nothing about it."""
        wanted = self._choice.get()
        if wanted == self._channel:
            return
        self._channel = wanted
        self._announced = self._named = 0
        self._known = self._store.current().serial
        self._repository.follow(wanted)

    def _take(self, target: FeedTarget, stop: threading.Event) -> None:
        """Judge what the repository names, and activate it if it is new and good.

        Raises:
            FeedRefusedError: It must not be taken; nothing changed.
            RepositoryUnavailableError: It could not be downloaded.
            FeedPostponedError: It cannot be taken now.
            ActivationInterruptedError: The agent stops.
        """
        serial = target.serial
        current = self._store.current().serial
        is_ours = self._is_ours()
        if serial <= current and not is_ours:
            raise FeedRefusedError(f"serial {serial} of channel {self._channel} is not newer than the active {current}")
        if serial == current:
            self._known = max(self._known, serial)
            if not self._activator.is_unfinished:
                self._reporter.fine(current)
            return
        if serial < current:
            if current not in target.offer.withdrawn:
                raise FeedRefusedError(f"rollback: serial {serial} is older than the active {current}")
            # Written first: whatever happens on the way back, the withdrawn one is not taken again.
            self._store.remember(self._store.record.with_quarantined(current, "withdrawn by the publisher"))
        if self._store.record.quarantine_reason(serial) is not None:
            self._known = max(self._known, serial)
            return
        try:
            feed = self._obtain(target)
            self._store.discard_download()
            progress = self._activator.activate(feed, stop)
        except PackRefusedError as err:
            self._known = max(self._known, serial)
            self._store.remember(self._store.record.with_quarantined(serial, str(err)))
            self._store.prune()
            self._reporter.trouble(current, FeedState.REFUSED, str(err), about=serial)
            return
        except ActivationRolledBackError as err:
            self._known = max(self._known, serial)
            self._rolled_back(str(err))
            return
        finally:
            self._store.discard_download()
        self._known = max(self._known, serial)
        if progress is Progress.DONE:
            self._show_active()
        else:
            logger.info("feed %d waits for the engine", serial)

    def _obtain(self, target: FeedTarget) -> StoredFeed:
        """Bring what the repository names into the store: by increments if they are less, else the whole pack."""
        current = self._store.current()
        is_base = current.serial and self._is_ours()
        chain = choose_chain(target.offer, current.serial, target.size) if is_base else ()
        if chain:
            try:
                return self._obtain_increments(target, chain, current)
            except (FeedRefusedError, RepositoryUnavailableError) as err:
                logger.warning("increments to feed %d: %s; taking the whole pack", target.serial, err)
            finally:
                self._store.discard_download()
        self._store.check_space(target.size)
        self._repository.download(self._store.download_path)
        return self._store.add(target.serial, self._check, self._activator.rules_to_leave_out())

    def _obtain_increments(
        self, target: FeedTarget, chain: Sequence[OfferedIncrement], current: StoredFeed
    ) -> StoredFeed:
        size = sum(item.size for item in chain)
        self._store.check_space(size)
        for number, item in enumerate(chain):
            self._repository.download_increment(item, self._store.increment_path(number))
        rule_ids = self._activator.rules_to_leave_out()
        feed = self._store.add_increments(current, len(chain), target.offer, self._check, rule_ids)
        logger.info("feed %d made from %d by %d increments, %d bytes", feed.serial, current.serial, len(chain), size)
        return feed

    def _is_ours(self) -> bool:
        """Tell whether the feed in force is of the channel that is asked; the empty one is of any."""
        current = self._store.current()
        return current.serial == 0 or current.manifest.channel == self._channel

    def _show_channel(self) -> None:
        current = self._store.current()
        self._choice.show(current.manifest.channel if current.serial else "")

    def _check(self, manifest: FeedManifest) -> None:
        """Raise unless the pack is for this box."""
        if manifest.channel != self._channel:
            raise PackRefusedError(f"the pack is for channel {manifest.channel}")
        try:
            version = self._control.version()
        except TransientError as err:
            logger.debug("engine version not known: %s", err)
            return
        if _version(version) < _version(manifest.engine_min):
            raise FeedPostponedError(f"needs engine {manifest.engine_min}, this is {version}")

    def _rolled_back(self, reason: str) -> None:
        self._shown = self._store.current().serial
        self._show_channel()
        newest = self._store.record.quarantined[-1][0] if self._store.record.quarantined else None
        self._reporter.trouble(self._shown, FeedState.ROLLED_BACK, reason, about=newest)

    def _show_active(self) -> None:
        serial = self._store.current().serial
        self._show_channel()
        if serial != self._shown:
            self._shown = serial
            self._reporter.active(serial)


def _version(text: str) -> tuple[int, ...]:
    """Return a version as numbers; what is no number ends it."""
    numbers = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


@dataclasses.dataclass(frozen=True)
class FeedFeature:
    """What `feed.build` made: the worker, where announcements go, the channel, and its part of the desired state."""

    workers: Sequence[Worker]
    on_announcement: Callable[[int], None]
    channel: FeedChannel
    part: FeedPart
