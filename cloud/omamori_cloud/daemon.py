"""Wires the cloud together and keeps it running: the composition root of ``omamori-cloud serve``.

Four workers, ingest, page, retention and liveness, each in its thread. One that ends although nobody asked it to takes
the whole daemon down with an error, so that whoever started it can start it again: there is no half-dead cloud.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

import uvicorn

from .clock import Clock, system_clock
from .config import CloudConfig
from .errors import SetupError, WorkerError
from .feed_shelf import FeedShelf
from .ingest import IngestStatus
from .ingest_choice import make_ingest
from .listener import describe, open_listener
from .liveness_worker import LivenessWorker
from .page.config import PageConfig
from .page.web import make_app
from .store.absences import AbsenceStore
from .store.database import migrate, open_database
from .store.installation import share_name
from .store.reader import Reader
from .store.reports import ReportStore
from .store.sweeper import Sweeper
from .store.writer import Writer

logger = logging.getLogger(__name__)

_STOP_WAIT_S = 10.0
_REQUEST_WAIT_S = 3  # time that requests under way get to finish when the daemon stops
_MAX_CONNECTIONS = 256


class Daemon:
    """The running cloud."""

    def __init__(self, config: CloudConfig, *, allow_remote: bool, clock: Clock = system_clock) -> None:
        """Open everything that can fail: socket, database (brought to the newest schema), certificates.

        Args:
            config: See `CloudConfig`.
            allow_remote: Permit the page to listen where other machines can reach it.
            clock: The present.

        Raises:
            SetupError: Something must be changed by a person first.
            StoreUnavailableError: The database does not answer.
        """
        self._stop = threading.Event()
        self._failure: WorkerError | None = None
        try:
            config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as err:
            raise SetupError(f"state_dir: {err}") from err
        engine = open_database(config.database_url, password_file=config.database_password_file)
        before, after = migrate(engine)
        if before != after:
            logger.info("database brought from schema %s to %s", before or "none", after)
        status = IngestStatus()
        self._ingest = make_ingest(
            config.broker,
            Writer(engine, config.limits),
            share=share_name(engine),
            batch_messages=config.limits.batch_messages,
            clock=clock,
            status=status,
            stop=self._stop,
        )
        absences = AbsenceStore(
            engine,
            config.liveness,
            offline_after_s=config.offline_after_s,
            kept_per_device=config.limits.outages_per_device,
        )
        self._liveness = LivenessWorker(
            absences,
            status,
            sign_as=self._ingest.name,
            looks=True,
            every_s=config.liveness.every_s,
            clock=clock,
            stop=self._stop,
        )
        self._sweeper = Sweeper(engine, config.retention, clock=clock, stop=self._stop)
        self._engine = engine
        self._listener = open_listener(config.listen, allow_remote=allow_remote)
        page = PageConfig(
            default_language=config.default_language,
            offline_after_s=config.offline_after_s,
            names=config.names,
            hosts=None if allow_remote else frozenset(host.lower() for host in config.hosts),
        )
        reports = ReportStore(engine, allow_file=config.feed.allow_file)
        try:
            reports.hand_over()  # what a stop in the middle of a decision left undone
        except OSError as err:
            raise SetupError(f"feed.allow_file: {err}") from err
        shelf = FeedShelf(config.feed.book)
        app = make_app(Reader(engine), page, clock=clock, status=status, reports=reports, shelf=shelf)
        self._server = _Server(app, self._listener)

    @property
    def address(self) -> str:
        """Where the page is."""
        return describe(self._listener)

    def stop(self) -> None:
        """Make `run` return soon; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until stopped.

        Raises:
            WorkerError: A worker ended although nobody asked it to.
        """
        workers = [
            self._start("ingest", self._ingest.run),
            self._start("page", self._server.run),
            self._start("retention", self._sweeper.run),
            self._start("liveness", self._liveness.run),
        ]
        try:
            while not self._stop.wait(0.5):
                pass
        finally:
            self._stop.set()
            self._server.stop()
            for worker in workers:
                worker.join(_STOP_WAIT_S)
            self._listener.close()
            self._engine.dispose()
        if self._failure is not None:
            raise self._failure

    def _start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            problem = "ended by itself"
            try:
                work()
            except BaseException as err:
                problem = f"{type(err).__name__}: {err}"
                logger.exception("worker %s failed", name)
            if not self._stop.is_set():
                self._failure = WorkerError(name, problem)
                self._stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread


class _Server:
    """uvicorn on our socket; in a thread it leaves the signals to us."""

    def __init__(self, app: object, listener: socket.socket) -> None:
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,  # type: ignore[arg-type]  # uvicorn spells out its own ASGI types
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=_REQUEST_WAIT_S,
            )
        )

    def run(self) -> None:
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True
