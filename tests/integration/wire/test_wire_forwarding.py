"""Bridge, queue without an engine, gate and loader, with real packets through three namespaces."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from omamori_agent.gate import Gate, unset_bridge_settings
from omamori_agent.gate.layout import ConfigFlag, Counter, MapName
from omamori_firmware.dataplane import PLAN
from omamori_firmware.dataplane.build import LOADER, OBJECT
from omamori_firmware.errors import ToolError
from omamori_firmware.run import run
from omamori_lab.namespace import Namespace
from omamori_lab.native_wire import (
    INTERNET_IPV4,
    INTERNET_IPV6,
    OFFICE_IPV4,
    OFFICE_IPV6,
    NativeLane,
)
from omamori_protocol.vocabulary import Direction
from sim.sniffer import mac_of, sniffing

pytestmark = pytest.mark.root

PROGRAMS = ("gate_ingress", "gate_egress")
# What the agent's group may write; everything else it may only read.
WRITABLE = {MapName.CONTROL, MapName.BLOCK, MapName.BLOCKED, MapName.EXEMPT, MapName.EXEMPT_MAC}


def answers_ping(lane: NativeLane, address: str) -> bool:
    line = lane.office.command(["ping", "-n", "-c", "1", "-W", "1", address])
    try:
        run(line, timeout_s=10)
    except ToolError:
        return False
    return True


def datagram_arrives(sender: Namespace, receiver: Namespace, address: str, port: int = 5353) -> bool:
    target = receiver.bind_udp(address, port)
    target.settimeout(0.5)
    source = sender.call(lambda: socket.socket(target.family, socket.SOCK_DGRAM))
    with target, source:
        source.sendto(b"hello", (address, port))
        with contextlib.suppress(TimeoutError):
            return target.recv(100) == b"hello"
    return False


def transfer(lane: NativeLane, address: str, data: bytes) -> str:
    """Send bytes from the office to the internet over TCP; return the hash of what arrived."""
    listener = lane.internet.listen_tcp(address, 8000)
    digest = hashlib.sha256()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while block := connection.recv(1 << 16):
                digest.update(block)

    server = threading.Thread(target=serve)
    server.start()
    with lane.office.call(lambda: socket.create_connection((address, 8000), timeout=10)) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
    server.join(10)
    listener.close()
    return digest.hexdigest()


@pytest.mark.parametrize("address", [INTERNET_IPV4, INTERNET_IPV6])
def test_bare_bridge_forwards(lane: NativeLane, address: str) -> None:
    assert answers_ping(lane, address)


@pytest.mark.parametrize("address", [INTERNET_IPV4, INTERNET_IPV6])
def test_without_an_engine_everything_passes_the_queue(wired: NativeLane, gate: Gate, address: str) -> None:
    data = os.urandom(3_000_000)
    assert answers_ping(wired, address)
    assert transfer(wired, address, data) == hashlib.sha256(data).hexdigest()
    counters = gate.counters()
    assert counters[Counter.INSPECTED].bytes > len(data)
    assert counters[Counter.BYPASSED].packets == 0


def test_large_datagrams_pass_in_fragments(wired: NativeLane, gate: Gate) -> None:
    for address in (INTERNET_IPV4, INTERNET_IPV6):
        target = wired.internet.bind_udp(address, 5000)
        target.settimeout(3)
        source = wired.office.call(lambda family=target.family: socket.socket(family, socket.SOCK_DGRAM))
        data = os.urandom(9000)
        with target, source:
            source.sendto(data, (address, 5000))
            assert target.recv(20000) == data
    assert not list(gate.bypassed_flows())


def test_gate_knows_its_two_ports_and_bridge_settings_are_read_back(wired: NativeLane, gate: Gate) -> None:
    config = gate.config()
    assert config.flags == ConfigFlag.ENABLED | ConfigFlag.BLOCK_ENABLED | ConfigFlag.BYPASS_ENABLED
    numbers = wired.box.call(lambda: {name: number for number, name in socket.if_nameindex()})
    assert (config.wan_ifindex, config.lan_ifindex) == (numbers["wan"], numbers["lan1"])
    assert wired.box.call(unset_bridge_settings) == ()


def test_terminals_are_learned_with_their_mac_and_only_inside(wired: NativeLane, gate: Gate) -> None:
    before = time.time()
    answers_ping(wired, INTERNET_IPV4)
    answers_ping(wired, INTERNET_IPV6)
    for address in (OFFICE_IPV4, OFFICE_IPV6):
        terminal = gate.terminal(address)
        assert terminal is not None
        assert terminal.mac == mac_of(wired.office)
        assert before - 1 < terminal.first_seen <= terminal.last_seen < time.time() + 1
        assert terminal.tx_packets >= 1
    assert gate.terminal(INTERNET_IPV4) is None
    assert gate.terminal(INTERNET_IPV6) is None


@pytest.mark.parametrize(
    ("listed", "inside", "outside"),
    [(f"{INTERNET_IPV4}/32", OFFICE_IPV4, INTERNET_IPV4), ("fd00:10::1/128", OFFICE_IPV6, INTERNET_IPV6)],
    ids=["IPv4", "IPv6"],
)
def test_listed_address_is_cut_off_both_ways_and_reported_with_the_terminal(
    wired: NativeLane, gate: Gate, listed: str, inside: str, outside: str
) -> None:
    assert datagram_arrives(wired.office, wired.internet, outside)
    assert gate.sync_block_lists({9: [ipaddress.ip_network(listed)]}) == (1, 0)
    assert not datagram_arrives(wired.office, wired.internet, outside, 7000)
    assert not datagram_arrives(wired.internet, wired.office, inside, 7001)
    assert not answers_ping(wired, outside)
    records = {(record.direction, record.dport): record for record in gate.drain_blocked()}
    outgoing, incoming = records[Direction.OUT, 7000], records[Direction.IN, 7001]
    assert (str(outgoing.src), str(outgoing.dst), outgoing.proto) == (inside, outside, 17)
    assert outgoing.mac == mac_of(wired.office)
    assert (str(incoming.src), str(incoming.dst)) == (outside, inside)
    assert incoming.mac == mac_of(wired.office)
    assert {record.list_id for record in records.values()} == {9}
    assert gate.drain_blocked() == []
    gate.sync_block([])
    assert datagram_arrives(wired.office, wired.internet, outside)


def test_blocked_packets_of_one_flow_are_one_record(wired: NativeLane, gate: Gate) -> None:
    gate.sync_block([ipaddress.ip_network(f"{INTERNET_IPV4}/32")])
    with wired.office.bind_udp(OFFICE_IPV4, 6000) as source:
        for _ in range(50):
            source.sendto(b"x" * 58, (INTERNET_IPV4, 7000))
    (record,) = [record for record in gate.drain_blocked() if record.dport == 7000]
    assert (record.packets, record.bytes, record.sport) == (50, 50 * 100, 6000)


def ipv4_udp(ttl: int = 17, *, payload: bytes = b"omamori") -> bytes:
    body = struct.pack("!HHHH", 40000, 5000, 8 + len(payload), 0) + payload
    addresses = ipaddress.ip_address(OFFICE_IPV4).packed + ipaddress.ip_address(INTERNET_IPV4).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0xB8, 20 + len(body), 77, 0, ttl, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + body


def ipv6_udp(*, payload: bytes = b"omamori") -> bytes:
    body = struct.pack("!HHHH", 40000, 5000, 8 + len(payload), 0xBEEF) + payload
    addresses = ipaddress.ip_address(OFFICE_IPV6).packed + ipaddress.ip_address(INTERNET_IPV6).packed
    return struct.pack("!IHBB", 6 << 28 | 0xB8 << 20 | 0x12345, len(body), 17, 33) + addresses + body


def frame(lane: NativeLane, kind: int, payload: bytes) -> bytes:
    macs = bytes.fromhex(mac_of(lane.internet).replace(":", "") + mac_of(lane.office).replace(":", ""))
    return macs + struct.pack("!H", kind) + payload


def session(kind: int, payload: bytes) -> bytes:
    return struct.pack("!BBHHH", 0x11, 0, 7, len(payload) + 2, kind) + payload


FRAMES = {
    "IPv4": (0x0800, ipv4_udp()),
    "IPv6": (0x86DD, ipv6_udp()),
    "IPv4 in a VLAN": (0x8100, struct.pack("!HH", 10 | 5 << 13, 0x0800) + ipv4_udp()),
    "IPv6 in a VLAN": (0x8100, struct.pack("!HH", 4094, 0x86DD) + ipv6_udp()),
    "IPv4 in two VLANs": (0x88A8, struct.pack("!HHHH", 20, 0x8100, 10, 0x0800) + ipv4_udp()),
    "IPv4 over PPPoE": (0x8864, session(0x0021, ipv4_udp())),
    "IPv6 over PPPoE": (0x8864, session(0x0057, ipv6_udp())),
    "PPPoE discovery": (0x8863, struct.pack("!BBHH", 0x11, 9, 0, 4) + bytes(4)),
    "LLDP to a unicast address": (0x88CC, bytes(46)),
    "unknown type": (0x1234, bytes(range(46))),
}


def assert_frames_pass_unchanged(lane: NativeLane) -> None:
    """Send every kind of frame into the box and expect the same bytes on the other side."""

    def open_sender() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        made.bind(("eth0", 0))
        return made

    with lane.office.call(open_sender) as sender, sniffing(lane.internet) as sniffer:
        for name, (kind, payload) in FRAMES.items():
            sent = frame(lane, kind, payload)
            sender.send(sent)
            assert sniffer.wait_for(sent), name


def test_every_kind_of_frame_passes_bit_for_bit_without_an_engine(wired: NativeLane) -> None:
    assert_frames_pass_unchanged(wired)


def loader(lane: NativeLane, programs: tuple[Path, Path], *arguments: str) -> str:
    """Run the loader in the box; return its complaint, empty if it was content."""
    try:
        run(lane.box.command([programs[0] / LOADER, *arguments]), timeout_s=30)
    except ToolError as err:
        return f"{err.exit_code} {err.output}"
    return ""


def test_loader_may_be_repeated_and_keeps_what_the_maps_hold(wired: NativeLane, gate: Gate) -> None:
    answers_ping(wired, INTERNET_IPV4)
    gate.sync_block([ipaddress.ip_network("203.0.113.99/32")])
    assert wired.wire is not None
    wired.wire.refresh()
    again = Gate(wired.wire.pins)
    assert again.terminal(OFFICE_IPV4) is not None
    assert again.sync_block([ipaddress.ip_network("203.0.113.99/32")]) == (0, 0)
    again.close()


def test_second_lan_port_is_found_and_ends_redirection(
    wired: NativeLane, gate: Gate, programs: tuple[Path, Path]
) -> None:
    wired.box.configure(["link add lan2 type veth peer name spare", f"link set lan2 master {PLAN.bridge}"])
    assert wired.wire is not None
    where = ["--pins", str(wired.wire.pins), "--bridge", PLAN.bridge]
    assert "no gate_ingress on port lan2" in loader(wired, programs, "check", *where)
    wired.wire.refresh()
    assert (gate.config().wan_ifindex, gate.config().lan_ifindex) == (0, 0)
    wired.box.configure(["link delete lan2"])
    wired.wire.refresh()
    assert gate.config().lan_ifindex != 0


def test_check_notices_a_setting_that_is_off(wired: NativeLane, programs: tuple[Path, Path]) -> None:
    wired.box.sysctl(**{"bridge__bridge-nf-call-iptables": 0})
    assert wired.wire is not None
    where = ["--pins", str(wired.wire.pins), "--bridge", PLAN.bridge]
    assert "bridge-nf-call-iptables is not 1" in loader(wired, programs, "check", *where)


def test_check_notices_a_gate_that_was_taken_off(wired: NativeLane, programs: tuple[Path, Path]) -> None:
    run(wired.box.command(["tc", "qdisc", "del", "dev", "wan", "clsact"]), timeout_s=10)
    assert wired.wire is not None
    where = ["--pins", str(wired.wire.pins), "--bridge", PLAN.bridge]
    assert "no gate_ingress on port wan" in loader(wired, programs, "check", *where)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"--bridge": "br9"}, "no bridge br9"),
        ({"--object": "/dev/null"}, "cannot read /dev/null"),
        ({"--pins": "/tmp"}, "not in a BPF file system"),
    ],
    ids=["no bridge", "no object", "no BPF file system"],
)
def test_loader_that_cannot_work_says_so_and_frames_go_on(
    wired: NativeLane, programs: tuple[Path, Path], change: dict[str, str], complaint: str
) -> None:
    assert wired.wire is not None
    options = {
        "--object": str(programs[0] / OBJECT),
        "--pins": str(wired.wire.pins),
        "--bridge": PLAN.bridge,
    } | change
    said = loader(wired, programs, "install", *(word for pair in options.items() for word in pair))
    assert said.startswith("1 ")
    assert complaint in said
    assert answers_ping(wired, INTERNET_IPV4)


def test_loader_explains_itself_when_called_wrongly(wired: NativeLane, programs: tuple[Path, Path]) -> None:
    for arguments in ([], ["install"], ["remove", "--pins", "/x", "--bridge", "br0"], ["check", "--nonsense"]):
        said = loader(wired, programs, *arguments)
        assert said.startswith("2 ")
        assert "usage: omamori-wire" in said


def test_maps_are_for_root_and_the_named_group_only(wired: NativeLane, programs: tuple[Path, Path]) -> None:
    assert wired.wire is not None
    where = ["--object", str(programs[0] / OBJECT), "--pins", str(wired.wire.pins), "--bridge", PLAN.bridge]
    assert "no group omamori-nobody" in loader(wired, programs, "install", *where, "--group", "omamori-nobody")
    assert loader(wired, programs, "install", *where, "--group", "nogroup") == ""
    modes = {name.value: 0o660 if name in WRITABLE else 0o640 for name in MapName}
    modes |= dict.fromkeys(PROGRAMS, 0o600)
    assert {path.name for path in wired.wire.pins.iterdir()} == set(modes)
    for path in wired.wire.pins.iterdir():
        status = path.stat()
        assert (path.name, status.st_mode & 0o777, status.st_uid) == (path.name, modes[path.name], 0)
        assert status.st_gid == (0 if path.name in PROGRAMS else 65534)
    assert wired.wire.pins.stat().st_mode & 0o777 == 0o750


def test_nothing_is_left_of_a_lane(programs: tuple[Path, Path]) -> None:
    lane = NativeLane()
    lane.start()
    lane.install_wire(programs[0])
    names = [lane.office.path, lane.box.path, lane.internet.path]
    assert all(path.exists() for path in names)
    lane.stop()
    assert not any(path.exists() for path in names)
    assert not lane.directory.exists()
    assert str(lane.directory) not in Path("/proc/self/mountinfo").read_text()
