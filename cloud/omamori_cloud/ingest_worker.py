"""A further ingest worker, in a process of its own: the composition root of ``omamori-cloud ingest``."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading

from .clock import Clock, system_clock
from .config import CloudConfig
from .errors import QueryError
from .ingest import Ingest, IngestStatus
from .ingest_choice import make_ingest
from .liveness_worker import LivenessWorker
from .store.absences import AbsenceStore
from .store.database import migrate, open_database
from .store.installation import share_name
from .store.writer import Writer

logger = logging.getLogger(__name__)

_SIGN_WAIT_S = 10.0

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?")


class IngestWorker:
    """Takes in until stopped, or until nothing is left for it if it retires."""

    def __init__(self, config: CloudConfig, name: str, *, retire: bool = False, clock: Clock = system_clock) -> None:
        """Open everything that can fail: database (brought to the newest schema), certificates.

        Args:
            config: See `CloudConfig`; the broker knows this worker by the configured client id and `name`.
            name: Of this worker, for as long as it exists: what the broker gave to it waits for this name.
            retire: Take in what waits for this name, and give the name up.
            clock: The present.

        Raises:
            QueryError: The name is not possible.
            SetupError: Something must be changed by a person first.
            StoreUnavailableError: The database does not answer.
        """
        if not _NAME.fullmatch(name):
            raise QueryError("worker", f"{name[:40]!r} is not a name", hint="lower case letters, digits and hyphens")
        self._stop = threading.Event()
        self._engine = open_database(config.database_url, password_file=config.database_password_file)
        before, after = migrate(self._engine)
        if before != after:
            logger.info("database brought from schema %s to %s", before or "none", after)
        status = IngestStatus()
        absences = AbsenceStore(
            self._engine,
            config.liveness,
            offline_after_s=config.offline_after_s,
            kept_per_device=config.limits.outages_per_device,
        )
        self._liveness = LivenessWorker(
            absences,
            status,
            sign_as=f"{Ingest.name}-{name}",
            looks=False,
            every_s=config.liveness.every_s,
            clock=clock,
            stop=self._stop,
        )
        self._ingest = make_ingest(
            dataclasses.replace(config.broker, client_id=f"{config.broker.client_id}-{name}"),
            Writer(self._engine, config.limits),
            share=share_name(self._engine),
            batch_messages=config.limits.batch_messages,
            clock=clock,
            status=status,
            stop=self._stop,
            retire=retire,
        )

    def stop(self) -> None:
        """Make `run` return soon; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until stopped; whatever fails ends the process, and whoever started it starts it again."""
        signer = threading.Thread(target=self._liveness.run, name=self._liveness.name, daemon=True)
        signer.start()
        try:
            self._ingest.run()
        finally:
            self._stop.set()
            signer.join(_SIGN_WAIT_S)
            self._engine.dispose()
