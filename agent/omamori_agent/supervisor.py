"""Runs the workers and judges them: all alive, or the daemon ends.

* A worker that returns before the stop, or raises, ends the daemon with exit code 1.
* The service manager's watchdog is fed only while every worker lives.
* On a stop all workers together get a few seconds; who hangs longer (in a name lookup, say) is left behind: nothing
  durable depends on a worker's end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from .notify import Notifier
from .ports import Worker

logger = logging.getLogger(__name__)

_WATCH_S = 0.5  # how often the workers are looked at
_WATCHDOG_SHARE = 1 / 3  # of the watchdog's patience between two signs of life

EXIT_OK = 0
EXIT_WORKER_DIED = 1


class Supervisor:
    """Runs workers, each in its thread, until told to stop or until one dies.

    Args:
        workers: What to run; their names must differ.
        notifier: The service manager.
        stop: Set by a signal handler, or here when a worker dies.
        stop_s: Seconds that all workers together have to end.
        describe: Returns the line for the service manager's status.
        tidy: Called between two looks; decides itself whether there is something to tidy.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        notifier: Notifier,
        stop: threading.Event,
        stop_s: float,
        describe: Callable[[], str],
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self._notifier = notifier
        self._stop = stop
        self._stop_s = stop_s
        self._describe = describe
        self._tidy = tidy
        self._dead: list[str] = []
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=(worker,), name=worker.name, daemon=True) for worker in workers
        ]

    def run(self) -> int:
        """Start everything, watch it, stop it.

        Returns:
            The daemon's exit code.
        """
        for thread in self._threads:
            thread.start()
        self._notifier.ready()
        logger.info("started: %s", ", ".join(thread.name for thread in self._threads))
        fed_at = float("-inf")
        while not self._stop.is_set() and not self._dead:
            if time.monotonic() - fed_at >= self._notifier.watchdog_s * _WATCHDOG_SHARE:
                fed_at = time.monotonic()
                self._notifier.alive()
            self._notifier.status(self._describe())
            self._tidy()
            self._wake.wait(_WATCH_S)
        self._notifier.stopping()
        self._stop.set()
        self._join()
        if self._dead:
            logger.error("ending because of: %s", ", ".join(self._dead))
            return EXIT_WORKER_DIED
        return EXIT_OK

    def _guard(self, worker: Worker) -> None:
        try:
            worker.run(self._stop)
            if not self._stop.is_set():
                self._dead.append(worker.name)
                logger.error("worker %s returned", worker.name)
        except BaseException:  # whatever it is, the daemon must not go on without this worker
            self._dead.append(worker.name)
            logger.exception("worker %s died", worker.name)
        finally:
            self._wake.set()

    def _join(self) -> None:
        deadline = time.monotonic() + self._stop_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        left = [thread.name for thread in self._threads if thread.is_alive()]
        if left:
            logger.warning("left behind after %.1f s: %s", self._stop_s, ", ".join(left))
