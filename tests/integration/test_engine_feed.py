"""Agent, engine and gate together, the real ones: feeds taken and refused, alerts told, with traffic on the wire.

Everything of the agent but its link runs as on the box, against a repository on loopback. The engine is restarted by
a thread here where systemd does it there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omamori_agent import engine as engine_package
from omamori_agent import feed as feed_package
from omamori_agent.clock import SystemClock
from omamori_agent.config import load_config
from omamori_agent.engine import EngineUnavailableError
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.gate import Gate
from omamori_agent.ports import Worker
from omamori_agent.status import StatusBoard
from omamori_firmware.dataplane.engine import (
    BOX_CACHE,
    BOX_CONFIGURATION,
    BOX_FEED,
    BOX_RUN,
    adapt_configuration,
)
from omamori_firmware.errors import ImageError
from omamori_firmware.recipe import source_tree
from omamori_lab.native_wire import INTERNET_IPV4, OFFICE_IPV4, NativeLane, obtain_programs
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import Action, Direction, EngineState, EventKind, FeedState, Function, Severity
from sim.box import make_box
from sim.outbox import MemoryOutbox
from sim.packs import PackSource
from sim.repository import FileServer, RepositorySimulator

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

BLOCKED_IPV4 = "203.0.113.99"
META = "metadata:omamori_function dangerous-site, omamori_severity 2, omamori_direction out"
DROP = 'drop:packet dns any any -> any any (msg:"bad name"; dns.query; to_lowercase;'
RULES = f"""\
{DROP} dataset:isset,dangerous; {META}; sid:1;)
{DROP} domain; dataset:isset,dangerous; {META}; sid:2;)
"""
FILE_RULE = 'drop tcp any any -> any any (msg:"bad file"; filesha256:malware.sha256; sid:3;)\n'
LIMITS = FeedLimits(
    canary_tries=0, settle_s=1.0, settle_poll_s=0.1, reserve_bytes=0, retry_first_s=0.2, retry_cap_s=1.0
)


def pack(serial: int, *names: str, rules: str = RULES, **changes: dict[str, tuple[str, ...]]) -> PackSource:
    source = PackSource(serial=serial, domains={"dangerous": tuple(sorted(names))}, rules=rules.encode())
    source.addresses = changes.get("addresses", {"blocked": (BLOCKED_IPV4,)})
    source.digests = changes.get("digests", {})
    source.domains |= changes.get("domains", {})
    return source


class ProtectedLane:
    """A lane whose box runs the agent's engine and feed parts."""

    def __init__(self, programs: tuple[Path, Path]) -> None:
        self.stop_event = threading.Event()
        self.may_restart = threading.Event()
        self.may_restart.set()
        self.outbox = MemoryOutbox()
        self.status = StatusBoard()
        self.threads: list[threading.Thread] = []
        self.dead: list[str] = []
        self.lane = lane = NativeLane()
        lane.start()
        wire = lane.install_wire(programs[0])
        self.paths = paths = make_box(lane.directory / "box")
        shutil.rmtree(paths.run)
        (lane.directory / "run").mkdir(exist_ok=True)
        paths.run.symlink_to(lane.directory / "run")
        paths.slot.write_text("A\n")
        (paths.run / "agent").mkdir()
        source = source_tree()
        shutil.copytree(source.engine / "feed-empty", paths.empty_feed, dirs_exist_ok=True)
        paths.feed_current.unlink()
        # Relative: the engine's own root must not be left by it.
        paths.feed_current.symlink_to(os.path.relpath(paths.empty_feed, paths.feed))
        self.engine = lane.prepare_engine(programs[1], paths.feed_current)
        places = {
            BOX_CONFIGURATION: lane.directory / "files",
            BOX_FEED: paths.feed_current,
            BOX_RUN: paths.run,
            BOX_CACHE: lane.directory / "cache",
        }
        text = (source.engine / "suricata.yaml").read_text()
        paths.engine_config.write_text(adapt_configuration(text, places))
        lane.internet.configure([f"addr add {BLOCKED_IPV4}/32 dev eth0"])
        lane.office.configure([f"route add {BLOCKED_IPV4}/32 via {INTERNET_IPV4}"])
        self.gate = Gate(wire.pins)
        self.repo = RepositorySimulator()
        self.server = FileServer(self.repo.files, lane.directory)

    def start(self) -> None:
        self.server.__enter__()
        paths = self.paths
        paths.trust_root.write_bytes(self.repo.trusted_root)
        shutil.copy(self.server.ca_file, paths.service_ca)
        url = self.server.url
        paths.provision.write_text(paths.provision.read_text().replace("https://localhost:1", url))
        paths.provision.chmod(0o640)
        self.engine.start()
        self._spawn("supervisor", self._supervise)
        config = load_config(paths.root)
        clock = SystemClock()
        self.feature = engine_package.build(config, self.outbox, self.status, clock, self.gate)
        feed = feed_package.build(config, self.outbox, self.status, clock, self.feature, LIMITS)
        self.announce = feed.on_announcement
        for worker in [*self.feature.workers, *feed.workers]:
            self._spawn(worker.name, lambda worker=worker: self._guard(worker))  # type: ignore[misc]

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _guard(self, worker: Worker) -> None:
        try:
            worker.run(self.stop_event)
        except BaseException:
            self.dead.append(worker.name)
            raise

    def _supervise(self) -> None:
        """What systemd does with Restart=always."""
        while not self.stop_event.wait(0.1):
            process = self.engine._process
            if process is not None and process.poll() is not None and self.may_restart.is_set():
                self.engine.start()

    def end(self) -> None:
        self.stop_event.set()
        for thread in self.threads:
            thread.join(30)
        self.server.__exit__()
        self.gate.close()
        self.lane.stop()

    def publish(self, source: PackSource) -> None:
        self.repo.publish(source.build(), source.serial)
        self.announce(source.serial)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert not self.dead, f"died: {self.dead}"
            assert time.monotonic() < deadline, f"not in time: {self.status.get()} {self.engine.tail()}"
            time.sleep(0.02)

    def take(self, source: PackSource) -> None:
        """Publish a feed and wait until it is active."""
        self.publish(source)
        self.wait(lambda: self.shown == (source.serial, FeedState.ACTIVE, ""))

    @property
    def shown(self) -> tuple[int, FeedState, str]:
        status = self.status.get()
        return status.feed_serial, status.feed_state, status.feed_reason

    def alerts(self, destination: str) -> list[Event]:
        return [event for event in self.outbox.of(EventKind.ALERT) if event.destination == destination]

    @property
    def office_mac(self) -> bytes:
        read = self.lane.office.call(lambda: _mac("eth0"))
        return bytes.fromhex(read.replace(":", ""))

    def resolves(self, name: str, *, timeout_s: float = 0.7) -> bool:
        """Whether a DNS query of the office for `name` reaches the internet."""
        server = self.lane.internet.bind_udp(INTERNET_IPV4, 53)
        server.settimeout(timeout_s)
        with server, self.lane.office.bind_udp(OFFICE_IPV4) as client:
            client.sendto(query(name), (INTERNET_IPV4, 53))
            with contextlib.suppress(TimeoutError):
                return bool(server.recv(600))
        return False


def _mac(interface: str) -> str:
    request = struct.pack("256s", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return fcntl.ioctl(probe.fileno(), 0x8927, request)[18:24].hex(":")  # SIOCGIFHWADDR


def query(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


@pytest.fixture(scope="module")
def lane() -> Iterator[ProtectedLane]:
    try:
        programs = obtain_programs()
    except ImageError as err:
        pytest.skip(f"no engine: {err}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_package, "ROTATE_BYTES", 8000)
        made = ProtectedLane(programs)
        # The engine's program for its test of a feed; the box has it on its path.
        program = made.lane.directory / "bin/suricata"
        program.parent.mkdir()
        root = programs[1]
        libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"
        loader = f"{root}/lib64/ld-linux-x86-64.so.2 --library-path {libraries}"
        program.write_text(f'#!/bin/sh\nexec {loader} {root}/usr/bin/suricata "$@"\n')
        program.chmod(0o755)
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        try:
            made.start()
            made.wait(lambda: made.status.get().engine is EngineState.INSPECTING)
            yield made
        finally:
            made.end()


@pytest.fixture(scope="module")
def protected(lane: ProtectedLane) -> ProtectedLane:
    """The lane with its first feed active."""
    assert lane.shown == (0, FeedState.NONE, "")
    assert lane.resolves("malware.test")
    lane.take(pack(1, "malware.test"))
    return lane


def test_first_feed_blocks_a_name_and_tells_who_asked(protected: ProtectedLane) -> None:
    assert protected.resolves("good.test")
    assert not protected.resolves("www.malware.test")
    protected.wait(lambda: bool(protected.alerts("www.malware.test")))
    (event,) = protected.alerts("www.malware.test")
    assert (event.function, event.severity) == (Function.DANGEROUS_SITE, Severity.TWO)
    assert (event.direction, event.action, event.protocol) == (Direction.OUT, Action.BLOCKED, "dns")
    assert (event.terminal_ip, event.terminal_mac) == (OFFICE_IPV4, protected.office_mac)
    assert (event.remote_ip, event.remote_port) == (INTERNET_IPV4, 53)
    assert protected.status.get().uninspected_s >= 0


def test_exact_name_that_two_rules_match_is_one_occurrence(protected: ProtectedLane) -> None:
    assert not protected.resolves("malware.test")
    protected.wait(lambda: bool(protected.alerts("malware.test")))
    time.sleep(1.0)
    assert [event.count for event in protected.alerts("malware.test")] == [1]


def test_blocked_address(protected: ProtectedLane) -> None:
    with protected.lane.office.bind_udp(OFFICE_IPV4) as client:
        for _ in range(3):
            client.sendto(b"x", (BLOCKED_IPV4, 4444))
    protected.wait(lambda: bool(protected.alerts(BLOCKED_IPV4)))
    event = protected.alerts(BLOCKED_IPV4)[0]
    assert (event.function, event.severity, event.direction) == (Function.DANGEROUS_SITE, Severity.TWO, Direction.OUT)
    assert (event.terminal_ip, event.terminal_mac) == (OFFICE_IPV4, protected.office_mac)
    assert (event.remote_port, event.protocol, event.action) == (4444, "udp", Action.BLOCKED)
    assert event.rule == "address list blocked"


def test_published_to_blocked_within_five_seconds_and_without_a_reload(protected: ProtectedLane) -> None:
    assert protected.resolves("new.test")
    before = protected.feature.control.run_id()
    started = time.monotonic()
    protected.publish(pack(2, "malware.test", "new.test"))
    while protected.resolves("new.test", timeout_s=0.2):
        assert time.monotonic() - started < 5
    protected.wait(lambda: protected.shown == (2, FeedState.ACTIVE, ""))
    assert protected.feature.control.run_id() == before
    protected.take(pack(3, "malware.test"))
    assert protected.resolves("new.test")


def test_rules_that_do_not_load_are_refused_in_the_engines_own_words(protected: ProtectedLane) -> None:
    serial = protected.shown[0]
    protected.publish(
        pack(serial + 1, "malware.test", rules=RULES + "alert tcp any any -> any any (nokeyword:1; sid:9;)\n")
    )
    protected.wait(lambda: protected.shown[1] is FeedState.REFUSED)
    assert protected.shown[0] == serial
    assert "unknown rule keyword 'nokeyword'" in protected.shown[2]
    assert not protected.resolves("malware.test")
    protected.take(pack(serial + 2, "malware.test"))


def test_rules_and_empty_lists_of_the_next_feed(protected: ProtectedLane) -> None:
    serial = protected.shown[0] + 1
    before = protected.feature.control.run_id()
    protected.take(pack(serial, "malware.test", rules=RULES + FILE_RULE, digests={"malware": ()}))
    assert protected.feature.control.run_id() == before
    assert protected.feature.control.ruleset_stats().failed == 0
    digest = hashlib.sha256(b"bad").hexdigest()
    protected.take(pack(serial + 1, rules=RULES + FILE_RULE, digests={"malware": (digest,)}))
    assert protected.resolves("malware.test")
    protected.take(pack(serial + 2, "malware.test", rules=RULES + FILE_RULE, digests={"malware": (digest,)}))
    assert not protected.resolves("malware.test")


def test_new_list_restarts_the_engine_and_traffic_passes_meanwhile(protected: ProtectedLane) -> None:
    before = protected.feature.control.run_id()
    serial = protected.shown[0] + 1
    protected.publish(pack(serial, "malware.test", domains={"games": ("games.test",)}))
    while protected.shown[0] != serial:
        started = time.monotonic()
        while not protected.resolves("good.test", timeout_s=0.1):
            assert time.monotonic() - started < 3  # what is in the queue when the engine ends is lost
    assert protected.feature.control.run_id() != before
    assert protected.feature.control.has_entry("games", b"games.test")
    assert not protected.resolves("malware.test")
    texts = [event.text or "" for event in protected.outbox.of(EventKind.SYSTEM)]
    assert all("engine" in text for text in texts)


def test_each_alert_once_although_the_log_is_rotated(protected: ProtectedLane) -> None:
    names = [f"n{number}.malware.test" for number in range(60)]
    for name in names:
        assert not protected.resolves(name, timeout_s=0.05)
    protected.wait(lambda: all(protected.alerts(name) for name in names))
    assert [len(protected.alerts(name)) for name in names] == [1] * len(names)
    protected.wait(lambda: not protected.paths.eve.exists() or protected.paths.eve.stat().st_size < 60 * 400)


def test_engine_that_crashes_is_told_and_protects_again(protected: ProtectedLane) -> None:
    count = len(protected.outbox.of(EventKind.SYSTEM))
    uninspected_s = protected.status.get().uninspected_s
    process = protected.engine._process
    assert process is not None
    protected.may_restart.clear()  # the watch looks once a second, and an engine may be back sooner
    process.kill()
    protected.wait(lambda: protected.status.get().engine is not EngineState.INSPECTING)
    assert protected.status.get().uninspected_s > uninspected_s
    protected.may_restart.set()

    def is_back() -> bool:
        with contextlib.suppress(EngineUnavailableError):
            return protected.status.get().engine is EngineState.INSPECTING and not protected.resolves("malware.test")
        return False

    protected.wait(is_back)
    protected.wait(lambda: len(protected.outbox.of(EventKind.SYSTEM)) >= count + 2)
