"""Signs for our own workers, and looks after the boxes: who is away, why, and who is back."""

from __future__ import annotations

import logging
import threading

from .clock import Clock
from .errors import StoreUnavailableError
from .ingest import IngestStatus
from .store.absences import AbsenceStore

logger = logging.getLogger(__name__)


class LivenessWorker:
    """`run` is its thread. A worker that only takes messages in signs, and leaves the looking to ``serve``."""

    name = "liveness"

    def __init__(
        self,
        store: AbsenceStore,
        status: IngestStatus,
        *,
        sign_as: str,
        looks: bool,
        every_s: float,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        """Take the collaborators; nothing is read yet.

        Args:
            store: Where absences and signs are.
            status: Whether messages come in to the ingest worker of this process.
            sign_as: That worker's name.
            looks: Whether to judge absences, too.
            every_s: Seconds between two rounds.
            clock: The present.
            stop: Ends `run`.
        """
        self._store = store
        self._status = status
        self._sign_as = sign_as
        self._looks = looks
        self._every_s = every_s
        self._clock = clock
        self._stop = stop
        self._is_blind = False

    def run(self) -> None:
        """Work until stopped. A database that does not answer is tried again; ingest says so already."""
        while not self._stop.wait(self._every_s):
            try:
                self.step()
            except StoreUnavailableError as err:
                logger.warning("liveness waits: %s", err)

    def step(self) -> None:
        """Sign, and look once.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        now_ms = self._clock()
        self._store.sign(self._sign_as, now_ms, self._status.trouble)
        if not self._looks:
            return
        found = self._store.look(now_ms)
        if found.began or found.ended or found.noticed:
            logger.info("absences: %d began, %d ended, %d to be told", found.began, found.ended, found.noticed)
        if found.is_blind != self._is_blind:
            self._is_blind = found.is_blind
            logger.warning("nothing is known of boxes" if found.is_blind else "boxes are heard again")
