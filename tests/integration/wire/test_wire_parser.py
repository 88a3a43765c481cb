"""The gate's programs, run by the kernel on crafted frames: every kind of header, every truncation."""

from __future__ import annotations

import ctypes
import dataclasses
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omamori_agent.gate import Gate, layout
from omamori_agent.gate.bpf import BpfMap
from omamori_agent.gate.layout import Counter
from omamori_firmware.dataplane import PLAN
from omamori_firmware.dataplane.build import OBJECT
from omamori_lab.native_wire import NativeLane
from omamori_lab.run import run

pytestmark = pytest.mark.root

UNSPEC, SHOT, REDIRECT = 0xFFFFFFFF, 2, 7
_SYSCALL_BPF, _PROG_TEST_RUN, _OBJ_GET = 321, 10, 7
_SKB_BYTES, _SKB_MARK, _SKB_IFINDEX = 192, 8, 40

CLIENT_MAC, ROUTER_MAC = bytes.fromhex("02000000000b"), bytes.fromhex("020000000001")
OWN_MAC = bytes.fromhex("0200000000fe")
C4, S4 = ipaddress.ip_address("192.168.10.11").packed, ipaddress.ip_address("198.51.100.10").packed
C6, S6 = ipaddress.ip_address("fd00:10::11").packed, ipaddress.ip_address("2001:db8::10").packed
SYN, RST, ACK = 0x02, 0x04, 0x10


def ethernet(kind: int, payload: bytes, *, out: bool = True, target: bytes | None = None) -> bytes:
    ends = (ROUTER_MAC, CLIENT_MAC) if out else (CLIENT_MAC, ROUTER_MAC)
    return (target or ends[0]) + ends[1] + struct.pack("!H", kind) + payload


def tcp(flags: int = ACK, *, out: bool = True) -> bytes:
    ports = (50000, 443) if out else (443, 50000)
    return struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, flags, 1000, 0, 0)


def udp(*, out: bool = True) -> bytes:
    ports = (50000, 443) if out else (443, 50000)
    return struct.pack("!HHHH", *ports, 8, 0)


def ipv4(proto: int, payload: bytes, *, out: bool = True, fragment: int = 0, options: bytes = b"") -> bytes:
    ends = C4 + S4 if out else S4 + C4
    words = 5 + len(options) // 4
    size = words * 4 + len(payload)
    return struct.pack("!BBHHHBBH", 4 << 4 | words, 0, size, 1, fragment, 64, proto, 0) + ends + options + payload


def ipv6(proto: int, payload: bytes, *, out: bool = True) -> bytes:
    ends = C6 + S6 if out else S6 + C6
    return struct.pack("!IHBB", 6 << 28, len(payload), proto, 64) + ends + payload


def extension(following: int, payload: bytes, *, units: int = 0) -> bytes:
    return bytes([following, units]) + bytes(6 + 8 * units) + payload


def pppoe(proto: int, payload: bytes, *, code: int = 0) -> bytes:
    return struct.pack("!BBHHH", 0x11, code, 7, len(payload) + 2, proto) + payload


def vlan(number: int, kind: int, payload: bytes) -> bytes:
    return struct.pack("!HH", number, kind) + payload


Build = Callable[[bytes, bool], bytes]


def as_tcp(wrap: Callable[[bytes, int, bool], bytes]) -> Build:
    return lambda payload, out: wrap(payload, 6, out)


def plain4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x0800, ipv4(proto, payload, out=out), out=out)


def options4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x0800, ipv4(proto, payload, out=out, options=b"\x94\x04\0\0" + bytes(36)), out=out)


def plain6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x86DD, ipv6(proto, payload, out=out), out=out)


def extended6(payload: bytes, proto: int, out: bool) -> bytes:
    inner = extension(60, extension(43, extension(proto, payload, units=2)))
    return ethernet(0x86DD, ipv6(0, inner, out=out), out=out)


def authenticated6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x86DD, ipv6(51, bytes([proto, 4]) + bytes(22) + payload, out=out), out=out)


def tagged4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x8100, vlan(10, 0x0800, ipv4(proto, payload, out=out)), out=out)


def tagged_twice6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x88A8, vlan(20, 0x8100, vlan(10, 0x86DD, ipv6(proto, payload, out=out))), out=out)


def session4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x8864, pppoe(0x0021, ipv4(proto, payload, out=out)), out=out)


def session6(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x8864, pppoe(0x0057, ipv6(proto, payload, out=out)), out=out)


def tagged_session4(payload: bytes, proto: int, out: bool) -> bytes:
    return ethernet(0x8100, vlan(10, 0x8864, pppoe(0x0021, ipv4(proto, payload, out=out))), out=out)


READABLE = [
    plain4,
    options4,
    plain6,
    extended6,
    authenticated6,
    tagged4,
    tagged_twice6,
    session4,
    session6,
    tagged_session4,
]

# IP the gate can block by address, but whose ports it may not trust: never bypassed.
NEVER_BYPASSED = {
    "first IPv4 fragment": lambda out: ethernet(0x0800, ipv4(6, tcp(out=out), out=out, fragment=0x2000), out=out),
    "later IPv4 fragment": lambda out: ethernet(0x0800, ipv4(6, tcp(out=out), out=out, fragment=0x0010), out=out),
    "first IPv6 fragment": lambda out: ethernet(
        0x86DD, ipv6(44, struct.pack("!BBHI", 6, 0, 1, 9) + tcp(out=out), out=out), out=out
    ),
    "later IPv6 fragment": lambda out: ethernet(
        0x86DD, ipv6(44, struct.pack("!BBHI", 6, 0, 0x0101, 9) + tcp(out=out), out=out), out=out
    ),
    "ICMP": lambda out: ethernet(0x0800, ipv4(1, struct.pack("!BBHHH", 8, 0, 0, 1, 1), out=out), out=out),
    "ICMPv6": lambda out: ethernet(0x86DD, ipv6(58, struct.pack("!BBHHH", 128, 0, 0, 1, 1), out=out), out=out),
    "GRE": lambda out: ethernet(0x0800, ipv4(47, bytes(8), out=out), out=out),
    "ESP": lambda out: ethernet(0x86DD, ipv6(50, bytes(32), out=out), out=out),
    "nine extension headers": lambda out: ethernet(
        0x86DD, ipv6(60, bytes([60, 0, 0, 0, 0, 0, 0, 0]) * 9, out=out), out=out
    ),
}

# What the gate does not read at all: neither dropped nor bypassed, whatever it may carry.
UNREADABLE = {
    "ARP": ethernet(0x0806, bytes(28)),
    "three VLAN tags": ethernet(0x8100, vlan(1, 0x8100, vlan(2, 0x8100, vlan(3, 0x0800, ipv4(6, tcp()))))),
    "PPPoE discovery": ethernet(0x8863, pppoe(0, b"", code=9)),
    "PPPoE session frame with a code": ethernet(0x8864, pppoe(0x0021, ipv4(6, tcp()), code=9)),
    "PPP link control": ethernet(0x8864, pppoe(0xC021, bytes(8))),
    "PPPoE session of a wrong version": ethernet(0x8864, b"\x21" + pppoe(0x0021, ipv4(6, tcp()))[1:]),
    "IPv4 with a short header length": ethernet(0x0800, b"\x44" + ipv4(6, tcp())[1:]),
    "IPv4 that says it is version 6": ethernet(0x0800, b"\x65" + ipv4(6, tcp())[1:]),
    "IPv6 that says it is version 4": ethernet(0x86DD, b"\x45" + ipv6(6, tcp())[1:]),
    "unknown Ethernet type": ethernet(0x88CC, bytes(46)),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    action: int
    mark: int
    frame: bytes


class Bench:
    """The two programs with their maps, attached to nothing, and a box's port numbers to run them on."""

    def __init__(self, directory: Path, lane: NativeLane, wan: int, lan: int) -> None:
        self._lane = lane
        self.maps = directory / "maps"
        self.wan, self.lan = wan, lan
        self._programs = {name: self._open(directory / "programs" / name) for name in ("gate_ingress", "gate_egress")}
        self.configure()
        ports = BpfMap(self.maps / "ports", 4, layout.PORT.size)
        ports.update(struct.pack("=I", wan), layout.PORT.pack(layout.Role.WAN, 0))
        ports.update(struct.pack("=I", lan), layout.PORT.pack(layout.Role.LAN, 0))
        ports.close()
        self.gate = Gate(self.maps)

    def configure(
        self, *, flags: int = 7, single: bool = True, udp_idle_ns: int = 10**12, tcp_idle_ns: int = 10**12
    ) -> None:
        config = BpfMap(self.maps / "config", 4, layout.CONFIG.size)
        peers = (self.wan, self.lan) if single else (0, 0)
        config.update(
            bytes(4), layout.CONFIG.pack(layout.ABI, flags, *peers, udp_idle_ns, tcp_idle_ns, 3 * 10**11, OWN_MAC)
        )
        config.close()

    def ingress(self, frame: bytes, *, out: bool, mark: int = 0) -> Verdict:
        return self._run("gate_ingress", frame, self.lan if out else self.wan, mark)

    def egress(self, frame: bytes, *, out: bool, mark: int = PLAN.mark_bypass) -> Verdict:
        return self._run("gate_egress", frame, self.wan if out else self.lan, mark)

    def block(self, *addresses: str) -> None:
        self.gate.sync_block([ipaddress.ip_network(address) for address in addresses])

    def flows(self) -> int:
        return len(list(self.gate.bypassed_flows()))

    def close(self) -> None:
        self.gate.close()
        for handle in self._programs.values():
            os.close(handle)

    def _run(self, program: str, frame: bytes, ifindex: int, mark: int) -> Verdict:
        context = bytearray(_SKB_BYTES)
        struct.pack_into("=I", context, _SKB_MARK, mark)
        struct.pack_into("=I", context, _SKB_IFINDEX, ifindex)
        return self._lane.box.call(lambda: self._test_run(self._programs[program], frame, bytes(context)))

    @staticmethod
    def _test_run(program: int, frame: bytes, context: bytes) -> Verdict:
        data_in = ctypes.create_string_buffer(frame, len(frame))
        data_out = ctypes.create_string_buffer(len(frame) + 256)
        context_in = ctypes.create_string_buffer(context, len(context))
        context_out = ctypes.create_string_buffer(len(context))
        attribute = ctypes.create_string_buffer(
            struct.pack(
                "=IIIIQQIIIIQQIII",
                program,
                0,
                len(frame),
                len(data_out),
                ctypes.addressof(data_in),
                ctypes.addressof(data_out),
                1,
                0,
                len(context_in),
                len(context_out),
                ctypes.addressof(context_in),
                ctypes.addressof(context_out),
                0,
                0,
                0,
            ),
            128,
        )
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(_SYSCALL_BPF, _PROG_TEST_RUN, attribute, 128) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        _, action, _, size = struct.unpack_from("=IIII", attribute.raw)
        (mark,) = struct.unpack_from("=I", context_out.raw, _SKB_MARK)
        return Verdict(action, mark, data_out.raw[:size])

    @staticmethod
    def _open(path: Path) -> int:
        name = ctypes.create_string_buffer(os.fsencode(path))
        attribute = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), 0, 0), 128)
        handle = ctypes.CDLL(None, use_errno=True).syscall(_SYSCALL_BPF, _OBJ_GET, attribute, 128)
        if handle < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(handle)


@pytest.fixture(scope="module")
def loaded(programs: tuple[Path, Path]) -> Iterator[Bench]:
    lane = NativeLane()
    lane.start()
    mount = lane.directory / "bpf"
    mount.mkdir()
    run(["mount", "-t", "bpf", "bpf", mount], timeout_s=10)
    try:
        pins = mount / "t"
        for directory in (pins, pins / "maps"):
            directory.mkdir()
        gate = programs[0] / OBJECT
        run(["bpftool", "prog", "loadall", gate, pins / "programs", "pinmaps", pins / "maps"], timeout_s=60)
        numbers = lane.box.call(lambda: {name: number for number, name in socket.if_nameindex()})
        bench = Bench(pins, lane, numbers["wan"], numbers["lan1"])
        yield bench
        bench.close()
    finally:
        run(["umount", mount], timeout_s=10)
        lane.stop()


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """The programs with empty maps and everything switched on."""
    loaded.configure()
    loaded.block()
    loaded.gate.drain_blocked()
    flows = BpfMap(loaded.maps / "flows", layout.FLOW_KEY.size, layout.FLOW.size)
    list(flows.take())
    flows.close()
    terminals = BpfMap(loaded.maps / "terminals", layout.TERMINAL_KEY.size, layout.TERMINAL.size)
    list(terminals.take())
    terminals.close()
    return loaded


@pytest.mark.parametrize("wrap", READABLE, ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("proto", [6, 17])
def test_flow_is_redirected_both_ways_once_the_engine_has_marked_it(
    bench: Bench, wrap: Callable[[bytes, int, bool], bytes], proto: int
) -> None:
    def frame(out: bool) -> bytes:
        return wrap(tcp(out=out) if proto == 6 else udp(out=out), proto, out)

    assert bench.ingress(frame(True), out=True).action == UNSPEC
    assert bench.egress(frame(True), out=True, mark=0).action == UNSPEC
    assert bench.flows() == 0
    assert bench.egress(frame(True), out=True).action == UNSPEC
    assert bench.flows() == 1
    for out in (True, False):
        verdict = bench.ingress(frame(out), out=out)
        assert verdict.action == REDIRECT
        assert verdict.frame == frame(out)
    assert bench.egress(frame(False), out=False).action == UNSPEC
    (flow,) = bench.gate.bypassed_flows()
    assert (flow.out_packets, flow.in_packets) == (1, 1)


@pytest.mark.parametrize("wrap", READABLE, ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("out", [True, False], ids=["out", "in"])
@pytest.mark.parametrize("ends", ["source", "target"])
def test_listed_address_is_dropped_in_either_place_and_direction(
    bench: Bench, wrap: Callable[[bytes, int, bool], bytes], out: bool, ends: str
) -> None:
    frame = wrap(tcp(out=out), 6, out)
    is_v6 = "6" in wrap.__name__
    client, server = ("fd00:10::11", "2001:db8::/32") if is_v6 else ("192.168.10.11", "198.51.100.0/24")
    bench.egress(frame, out=out)  # bypassed before it was listed: the list comes first all the same
    assert bench.ingress(frame, out=out).action == REDIRECT
    bench.block(client if (ends == "source") == out else server)
    assert bench.ingress(frame, out=out).action == SHOT
    (record,) = bench.gate.drain_blocked()
    assert (record.packets, record.bytes) == (1, len(frame))
    assert (record.sport, record.dport) == ((50000, 443) if out else (443, 50000))
    assert record.mac == CLIENT_MAC.hex(":")
    bench.block()
    assert bench.ingress(frame, out=out).action == REDIRECT


@pytest.mark.parametrize("kind", NEVER_BYPASSED)
def test_packet_without_sure_ports_is_never_bypassed_but_blocked_by_address(bench: Bench, kind: str) -> None:
    bench.egress(plain4(tcp(), 6, True), out=True)
    bench.egress(plain6(tcp(), 6, True), out=True)
    for out in (True, False):
        frame = NEVER_BYPASSED[kind](out)
        before = bench.flows()
        assert bench.egress(frame, out=out).action == UNSPEC
        assert bench.flows() == before
        assert bench.ingress(frame, out=out).action == UNSPEC
        bench.block("198.51.100.10", "2001:db8::10")
        assert bench.ingress(frame, out=out).action == SHOT
        bench.block()


@pytest.mark.parametrize("kind", UNREADABLE)
def test_frame_the_gate_cannot_read_passes_even_with_everything_listed(bench: Bench, kind: str) -> None:
    bench.egress(plain4(tcp(), 6, True), out=True)
    bench.block("192.0.0.0/8", "198.0.0.0/8", "fd00::/16", "2001:db8::/32")
    for mark in (0, 0xF0):
        verdict = bench.ingress(UNREADABLE[kind], out=True, mark=mark)
        assert (verdict.action, verdict.mark, verdict.frame) == (UNSPEC, mark, UNREADABLE[kind])


@pytest.mark.parametrize("wrap", READABLE, ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("proto", [6, 17])
def test_truncated_frame_is_never_bypassed_and_dropped_only_by_complete_addresses(
    bench: Bench, wrap: Callable[[bytes, int, bool], bytes], proto: int
) -> None:
    transport = tcp() if proto == 6 else udp()
    whole = wrap(transport, proto, True)
    bench.egress(whole, out=True)
    assert bench.ingress(whole, out=True).action == REDIRECT
    address = (C6 + S6) if "6" in wrap.__name__ else (C4 + S4)
    header_end = whole.index(address) + len(address)
    # The kernel's test runner itself refuses an untagged frame that ends inside the IP header; tagged ones it takes.
    shortest = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(whole[12:14], 15)
    for size in range(shortest, len(whole)):
        bench.block()
        assert bench.ingress(whole[:size], out=True).action == UNSPEC, size
        bench.block("198.51.100.10", "2001:db8::10")
        assert bench.ingress(whole[:size], out=True).action == (SHOT if size >= header_end else UNSPEC), size


@pytest.mark.parametrize("wrap", READABLE, ids=lambda wrap: wrap.__name__)
def test_frame_with_any_one_byte_changed_is_handled(bench: Bench, wrap: Callable[[bytes, int, bool], bytes]) -> None:
    """Whatever the byte, the programs end with one of their own verdicts and leave the frame alone."""
    whole = wrap(tcp(), 6, True)
    bench.egress(whole, out=True)
    for position in range(12, len(whole)):
        for value in (0x00, 0xFF, whole[position] ^ 0x01, whole[position] ^ 0x80):
            frame = whole[:position] + bytes([value]) + whole[position + 1 :]
            verdict = bench.ingress(frame, out=True)
            assert verdict.action in (UNSPEC, REDIRECT)
            assert verdict.frame == frame


@pytest.mark.parametrize("flag", [SYN, RST, SYN | ACK], ids=["SYN", "RST", "SYN+ACK"])
def test_beginning_and_end_of_a_connection_end_its_bypass(bench: Bench, flag: int) -> None:
    bench.egress(plain4(tcp(), 6, True), out=True)
    assert bench.ingress(plain4(tcp(flag), 6, True), out=True).action == UNSPEC
    assert bench.flows() == 0
    assert bench.ingress(plain4(tcp(), 6, True), out=True).action == UNSPEC


def test_syn_is_never_learned(bench: Bench) -> None:
    bench.egress(plain4(tcp(SYN), 6, True), out=True)
    assert bench.flows() == 0


@pytest.mark.parametrize("proto", [6, 17])
def test_silent_flow_is_inspected_again(bench: Bench, proto: int) -> None:
    frame = plain4(tcp() if proto == 6 else udp(), proto, True)
    bench.egress(frame, out=True)
    bench.configure(udp_idle_ns=1, tcp_idle_ns=1)
    assert bench.ingress(frame, out=True).action == UNSPEC
    assert bench.flows() == 0


def test_flows_of_two_vlans_with_the_same_addresses_are_two(bench: Bench) -> None:
    bench.egress(tagged4(tcp(), 6, True), out=True)
    assert bench.ingress(tagged4(tcp(), 6, True), out=True).action == REDIRECT
    other = ethernet(0x8100, vlan(11, 0x0800, ipv4(6, tcp())))
    assert bench.ingress(other, out=True).action == UNSPEC
    assert bench.ingress(plain4(tcp(), 6, True), out=True).action == UNSPEC


def test_with_several_lan_ports_a_bypassed_packet_skips_the_queue_on_the_bridge(bench: Bench) -> None:
    frame = plain4(tcp(), 6, True)
    bench.egress(frame, out=True)
    bench.configure(single=False)
    verdict = bench.ingress(frame, out=True, mark=0xF0)
    assert (verdict.action, verdict.mark) == (UNSPEC, 0xF0 | PLAN.mark_skip)


def test_gate_clears_its_own_mark_bits_of_arriving_packets_and_no_other(bench: Bench) -> None:
    frame = plain4(tcp(), 6, True)
    assert bench.ingress(frame, out=True, mark=0xFFFFFFFF).mark == 0xFFFFFFF8
    assert bench.egress(frame, out=True, mark=0xFFFFFFFF).mark == 0xFFFFFFFF


def test_multicast_frame_is_never_bypassed(bench: Bench) -> None:
    bench.egress(plain4(udp(), 17, True), out=True)
    frame = ethernet(0x0800, ipv4(17, udp()), target=bytes.fromhex("01005e0000fb"))
    assert bench.ingress(frame, out=True).action == UNSPEC


def test_gate_that_is_switched_off_looks_at_nothing(bench: Bench) -> None:
    frame = plain4(tcp(), 6, True)
    bench.egress(frame, out=True)
    bench.block("198.51.100.10")
    before = bench.gate.counters()
    bench.configure(flags=0)
    assert bench.ingress(frame, out=True).action == UNSPEC
    assert bench.gate.counters() == before


@pytest.mark.parametrize(("flags", "expected"), [(1 | 2, UNSPEC), (1 | 4, REDIRECT)], ids=["no bypass", "no block"])
def test_block_and_bypass_are_switched_one_by_one(bench: Bench, flags: int, expected: int) -> None:
    frame = plain4(tcp(), 6, True)
    bench.egress(frame, out=True)
    bench.configure(flags=flags)
    assert bench.ingress(frame, out=True).action == expected


def test_terminals_are_learned_from_the_office_side_only(bench: Bench) -> None:
    bench.ingress(plain4(tcp(), 6, True), out=True)
    bench.ingress(tagged_twice6(tcp(), 6, True), out=True)
    bench.ingress(plain4(tcp(out=False), 6, False), out=False)
    found = {str(terminal.address): terminal for terminal in bench.gate.terminals()}
    assert set(found) == {"192.168.10.11", "fd00:10::11"}
    assert {terminal.mac for terminal in found.values()} == {CLIENT_MAC.hex(":")}


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"])
def test_address_that_no_terminal_can_have_is_not_learned(bench: Bench, source: str) -> None:
    address = ipaddress.ip_address(source)
    if address.version == 4:
        frame = plain4(udp(), 17, True).replace(C4, address.packed, 1)
    else:
        frame = plain6(udp(), 17, True).replace(C6, address.packed, 1)
    bench.ingress(frame, out=True)
    assert bench.gate.terminals() == []


def test_terminal_that_changes_its_network_card_is_a_new_one(bench: Bench) -> None:
    frame = plain4(tcp(), 6, True)
    bench.ingress(frame, out=True)
    bench.ingress(frame.replace(CLIENT_MAC, bytes.fromhex("02000000000c"), 1), out=True)
    (terminal,) = bench.gate.terminals()
    assert (terminal.mac, terminal.tx_packets) == ("02:00:00:00:00:0c", 1)


def test_counters_say_what_happened_to_each_packet(bench: Bench) -> None:
    frame = plain4(tcp(), 6, True)
    before = bench.gate.counters()
    bench.ingress(frame, out=True)
    bench.egress(frame, out=True)
    bench.ingress(frame, out=True)
    bench.ingress(UNREADABLE["ARP"], out=True)
    bench.ingress(frame[:40], out=True)
    bench.ingress(UNREADABLE["IPv4 with a short header length"], out=True)
    bench.block("198.51.100.10")
    bench.ingress(frame, out=True)
    bench.ingress(frame, out=True)
    after = bench.gate.counters()
    grown = {counter: after[counter].packets - before[counter].packets for counter in Counter}
    assert grown == {
        Counter.INSPECTED: 3,
        Counter.RETURNED: 1,
        Counter.BYPASSED: 1,
        Counter.BLOCKED: 2,
        Counter.UNPARSED: 2,
        Counter.OTHER: 1,
        Counter.LEARNED: 1,
        Counter.EXPIRED: 0,
        Counter.REFUSED: 0,
        Counter.EXEMPTED: 0,
        Counter.SKIPPED: 0,
        Counter.TUNNELLED: 0,
        Counter.REDIRECTED: 0,
    }
    assert after[Counter.BLOCKED].bytes - before[Counter.BLOCKED].bytes == 2 * len(frame)
