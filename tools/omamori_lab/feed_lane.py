"""A lane whose box takes feeds as the agent does: store, engine's test, activation, gate; without the repository.

Real engine, real gate, the agent's own code. The engine is started again by a thread where systemd does it on the box.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from omamori_agent.clock import SystemClock
from omamori_agent.config import Paths
from omamori_agent.engine import BlockLists, EngineControl, EngineWatch
from omamori_agent.feed.activate import Activator, Progress
from omamori_agent.feed.canary import Canary
from omamori_agent.feed.engine_test import EngineTest
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.feed.store import FeedStore
from omamori_agent.feed.stored import StoredFeed
from omamori_agent.gate import Gate
from omamori_agent.gate.layout import MapName
from omamori_agent.ports import Cursor
from omamori_agent.status import StatusBoard
from omamori_firmware import enter
from omamori_firmware.dataplane.engine import (
    BOX_CACHE,
    BOX_CONFIGURATION,
    BOX_FEED,
    BOX_RUN,
    NativeEngine,
    adapt_configuration,
)
from omamori_firmware.errors import ImageError
from omamori_firmware.recipe import source_tree
from omamori_protocol.feed_manifest import FeedManifest
from omamori_protocol.messages import Event

from .errors import LabError
from .measured_lanes import memory_mib
from .native_wire import INTERNET_IPV4, NativeLane
from .rule_set import RuleSet, write_feed
from .run import run
from .waiting import wait_for

CANARY_IPV4 = "192.0.2.53"
_PROBE_PORT = 4789
_PROBES_PER_S = 200
_SAMPLE_S = 0.05
_READY_S = 400.0
_BAD_LINE = re.compile(r"all\.rules at line (\d+)")


class Nowhere:
    """Takes events and forgets them."""

    def put(self, events: list[Event], cursor: Cursor | None = None) -> None:
        """Forget."""

    def cursor(self, name: str) -> str | None:
        """Know nothing."""


@dataclasses.dataclass(frozen=True)
class Activation:
    """How an activation went: seconds, packets sent and lost meanwhile, the most memory of engine and test in MiB."""

    seconds: float
    sent: int
    lost: int
    peak_mib: float


class FeedLane:
    """A started lane with gate and engine, and the agent's part of taking feeds.

    Args:
        programs: Directory of gate and loader.
        tree: Debian tree with the engine.
        limits: Bounds and intervals of taking feeds; short ones by default.
    """

    def __init__(self, programs: Path, tree: Path, limits: FeedLimits | None = None) -> None:
        self.lane = NativeLane()
        self.limits = limits or FeedLimits(settle_s=2.0, settle_poll_s=0.1, reserve_bytes=0)
        self._tree = tree
        self._programs = programs
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Bring up wire, engine with the empty feed, and everything that takes feeds."""
        self.lane.start()
        wire = self.lane.install_wire(self._programs)
        self.paths = paths = Paths(self.lane.directory / "box")
        source = source_tree()
        for folder in (paths.feed_metadata, paths.feed_store, paths.image / "engine", paths.run.parent):
            folder.mkdir(parents=True)
        (self.lane.directory / "run").mkdir(exist_ok=True)
        paths.run.symlink_to(self.lane.directory / "run")
        shutil.copytree(source.engine / "feed-empty", paths.empty_feed)
        paths.feed_current.symlink_to(os.path.relpath(paths.empty_feed, paths.feed))
        self.engine: NativeEngine = self.lane.prepare_engine(self._tree, paths.feed_current)
        places = {
            BOX_CONFIGURATION: self.lane.directory / "files",
            BOX_FEED: paths.feed_current,
            BOX_RUN: paths.run,
            BOX_CACHE: self.lane.directory / "cache",
        }
        paths.engine_config.write_text(adapt_configuration((source.engine / "suricata.yaml").read_text(), places))
        self.engine.start(timeout_s=_READY_S)
        self.clock, self.status = clock, status = SystemClock(), StatusBoard()
        self.control = EngineControl(self.engine.control_socket, clock)
        self.processes = paths.root / "processes"
        self.watch = EngineWatch(
            self.control,
            processes=self.processes,
            ledger_path=paths.root / "ledger",
            outbox=Nowhere(),
            status=status,
            clock=clock,
        )
        self.store = FeedStore(paths, reserve_bytes=0)
        self.store.recover()
        self.gate = Gate(wire.pins)
        self._pins = wire.pins
        command = enter.command(self._tree, "tools", [self.lane.directory], ["suricata"])
        self.activator = Activator(
            store=self.store,
            control=self.control,
            watch=self.watch,
            gate=self.gate,
            block_lists=BlockLists(),
            engine_test=EngineTest(paths, timeout_s=_READY_S, command=command),
            status=status,
            clock=clock,
            limits=self.limits,
            canary=Canary(self.control, tries=self.limits.canary_tries, send=self._send_canary),
        )
        self.lane.office.configure([f"route add {CANARY_IPV4}/32 via {INTERNET_IPV4}"])
        self._spawn(self._supervise)

    def stop(self) -> None:
        """Remove everything."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self.lane.stop()

    def loadable(self, rules: RuleSet) -> RuleSet:
        """Return the rules without those that the engine's own test refuses."""
        work = self.lane.directory / "loadable"
        write_feed(rules, work)
        text = self.paths.engine_config.read_text().replace(f"{self.paths.feed_current}/", f"{work}/")
        config = work / "suricata.yaml"
        config.write_text(text.replace(f"{self.paths.eve.parent}/", f"{work}/"))
        # Only whether rules can be read is asked: the matcher that is made fastest does.
        words: list[str | Path] = [
            "suricata",
            "-T",
            "-c",
            config,
            "-l",
            work,
            "--set",
            "mpm-algo=ac",
            "--set",
            "spm-algo=bm",
        ]
        line = enter.command(self._tree, "tools", [self.lane.directory], words)
        done = run(line, timeout_s=_READY_S, check=False)
        bad = {int(number) for number in _BAD_LINE.findall(done.output + done.errors)}
        lines = rules.text.splitlines(keepends=True)
        good = [rule for number, rule in enumerate(lines, start=1) if number not in bad]
        shutil.rmtree(work)
        return RuleSet(text=b"".join(good), count=len(good), origin=f"{rules.origin}, without {len(bad)} bad ones")

    def gate_bytes(self) -> int:
        """Return the memory that the gate's maps have, as the kernel counts it."""
        total = 0
        for name in MapName:
            shown = json.loads(run(["bpftool", "-j", "map", "show", "pinned", self._pins / name], timeout_s=20).output)
            total += int(shown["bytes_memlock"])
        return total

    def take(self, pack: Path, serial: int) -> StoredFeed:
        """Put a pack into the store."""
        shutil.copyfile(pack, self.store.download_path)
        feed = self.store.add(serial, _accept)
        self.store.discard_download()
        return feed

    def activate(self, feed: StoredFeed) -> Activation:
        """Activate a stored feed while probes cross the wire.

        Raises:
            LabError: It was not taken.
        """
        wait_for(self._is_inspecting, "the engine", timeout_s=60, every_s=0.1)
        peak = Peak(self.lane.directory)
        with self.probing() as probes, peak.sampling():
            began = time.monotonic()
            progress = self.activator.activate(feed, self._stop)
            seconds = time.monotonic() - began
        if progress is not Progress.DONE or self.store.current().serial != feed.serial:
            raise LabError(f"feed {feed.serial} was not taken: {progress}")
        return Activation(round(seconds, 2), probes.sent, probes.sent - probes.received, round(peak.mib, 1))

    def _is_inspecting(self) -> bool:
        state = self.watch.probe().state
        self.status.update(engine=state)
        return state.name == "INSPECTING"

    def _send_canary(self, data: bytes, address: tuple[str, int]) -> None:
        """Send it from the office: this box has no address, and the engine sees it all the same."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(data, address)

        self.lane.office.call(send)

    def _supervise(self) -> None:
        """What systemd does on the box with ``Restart=always`` and ``RestartSec=0.5``."""
        while not self._stop.wait(0.05):
            process = self.engine._process  # noqa: SLF001 - who starts it must see that it ended
            if process is not None and process.poll() is None:
                continue
            if self._stop.wait(0.5):
                return
            self.engine.stop()
            with contextlib.suppress(ImageError):
                self.engine.start(timeout_s=_READY_S)

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    @contextlib.contextmanager
    def probing(self) -> Iterator[Probes]:
        """Let probes cross the wire until the block ends."""
        probes = Probes(self.lane)
        probes.start()
        try:
            yield probes
        finally:
            probes.stop()


def _accept(_manifest: FeedManifest) -> None:
    """Every pack is for this box."""


class Peak:
    """The most memory that the engine of a lane and a test beside it had together, sampled.

    Args:
        directory: Of the lane; its engines are those whose arguments name it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory).encode()
        self._stop = threading.Event()
        self.mib = 0.0

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """Sample until the block ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            total = 0.0
            for path in Path("/proc").glob("[0-9]*/comm"):
                with contextlib.suppress(OSError, LabError, ValueError):
                    if path.read_text().startswith("Suricata-Main") and self._is_ours(path.parent):
                        total += memory_mib(int(path.parent.name))
            self.mib = max(self.mib, total)

    def _is_ours(self, process: Path) -> bool:
        return self._directory in (process / "cmdline").read_bytes()


class Probes:
    """Numbered datagrams from the office to the internet at a steady pace, and how many arrived."""

    def __init__(self, lane: NativeLane) -> None:
        self._lane = lane
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.sent = 0
        self.received = 0

    def start(self) -> None:
        """Begin; returns when the receiver listens."""
        receiver = self._lane.internet.call(_receiver)
        sender = self._lane.office.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._threads = [
            threading.Thread(target=self._receive, args=(receiver,), daemon=True),
            threading.Thread(target=self._send, args=(sender,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the sending, wait for what is on its way."""
        self._stop.set()
        for thread in reversed(self._threads):
            thread.join(10)

    def _send(self, sender: socket.socket) -> None:
        with sender:
            while not self._stop.wait(1 / _PROBES_PER_S):
                sender.sendto(struct.pack("!Q", self.sent), (INTERNET_IPV4, _PROBE_PORT))
                self.sent += 1

    def _receive(self, receiver: socket.socket) -> None:
        seen: set[bytes] = set()
        quiet = 0
        with receiver:
            while quiet < 10 and not (self._stop.is_set() and len(seen) == self.sent):
                try:
                    seen.add(receiver.recv(64))
                except TimeoutError:
                    quiet += self._stop.is_set()
                self.received = len(seen)


def _receiver() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.bind(("", _PROBE_PORT))
    made.settimeout(0.1)
    return made
