"""Whatever happens to the engine, the office keeps its connection, and what passed uninspected is known.

Each test brings the box into one kind of trouble while a probe crosses the wire. No test measures time: it waits for
the state it wants and asserts what arrived and what was counted. The figures are the bench's business.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from omamori_agent.gate import Gate, Uninspected
from omamori_firmware.dataplane import PLAN
from omamori_firmware.dataplane.build import OBJECT
from omamori_firmware.dataplane.engine import NativeEngine
from omamori_firmware.dataplane.native import NativeWire
from omamori_firmware.dataplane.watch import NativeWatch
from omamori_firmware.errors import ToolError
from omamori_firmware.run import run
from omamori_lab.native_wire import INTERNET_IPV4, OFFICE_IPV4, NativeLane
from omamori_lab.waiting import wait_for
from sim.wire_traffic import Control, Trouble, fetch, http, serving, write_feed

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

OWN_IPV4 = "192.168.10.2"
FOREVER = ("--kill-ms", "3600000")
SO_RCVBUFFORCE = 33  # asm-generic/socket.h


class Box:
    """A lane with everything on it, and ways to bring it into trouble."""

    def __init__(self, lane: NativeLane, gate: Gate, watch: NativeWatch) -> None:
        assert lane.engine is not None
        assert lane.wire is not None
        self.lane = lane
        self.gate = gate
        self.watch = watch
        self.engine: NativeEngine = lane.engine
        self.wire: NativeWire = lane.wire
        self.trouble = Trouble(self.engine)

    def start_engine(self) -> None:
        self.engine.start()
        self.watch.look_after(self.engine.pid)

    def uninspected(self) -> dict[Uninspected, int]:
        return {reason: count.packets for reason, count in self.gate.uninspected().items()}

    def ask(self, number: int) -> bool:
        """Send one numbered datagram from the office; whether the internet gets it."""
        return ask(self.lane, b"number %d" % number)

    def queued(self) -> int:
        """How many packets the kernel has queued to the present engine."""
        table = run(self.lane.box.command(["cat", "/proc/net/netfilter/nfnetlink_queue"]), timeout_s=10)
        return sum(int(line.split()[7]) for line in table.decode().splitlines())


def ask(lane: NativeLane, payload: bytes, *, port: int = 5000) -> bool:
    with lane.internet.bind_udp(INTERNET_IPV4, port) as server, lane.office.bind_udp(OFFICE_IPV4) as client:
        server.settimeout(0.2)
        client.sendto(payload, (INTERNET_IPV4, port))
        with contextlib.suppress(TimeoutError):
            return server.recv(2000) == payload
    return False


class Probe:
    """Numbered datagrams, one every millisecond or so, from the office to the internet."""

    def __init__(self, lane: NativeLane) -> None:
        self._server = lane.internet.bind_udp(INTERNET_IPV4, 7000)
        self._client = lane.office.bind_udp(OFFICE_IPV4, 7000)
        self._server.settimeout(0.1)
        # A starved reader must not look like a loss on the wire.
        self._server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._stop = threading.Event()
        self.sent = 0
        self.seen: set[int] = set()
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.more(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._server.close()
        self._client.close()

    def more(self, count: int) -> None:
        """Wait until so many more have arrived."""
        goal = len(self.seen) + count
        wait_for(lambda: len(self.seen) >= goal, f"{count} more datagrams", timeout_s=20, every_s=0.01)

    def lost(self) -> set[int]:
        """Which of those that must have arrived by now did not."""
        last = self.sent
        wait_for(lambda: max(self.seen, default=0) >= last, "the probe", timeout_s=20, every_s=0.01)
        deadline = time.monotonic() + 2
        while (missing := set(range(last)) - self.seen) and time.monotonic() < deadline:
            time.sleep(0.01)  # one that waits in a queue is overtaken, not lost
        return missing

    def _send(self) -> None:
        while not self._stop.wait(0.001):
            self._client.sendto(b"%d" % self.sent, (INTERNET_IPV4, 7000))
            self.sent += 1

    def _receive(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self.seen.add(int(self._server.recv(100)))


@pytest.fixture(scope="module")
def module_box(programs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    lane = NativeLane()
    lane.start()
    watch: NativeWatch | None = None
    gate: Gate | None = None
    try:
        wire = lane.install_wire(programs[0])
        lane.prepare_engine(programs[1], write_feed(tmp_path_factory.mktemp("feed") / "feed"))
        watch = NativeWatch(PLAN, lane.box.path, programs[0], wire.pins, lane.directory)
        gate = Gate(wire.pins)
        yield Box(lane, gate, watch)
    finally:
        if watch is not None:
            watch.stop()
        if gate is not None:
            gate.close()
        lane.stop()


@pytest.fixture
def box(module_box: Box) -> Iterator[Box]:
    """A box that inspects, with a watch that kills as the product's does."""
    module_box.watch.start()
    module_box.start_engine()
    yield module_box
    module_box.watch.stop()
    module_box.trouble.end()
    module_box.engine.kill()
    module_box.gate.set_fail_closed(on=False)


def test_what_the_engine_lets_through_is_never_counted_as_uninspected(box: Box) -> None:
    before = box.uninspected()
    with Probe(box.lane) as probe:
        probe.more(500)
        assert not probe.lost()
    with serving(box.lane, 80, http(b"x" * 300_000)):
        assert len(fetch(box.lane, timeout_s=5)) == 300_000
    assert not ask(box.lane, b"forbidden")
    assert box.uninspected() == before


def test_engine_not_started(box: Box) -> None:
    box.engine.kill()
    before = box.uninspected()[Uninspected.NO_VERDICT]
    assert all(box.ask(number) for number in range(20))
    assert box.uninspected()[Uninspected.NO_VERDICT] - before >= 20


def test_starting_engine_loses_nothing(box: Box) -> None:
    box.engine.kill()
    with Probe(box.lane) as probe:
        box.start_engine()
        probe.more(200)
        assert not probe.lost()
    assert not ask(box.lane, b"forbidden")


def test_reload_loses_nothing(box: Box) -> None:
    control = Control(box.engine.control_socket)
    with contextlib.closing(control), Probe(box.lane) as probe:
        for _ in range(3):
            assert control("reload-rules")["return"] == "OK"
        probe.more(100)
        assert not probe.lost()


def test_killed_engine_is_counted_and_connections_go_on(box: Box) -> None:
    with serving(box.lane, 9000, echo), connected(box.lane, 9000) as client, Probe(box.lane) as probe:
        converse(client, 20)
        before = box.uninspected()[Uninspected.NO_VERDICT]
        box.engine.kill()
        converse(client, 100)
        probe.more(200)
        assert box.uninspected()[Uninspected.NO_VERDICT] - before >= 200
        box.start_engine()
        converse(client, 100)
    assert not ask(box.lane, b"forbidden")


def test_hung_engine_is_passed_by_before_it_is_killed(box: Box) -> None:
    box.watch.stop()
    box.watch.start(*FOREVER)
    box.watch.look_after(box.engine.pid)
    before = box.uninspected()[Uninspected.HUNG]
    with Probe(box.lane) as probe:
        box.trouble.stop()
        probe.more(200)
        assert box.watch.state()["is_hung"]
        assert box.watch.state()["kills"] == 0
        assert box.gate.hung_until() is not None
        assert box.uninspected()[Uninspected.HUNG] - before >= 100
        box.trouble.end()  # it had only been busy
        wait_for(lambda: not box.watch.state()["is_hung"], "end of the lease", timeout_s=20)
        assert box.gate.hung_until() is None
        assert not probe.lost()
    assert box.watch.state()["recoveries"] == 1
    assert not ask(box.lane, b"forbidden")


def test_hung_engine_is_killed_and_traffic_goes_on(box: Box) -> None:
    with serving(box.lane, 9000, echo), connected(box.lane, 9000) as client, Probe(box.lane) as probe:
        converse(client, 20)
        box.trouble.stop()
        converse(client, 50)
        wait_for(lambda: box.watch.state()["kills"] == 1, "kill", timeout_s=20)
        wait_for(lambda: not box.watch.state()["is_hung"], "end of the lease", timeout_s=20)
        assert box.gate.hung_until() is None
        probe.more(100)
        box.engine.kill()  # collects what the watch has killed
        box.trouble.end()
        box.start_engine()
        converse(client, 50)
    assert "killed the engine" in box.watch.log()
    assert not ask(box.lane, b"forbidden")


def test_planned_stop_passes_by_first_and_loses_nothing(box: Box) -> None:
    before = box.uninspected()
    with Probe(box.lane) as probe:
        box.watch.pause()
        wait_for(lambda: box.watch.state()["is_paused"], "pause", timeout_s=20, every_s=0.005)
        assert box.gate.control().paused_until is not None
        box.engine.stop()
        wait_for(lambda: not box.watch.state()["is_paused"], "end of the pause", timeout_s=20)
        assert box.gate.control().paused_until is None
        probe.more(100)
        assert not probe.lost()
    assert box.watch.state()["hangs"] == 0
    assert box.uninspected()[Uninspected.HUNG] == before[Uninspected.HUNG]
    assert box.uninspected()[Uninspected.PAUSED] > before[Uninspected.PAUSED]


def test_engine_that_the_agent_restarts_loses_nothing(box: Box) -> None:
    with Probe(box.lane) as probe:
        box.gate.pause_engine()
        probe.more(50)
        box.engine.stop()
        probe.more(50)
        box.start_engine()
        box.gate.resume_engine()
        probe.more(50)
        assert not probe.lost()
    assert not ask(box.lane, b"forbidden")


def test_lease_of_a_watch_that_died_ends_by_itself(box: Box) -> None:
    box.watch.stop()
    box.watch.start(*FOREVER)
    with Probe(box.lane) as probe:
        box.trouble.stop()
        wait_for(lambda: box.watch.state().get("is_hung"), "lease", timeout_s=20)
        box.watch.kill()
        wait_for(lambda: box.gate.hung_until() is None, "end of the lease", timeout_s=20)
        box.trouble.end()
        probe.more(50)
    assert not ask(box.lane, b"forbidden")


def test_full_queue_passes_and_is_counted(box: Box) -> None:
    box.watch.stop()
    before = box.uninspected()[Uninspected.NO_VERDICT]
    box.trouble.stop()
    server = box.lane.internet.bind_udp(INTERNET_IPV4, 7100)
    client = box.lane.office.bind_udp(OFFICE_IPV4, 7100)
    with server, client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        for _ in range(PLAN.queue_length + 500):
            client.sendto(b"x", (INTERNET_IPV4, 7100))
        client.sendto(b"last", (INTERNET_IPV4, 7100))
        server.settimeout(10)
        while server.recv(100) != b"last":
            pass
        passed = box.uninspected()[Uninspected.NO_VERDICT] - before
        assert passed >= 400
        box.trouble.end()
        for _ in range(PLAN.queue_length):
            assert server.recv(100) == b"x"


def test_engine_that_runs_out_of_memory(box: Box, memory_group: Path) -> None:
    with serving(box.lane, 9000, echo), connected(box.lane, 9000) as client, Probe(box.lane) as probe:
        converse(client, 20)
        control = Control(box.engine.control_socket, timeout_s=0.5)
        (memory_group / "cgroup.procs").write_text(f"{box.engine.pid}\n")
        with more_rules(box.engine.feed, 3000):
            with contextlib.closing(control), contextlib.suppress(OSError, ValueError):
                control("reload-rules")
            wait_for(box.engine.has_ended, "end of the engine", timeout_s=60)
        converse(client, 100)
        probe.more(100)


@contextlib.contextmanager
def more_rules(feed: Path, count: int) -> Iterator[None]:
    """Add rules to a feed for a while."""
    rules = feed / "engine" / "all.rules"
    good = rules.read_text()
    lines = (
        f'alert tcp any any -> any any (msg:"{number}"; content:"word{number}"; sid:{100_000 + number};)\n'
        for number in range(count)
    )
    rules.write_text(good + "".join(lines))
    try:
        yield
    finally:
        rules.write_text(good)


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group with less memory than a reload of the engine needs."""
    roots = [(Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")]
    name = f"omamori-test-{os.getpid()}"
    for root, limit in roots:
        group = root / name
        try:
            group.mkdir()
            (group / limit).write_text(f"{2 << 20}")
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        yield group
        wait_for(lambda: not (group / "cgroup.procs").read_text(), "empty group", timeout_s=20)  # noqa: B023
        group.rmdir()
        return
    pytest.skip("no control group with a limit of memory")


def test_full_disk_stops_neither_traffic_nor_inspection(box: Box) -> None:
    box.engine.stop()
    for place in (box.engine.events.parent, box.lane.directory / "cache"):
        run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=0777", "full", place], timeout_s=10)
    try:
        for place in (box.engine.events.parent, box.lane.directory / "cache"):
            with contextlib.suppress(OSError), (place / "filling").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        box.start_engine()
        with Probe(box.lane) as probe:
            for _ in range(20):
                assert not ask(box.lane, b"forbidden")
            probe.more(50)
            assert not probe.lost()
    finally:
        box.engine.stop()
        for place in (box.engine.events.parent, box.lane.directory / "cache"):
            run(["umount", place], timeout_s=10)


def test_damaged_matchers_of_the_cache_do_not_stop_the_engine(box: Box) -> None:
    box.engine.stop()
    cache = box.lane.directory / "cache"
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(os.urandom(5000))
    box.start_engine()
    assert box.ask(1)
    assert not ask(box.lane, b"forbidden")


def test_feed_that_cannot_be_loaded_leaves_the_wire_open(box: Box) -> None:
    box.engine.stop()
    rules = box.engine.feed / "engine" / "all.rules"
    good = rules.read_bytes()
    rules.write_bytes(os.urandom(5000))
    try:
        with Probe(box.lane) as probe:
            with contextlib.suppress(Exception):
                box.engine.start(timeout_s=20)
            probe.more(100)
            assert not probe.lost()
    finally:
        box.engine.stop()
        rules.write_bytes(good)
    box.start_engine()
    assert not ask(box.lane, b"forbidden")


def test_without_gate_the_queue_inspects_and_is_open(box: Box) -> None:
    for port in ("wan", "lan1"):
        run(box.lane.box.command(["tc", "qdisc", "del", "dev", port, "clsact"]), timeout_s=10)
    try:
        assert box.ask(1)
        assert not ask(box.lane, b"forbidden")
        with Probe(box.lane) as probe:
            box.trouble.stop()  # no lease can help; the kill does
            wait_for(lambda: box.watch.state()["kills"] == 1, "kill", timeout_s=20)
            probe.more(100)
        box.engine.kill()
        box.trouble.end()
        assert box.ask(2)
    finally:
        box.wire.refresh()


def test_gate_that_does_not_load_leaves_the_wire_open(
    lane: NativeLane, tmp_path: Path, programs: tuple[Path, Path]
) -> None:
    broken = tmp_path / "programs"
    broken.mkdir()
    for path in programs[0].iterdir():
        (broken / path.name).symlink_to(path)
    (broken / OBJECT).unlink()
    (broken / OBJECT).write_bytes(b"no program")
    with pytest.raises(ToolError):
        lane.install_wire(broken)
    assert all(ask(lane, b"number %d" % number) for number in range(20))


def test_fail_closed_drops_what_nothing_has_inspected(box: Box) -> None:
    box.gate.set_fail_closed(on=True)
    with Probe(box.lane) as probe:
        probe.more(200)
        assert not probe.lost()
    box.engine.kill()
    assert not any(box.ask(number) for number in range(5))
    with own_address(box.lane):
        assert own_exchange(box.lane, b"the cloud")
    box.start_engine()
    assert box.ask(6)
    box.gate.set_fail_closed(on=False)
    box.engine.kill()
    assert box.ask(7)


def test_the_box_s_own_traffic_is_inspected_and_needs_no_engine(box: Box) -> None:
    with own_address(box.lane):
        assert own_exchange(box.lane, b"the cloud")
        assert not own_exchange(box.lane, b"forbidden out", answer=b"x")
        assert not own_exchange(box.lane, b"question", answer=b"forbidden in", port=5000, own_port=5000)
        before = box.queued()
        server = box.lane.box.bind_udp("127.0.0.1", 5000)
        client = box.lane.box.bind_udp("127.0.0.1")
        with server, client:
            server.settimeout(5)
            client.sendto(b"forbidden", ("127.0.0.1", 5000))
            assert server.recv(100) == b"forbidden"
        assert box.queued() == before
        box.engine.kill()
        assert own_exchange(box.lane, b"forbidden out", answer=b"x")


@contextlib.contextmanager
def own_address(lane: NativeLane) -> Iterator[None]:
    """Give the box its management address."""
    lane.box.configure([f"addr add {OWN_IPV4}/24 dev {PLAN.bridge}"])
    try:
        yield
    finally:
        lane.box.configure([f"addr del {OWN_IPV4}/24 dev {PLAN.bridge}"])


def own_exchange(
    lane: NativeLane, question: bytes, *, answer: bytes = b"answer", port: int = 5000, own_port: int = 0
) -> bool:
    """Let the box ask the internet; whether question and answer arrived."""
    with lane.internet.bind_udp(INTERNET_IPV4, port) as server, lane.box.bind_udp(OWN_IPV4, own_port) as client:
        server.settimeout(0.5)
        client.settimeout(0.5)
        client.sendto(question, (INTERNET_IPV4, port))
        with contextlib.suppress(TimeoutError):
            data, sender = server.recvfrom(2000)
            server.sendto(answer, sender)
            return data == question and client.recv(2000) == answer
    return False


def echo(connection: socket.socket) -> None:
    connection.settimeout(30)
    while data := connection.recv(100):
        connection.sendall(data)


@contextlib.contextmanager
def connected(lane: NativeLane, port: int) -> Iterator[socket.socket]:
    client = lane.office.call(lambda: socket.create_connection((INTERNET_IPV4, port), timeout=20))
    with client:
        yield client


def converse(client: socket.socket, rounds: int) -> None:
    """Say something over a connection and hear it, again and again."""
    for number in range(rounds):
        client.sendall(b"%05d" % number)
        assert client.recv(100) == b"%05d" % number
