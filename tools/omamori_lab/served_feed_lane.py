"""A feed lane with a repository and the agent's feed worker: from a pack on the publisher's disk to the engine.

Keys, repository and signatures are those of `omamori-ota`, the web server is one of this machine over TLS, the worker
is the agent's with the product's own times. Missing is only the broker: what it announces is told to the worker.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omamori_agent.feed.channel import FeedChannel
from omamori_agent.feed.fetcher import HTTPSFetcher
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.feed.reporter import FeedReporter
from omamori_agent.feed.trust import FeedRepository
from omamori_agent.feed.worker import FeedWorker
from omamori_agent.status import Status
from omamori_protocol.vocabulary import EngineState, FeedState

from .errors import LabError
from .feed_lane import FeedLane, Nowhere
from .memory_group import MemoryGroup
from .products import call
from .waiting import wait_for

CHANNEL = "bench"
_DEVICE = "ZA35-000001"
_FOLLOW_S = 0.01


class ServedFeedLane(FeedLane):
    """A feed lane whose box fetches what it takes.

    Args:
        programs: Directory of gate and loader.
        tree: Debian tree with the engine.
        limits: Bounds and intervals of the agent's feed part; the product's own by default.
    """

    def __init__(self, programs: Path, tree: Path, limits: FeedLimits | None = None) -> None:
        super().__init__(programs, tree, limits or FeedLimits(reserve_bytes=0))
        self.group: MemoryGroup | None = None
        self._served = _Repository(self.lane.directory)
        self._deaths = 0

    def start(self) -> None:
        """Bring up everything; the repository has nothing yet."""
        super().start()
        self._served.start()
        repository = FeedRepository(
            base_url=self._served.url,
            device=_DEVICE,
            channel=CHANNEL,
            root_file=self._served.root_file,
            metadata_dir=self.paths.feed_metadata,
            fetcher=HTTPSFetcher(self._served.ca_file, self.store.download_path.parent, self.limits),
            clock=self.clock,
        )
        self.worker = FeedWorker(
            channel=FeedChannel(self.paths.feed_channel, CHANNEL),
            repository=repository,
            store=self.store,
            activator=self.activator,
            control=self.control,
            reporter=FeedReporter(Nowhere(), self.status, self.clock),
            clock=self.clock,
            limits=self.limits,
        )
        self._spawn(self._follow_engine)
        self._spawn(functools.partial(self.watch.run, self._stop))
        wait_for(self._is_inspecting, "the engine", timeout_s=60)

    def work(self) -> None:
        """Let the worker begin; the repository must have a pack."""
        self._spawn(functools.partial(self.worker.run, self._stop))

    def stop(self) -> None:
        """Remove everything."""
        super().stop()
        self._served.stop()

    @property
    def deaths(self) -> int:
        """How often the engine has ended."""
        return self._deaths

    @property
    def packs_fetched(self) -> int:
        """How many whole packs the box has asked for."""
        return self._served.asked(".pack.tar.gz")

    def publish(self, pack: Path, serial: int, *, since: Path | None = None) -> float:
        """Publish a pack, with the increment that leads to it if the one before is given, and announce it.

        Returns:
            Unix time of the moment from which the repository names it.
        """
        at_s = self._served.publish(pack, since)
        self.worker.on_announcement(serial)
        return at_s

    @contextlib.contextmanager
    def bounded_memory(self) -> Iterator[MemoryGroup]:
        """Let the engine run in a control group from its next start on; the block begins when it inspects in it."""
        group = MemoryGroup(self.lane.directory.name)
        with group.existing():
            self.group = group
            try:
                self.end_engine()
                yield group
            finally:
                self.group = None
                self.end_engine()

    def end_engine(self) -> None:
        """Kill the engine, and wait until it is back."""
        deaths = self.deaths
        self.kill_engine()
        wait_for(lambda: self.deaths > deaths and self._is_inspecting(), "the engine to be back", timeout_s=300)

    def kill_engine(self) -> None:
        """Kill the engine as a crash would."""
        process = self.engine._process  # noqa: SLF001 - there is no other way to hurt it
        if process is not None:
            process.kill()

    def wait_shown(
        self, serial: int, state: FeedState, *, timeout_s: float = 300.0, then: Callable[[Status], bool] | None = None
    ) -> Status:
        """Wait until the box shows a serial in a state and the engine inspects; return what it shows."""

        def look() -> Status | None:
            shown = self.status.get()
            is_there = (shown.feed_serial, shown.feed_state) == (serial, state)
            return shown if is_there and (then is None or then(shown)) else None

        return wait_for(
            look,
            f"feed {serial} {state.word}",
            timeout_s=timeout_s,
            every_s=0.02,
            detail=lambda: f"{self.status.get()} {self.engine.tail()}",
        )

    def is_answering(self) -> bool:
        """Tell whether the engine inspects now, asked by itself and not by the watch, which looks once a second."""
        return self.watch.probe().state is EngineState.INSPECTING

    def is_quarantined(self, serial: int) -> bool:
        """Tell whether the box never takes this serial again."""
        return self.store.record.quarantine_reason(serial) is not None

    def _follow_engine(self) -> None:
        """What the kernel does on the box: the process of the service stands in a file, and in its control group."""
        present: int | None = None
        while not self._stop.wait(_FOLLOW_S):
            process = self.engine._process  # noqa: SLF001 - who starts it must see that it ended
            found = process.pid if process is not None and process.poll() is None else None
            if found == present:
                continue
            if present is not None:
                self._deaths += 1
            if found is not None and self.group is not None:
                with contextlib.suppress(OSError):
                    self.group.take(found)
            self.processes.write_text(f"{found}\n" if found else "")
            present = found


class _Repository:
    """A repository of `omamori-ota` and the web server it is fetched from."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "published"
        self._keys, self._files = self._directory / "keys", self._directory / "repository"
        self._server: _Server | None = None
        self._published = 0

    @property
    def url(self) -> str:
        """Where it is served."""
        assert self._server is not None
        return f"https://localhost:{self._server.server_address[1]}"

    @property
    def root_file(self) -> Path:
        """What an image is built with."""
        return self._keys / "trust" / "root.json"

    @property
    def ca_file(self) -> Path:
        """Who signs the server's certificate."""
        return self._keys / "trust" / "service-ca.pem"

    def start(self) -> None:
        """Make keys and an empty repository, and serve it."""
        self._directory.mkdir()
        call("omamori-ota", "keys", "init", self._keys)
        call("omamori-ota", "repository", "init", self._keys, self._files)
        tls = self._directory / "tls"
        call("omamori-ota", "pki", "server", self._keys, tls, "--name", "localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
        handler = functools.partial(_Handler, directory=str(self._files))
        self._server = server = _Server(("127.0.0.1", 0), handler)
        server.context, server.asked = context, []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def asked(self, ending: str) -> int:
        """Return how many files with such a name were asked for."""
        return sum(path.endswith(ending) for path in self._server.asked) if self._server is not None else 0

    def publish(self, pack: Path, since: Path | None) -> float:
        """Publish a pack; see `ServedFeedLane.publish`."""
        words: list[str | Path] = ["publish", "feed", self._keys, self._files, pack, "--channel", CHANNEL]
        if since is not None:
            self._published += 1
            increment = self._directory / f"increment-{self._published}"
            call("omamori-feed", "increment", since, pack, "--out", increment)
            words += ["--increment", increment]
        before_s = time.time()
        call("omamori-ota", *words)
        at_s = (self._files / "metadata" / "timestamp.json").stat().st_mtime
        if at_s < before_s - 1:
            raise LabError("nothing was published")
        return at_s


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext
    asked: list[str]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our business."""


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write: header and body apart would wait for each other
    server: _Server

    def setup(self) -> None:
        self.request.settimeout(30)
        # Here and not on the listening socket: a handshake must not hold up who comes next.
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        """End the connection that was made of the one the server knows."""
        with contextlib.suppress(OSError):
            super().finish()
        self.request.close()

    def log_message(self, *_args: Any) -> None:
        """Take note of what was asked for."""
        self.server.asked.append(self.path)
