"""The box is a cable: every kind of frame comes out on the other side as over a bare bridge, both ways.

Two lanes in the same run: a bare kernel bridge, and the product's bridge, gate, queue and engine. What the bare bridge
does is the measure; `wire_frames` says in two short lists where it may differ, and nothing else may.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_firmware.dataplane import PLAN
from omamori_firmware.recipe import source_tree
from omamori_lab.namespace import Namespace
from omamori_lab.native_wire import INTERNET_IPV4, INTERNET_IPV6, OFFICE_IPV4, NativeLane
from omamori_lab.office import parse_ping
from omamori_lab.raw_port import RawPort, opened, pass_frames, pass_nothing
from omamori_lab.run import run
from omamori_lab.wire_frames import (
    INTERNET,
    NEVER_FORWARDED,
    OFFICE,
    REFUSED_BY_FILTER,
    Frame,
    Station,
    frames,
    is_same,
    jumbo,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

WAYS = {"out": (OFFICE, INTERNET), "in": (INTERNET, OFFICE)}
STATES = ("no engine yet", "engine running", "engine dead")
FAR_IPV4, FAR_IPV6 = "192.168.77.2", "fd00:77::2"
NARROW_MTU = 1400


class Lanes:
    """Both lanes, and the state of the one that is a box."""

    def __init__(self, programs: tuple[Path, Path]) -> None:
        self.bare, self.box = NativeLane(), NativeLane()
        self._programs = programs
        self._tried_engine = False

    def start(self) -> None:
        self.bare.start()
        self.box.start()
        self.box.install_wire(self._programs[0])

    def stop(self) -> None:
        self.box.stop()
        self.bare.stop()

    def lane(self, state: str) -> NativeLane:
        """Bring a lane to a state, or skip what cannot be had any more."""
        if state == "bare":
            return self.bare
        if state == STATES[0]:
            assert self.box.engine is None, "the states come in their order"
        elif not self._tried_engine:
            self._tried_engine = True
            self.box.prepare_engine(self._programs[1], source_tree().engine / "feed-empty").start()
        if state == STATES[2]:
            assert self.box.engine is not None
            self.box.engine.kill()
        return self.box


@pytest.fixture(scope="module")
def lanes(programs: tuple[Path, Path]) -> Iterator[Lanes]:
    made = Lanes(programs)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def ports(lane: NativeLane, near: Station) -> tuple[tuple[Namespace, str], tuple[Namespace, str]]:
    inside, outside = (lane.office, "eth0"), (lane.internet, "eth0")
    return (inside, outside) if near is OFFICE else (outside, inside)


def differences(lane: NativeLane, way: str, sent: list[Frame], lost: list[Frame], *, exact: bool) -> list[str]:
    """Send frames and say what did not come out as it should; `lost` must not come out at all."""
    near, _ = WAYS[way]
    begin, end = ports(lane, near)
    with opened(*begin) as sender, opened(*end) as receiver:
        seen = pass_frames(sender, receiver, sent, timeout_s=3)
        leaked = pass_nothing(sender, receiver, lost)
    same = (lambda a, b: a == b) if exact else is_same
    wrong = [describe(frame, seen[frame.name]) for frame in sent if not same(frame.data, seen[frame.name])]
    return wrong + [f"came out although a bridge stops it: {data[:60].hex()}" for data in leaked]


def describe(frame: Frame, seen: bytes | None) -> str:
    return f"{frame.name}: {'lost' if seen is None else f'{frame.data.hex()} became {seen.hex()}'}"


def sorted_out(way: str, lost: frozenset[str]) -> tuple[list[Frame], list[Frame]]:
    made = frames(*WAYS[way])
    return [frame for frame in made if frame.name not in lost], [frame for frame in made if frame.name in lost]


@pytest.mark.parametrize("way", WAYS)
def test_what_a_bare_bridge_does(lanes: Lanes, way: str) -> None:
    sent, lost = sorted_out(way, NEVER_FORWARDED)
    assert differences(lanes.lane("bare"), way, sent, lost, exact=True) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES)
def test_the_box_does_the_same(lanes: Lanes, state: str, way: str) -> None:
    sent, lost = sorted_out(way, NEVER_FORWARDED | REFUSED_BY_FILTER)
    assert differences(lanes.lane(state), way, sent, lost, exact=False) == []


@pytest.fixture(scope="module")
def quick_lanes(programs: tuple[Path, Path]) -> Iterator[Lanes]:
    """Other lanes, so that each of the tests below can have its own order of states."""
    made = Lanes(programs)
    try:
        made.start()
        for lane in (made.bare, made.box):
            add_far_host(lane)
        yield made
    finally:
        made.stop()


def add_far_host(lane: NativeLane) -> None:
    """Put a host behind a router whose link takes less than the host knows: only ICMP can tell the office."""
    far = lane.add_namespace("far")
    link = f"link add narrow mtu {NARROW_MTU} type veth peer name eth0 netns {far.name}"
    lane.internet.configure(
        [link, "addr add 192.168.77.1/24 dev narrow", "addr add fd00:77::1/64 dev narrow nodad", "link set narrow up"]
    )
    far.configure(
        [
            f"addr add {FAR_IPV4}/24 dev eth0",
            f"addr add {FAR_IPV6}/64 dev eth0 nodad",
            "link set eth0 up",
            "route add default via 192.168.77.1",
            "route add default via fd00:77::1",
        ]
    )
    lane.internet.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    lane.office.configure([f"route add default via {INTERNET_IPV4}", f"route add default via {INTERNET_IPV6}"])


@pytest.mark.parametrize("state", ["bare", *STATES])
def test_large_pings_and_narrow_paths(quick_lanes: Lanes, state: str) -> None:
    lane = quick_lanes.lane(state)
    for host, address in ((lane.office, INTERNET_IPV4), (lane.office, INTERNET_IPV6)):
        for size in (1472, 8000, 60_000):
            words = ["ping", "-n", "-q", "-c", "3", "-i", "0.1", "-W", "2", "-s", str(size), address]
            assert parse_ping(run(host.command(words), timeout_s=20, check=False).output).received == 3, (address, size)
    for words in ("route flush cache", "-6 route flush cache"):
        run(lane.office.command(["ip", *words.split()]), timeout_s=10)
    data = os.urandom(400_000)
    for address in (FAR_IPV4, FAR_IPV6):
        assert upload(lane, address, data) == hashlib.sha256(data).hexdigest()
        # "Too big" has come back through the box: the office knows the path's MTU now.
        found = run(lane.office.command(["ip", "route", "get", address]), timeout_s=10).output
        assert f"mtu {NARROW_MTU}" in found


def upload(lane: NativeLane, address: str, data: bytes) -> str:
    """Send bytes from the office to the far host over TCP; return the hash of what arrived."""
    listener = lane.extra["far"].listen_tcp(address, 8000)
    digest = hashlib.sha256()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            while block := connection.recv(1 << 16):
                digest.update(block)

    server = threading.Thread(target=serve)
    server.start()
    with lane.office.call(lambda: socket.create_connection((address, 8000), timeout=20)) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
    server.join(20)
    listener.close()
    return digest.hexdigest()


@pytest.fixture(scope="module")
def wide_lanes(programs: tuple[Path, Path]) -> Iterator[Lanes]:
    """Lanes for packets of 9000 bytes."""
    made = Lanes(programs)
    try:
        made.start()
        for lane in (made.bare, made.box):
            for host in (lane.office, lane.internet):
                host.configure(["link set eth0 mtu 9000"])
            lane.box.configure([f"link set {port} mtu 9000" for port in ("wan", "lan1", PLAN.bridge)])
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("state", ["bare", *STATES])
def test_jumbo_frames_and_pings(wide_lanes: Lanes, state: str) -> None:
    lane = wide_lanes.lane(state)
    for way, (near, far) in WAYS.items():
        assert differences(lane, way, list(jumbo(near, far, mtu=9000)), [], exact=True) == []
    for host, address in ((lane.office, INTERNET_IPV4), (lane.internet, OFFICE_IPV4), (lane.office, INTERNET_IPV6)):
        words = ["ping", "-n", "-q", "-c", "2", "-i", "0.1", "-W", "2", "-M", "do", "-s", "8900", address]
        assert parse_ping(run(host.command(words), timeout_s=20, check=False).output).received == 2


def test_a_frame_that_is_too_long_is_not_forwarded_by_either(wide_lanes: Lanes) -> None:
    """Longer than the other port takes (a bridge allows for one VLAN tag): a bridge drops it, and so does the box."""
    for lane in (wide_lanes.bare, wide_lanes.box):
        lane.internet.configure(["link set eth0 mtu 1500"])
        lane.box.configure(["link set wan mtu 1500"])
        try:
            with opened(lane.office, "eth0") as sender, opened(lane.internet, "eth0") as receiver:
                fitting, *_ = jumbo(OFFICE, INTERNET, mtu=1500)
                long, *_ = jumbo(OFFICE, INTERNET, mtu=1505)
                assert pass_frames(sender, receiver, [fitting], timeout_s=2)[fitting.name] == fitting.data
                assert pass_nothing(sender, receiver, [long]) == []
        finally:
            lane.internet.configure(["link set eth0 mtu 9000"])
            lane.box.configure(["link set wan mtu 9000"])


def test_the_ports_of_the_test_see_what_is_there(lanes: Lanes) -> None:
    """The test's own ears: a frame that nobody sends is missed, a changed one is noticed."""
    frame = frames(OFFICE, INTERNET)[0]
    other = Frame("never sent", frame.data[:-1] + b"\x01")
    begin, end = ports(lanes.bare, OFFICE)
    with opened(*begin) as sender, opened(*end) as receiver:
        assert receiver.receive(timeout_s=0.1) is None or isinstance(receiver, RawPort)
        assert pass_frames(sender, receiver, [frame])[frame.name] == frame.data
        assert not is_same(other.data, frame.data)
        assert not is_same(frame.data, None)
