"""The gate's programs, run by the kernel on crafted frames: every kind of header, every truncation."""

from __future__ import annotations

import ipaddress

import pytest

from omamori_agent.gate.layout import Counter, Mark
from sim.frames import (
    C4,
    C6,
    CLIENT_MAC,
    IPV4,
    NEVER_BYPASSED,
    READABLE,
    S4,
    S6,
    TCP,
    TUNNELS,
    UDP,
    UNREADABLE,
    Wrap,
    ethernet,
    ipv4,
    is_inner_v6,
    plain4,
    plain6,
    tagged_twice6,
    tcp,
    udp,
)
from sim.gate_bench import REDIRECT, SHOT, UNSPEC, Bench, Growth

pytestmark = pytest.mark.root

LISTED_SERVERS = ("198.51.100.10", "2001:db8::10")
readable = pytest.mark.parametrize("wrap", READABLE, ids=lambda wrap: wrap.__name__)


@readable
@pytest.mark.parametrize("proto", [TCP, UDP], ids=["TCP", "UDP"])
def test_flow_is_redirected_both_ways_once_the_engine_has_marked_it(bench: Bench, wrap: Wrap, proto: int) -> None:
    def frame(out: bool) -> bytes:
        return wrap(tcp(out=out) if proto == TCP else udp(out=out), proto, out)

    assert bench.ingress(frame(True), out=True).action == UNSPEC
    assert bench.egress(frame(True), out=True, mark=Mark.INSPECTED).action == UNSPEC
    assert bench.flows() == 0
    assert bench.egress(frame(True), out=True).action == UNSPEC
    assert bench.flows() == 1
    for out in (True, False):
        verdict = bench.ingress(frame(out), out=out)
        assert (verdict.action, verdict.mark) == (REDIRECT, Mark.SKIP)
        assert verdict.frame == frame(out)
    assert bench.egress(frame(False), out=False).action == UNSPEC
    (flow,) = bench.gate.bypassed_flows()
    assert (flow.out_packets, flow.in_packets) == (1, 1)
    assert {flow.a_port, flow.b_port} == {50000, 443}
    assert flow.is_tunnelled == (wrap in TUNNELS)


@readable
@pytest.mark.parametrize("out", [True, False], ids=["out", "in"])
@pytest.mark.parametrize("ends", ["source", "target"])
def test_listed_address_is_dropped_in_either_place_and_direction(
    bench: Bench, wrap: Wrap, out: bool, ends: str
) -> None:
    frame = wrap(tcp(out=out), TCP, out)
    client, server = ("fd00:10::11", "2001:db8::/64") if is_inner_v6(wrap) else ("192.168.10.11", "198.51.100.0/24")
    bench.egress(frame, out=out)  # bypassed before it was listed: the list comes first all the same
    assert bench.ingress(frame, out=out).action == REDIRECT
    bench.block(client if (ends == "source") == out else server)
    assert bench.ingress(frame, out=out).action == SHOT
    (record,) = bench.gate.drain_blocked()
    assert (record.packets, record.bytes, record.proto) == (1, len(frame), TCP)
    assert (record.sport, record.dport) == ((50000, 443) if out else (443, 50000))
    assert record.mac == CLIENT_MAC.hex(":")
    bench.block()
    assert bench.flows() == 0
    assert bench.ingress(frame, out=out).action == UNSPEC  # the engine looks again before it is bypassed


@pytest.mark.parametrize("wrap", TUNNELS, ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("out", [True, False], ids=["out", "in"])
def test_listed_end_of_a_tunnel_is_dropped_and_recorded_without_ports(bench: Bench, wrap: Wrap, out: bool) -> None:
    frame = wrap(tcp(out=out), TCP, out)
    bench.block("192.0.2.1", "2001:db8:aa::/48")
    assert bench.ingress(frame, out=out).action == SHOT
    (record,) = bench.gate.drain_blocked()
    assert str(record.dst if out else record.src) in ("192.0.2.1", "2001:db8:aa::1")
    assert (record.sport, record.dport) == (0, 0)
    assert record.proto == {"tunnel_4in6": 4, "tunnel_4in4": 4, "tunnel_6in4": 41, "tunnel_6in6": 41}[wrap.__name__]


@pytest.mark.parametrize("kind", NEVER_BYPASSED)
def test_packet_without_sure_ports_is_never_bypassed_but_blocked_by_address(bench: Bench, kind: str) -> None:
    bench.egress(plain4(tcp(), TCP, True), out=True)
    bench.egress(plain6(tcp(), TCP, True), out=True)
    for out in (True, False):
        frame = NEVER_BYPASSED[kind](out)
        before = bench.flows()
        assert bench.egress(frame, out=out).action == UNSPEC
        assert bench.flows() == before
        assert bench.ingress(frame, out=out).action == UNSPEC
        bench.block(*LISTED_SERVERS)
        assert bench.ingress(frame, out=out).action == SHOT
        bench.block()


@pytest.mark.parametrize("kind", UNREADABLE)
def test_frame_the_gate_cannot_read_passes_even_with_everything_listed(bench: Bench, kind: str) -> None:
    bench.egress(plain4(tcp(), TCP, True), out=True)
    bench.block("192.0.0.0/8", "198.0.0.0/8", "fd00::/16", "2001:db8::/32")
    for mark in (0, 0xF0):
        verdict = bench.ingress(UNREADABLE[kind], out=True, mark=mark)
        assert (verdict.action, verdict.mark, verdict.frame) == (UNSPEC, mark, UNREADABLE[kind])
        verdict = bench.egress(UNREADABLE[kind], out=True, mark=mark)
        assert (verdict.action, verdict.mark, verdict.frame) == (UNSPEC, mark, UNREADABLE[kind])


def first_address_end(wrap: Wrap, whole: bytes) -> int:
    """Return where the header that names the listed server has been read."""
    address = C6 + S6 if is_inner_v6(wrap) else C4 + S4
    return whole.index(address) + len(address)


@readable
@pytest.mark.parametrize("proto", [TCP, UDP], ids=["TCP", "UDP"])
def test_truncated_frame_is_never_bypassed_and_dropped_only_by_complete_addresses(
    bench: Bench, wrap: Wrap, proto: int
) -> None:
    whole = wrap(tcp() if proto == TCP else udp(), proto, True)
    bench.egress(whole, out=True)
    assert bench.ingress(whole, out=True).action == REDIRECT
    header_end = first_address_end(wrap, whole)
    # The kernel's test runner itself refuses an untagged frame that ends inside the IP header; tagged ones it takes.
    shortest = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(whole[12:14], 15)
    for size in range(shortest, len(whole)):
        bench.block()
        assert bench.ingress(whole[:size], out=True).action == UNSPEC, size
        assert bench.egress(whole[:size], out=True).action == UNSPEC, size
        assert bench.flows() == 1, size
        bench.block(*LISTED_SERVERS)
        assert bench.ingress(whole[:size], out=True).action == (SHOT if size >= header_end else UNSPEC), size


@readable
def test_frame_with_any_one_byte_changed_is_handled(bench: Bench, wrap: Wrap) -> None:
    """Whatever the byte, the programs end with one of their own verdicts and leave the frame alone."""
    whole = wrap(tcp(), TCP, True)
    bench.egress(whole, out=True)
    for position in range(12, len(whole)):
        for value in (0x00, 0xFF, whole[position] ^ 0x01, whole[position] ^ 0x80):
            frame = whole[:position] + bytes([value]) + whole[position + 1 :]
            verdict = bench.ingress(frame, out=True)
            assert verdict.action in (UNSPEC, REDIRECT)
            assert verdict.frame == frame


def test_gate_that_is_switched_off_looks_at_nothing(bench: Bench) -> None:
    frame = plain4(tcp(), TCP, True)
    bench.egress(frame, out=True)
    bench.block(*LISTED_SERVERS)
    grown = Growth(bench.gate)
    bench.configure(flags=0)
    assert bench.ingress(frame, out=True).action == UNSPEC
    assert bench.egress(frame, out=True, mark=0).action == UNSPEC
    assert (grown.counters(), grown.uninspected()) == ({}, {})


@pytest.mark.parametrize(("flags", "expected"), [(1 | 2, UNSPEC), (1 | 4, REDIRECT)], ids=["no bypass", "no block"])
def test_block_and_bypass_are_switched_one_by_one(bench: Bench, flags: int, expected: int) -> None:
    frame = plain4(tcp(), TCP, True)
    bench.egress(frame, out=True)
    bench.configure(flags=flags)
    bench.block(*(() if flags & 2 else LISTED_SERVERS))
    assert bench.ingress(frame, out=True).action == expected


def test_port_that_the_gate_does_not_know_is_left_alone(bench: Bench) -> None:
    bench.block(*LISTED_SERVERS)
    bench.ports["other"] = 1
    assert bench.ingress(plain4(tcp(), TCP, True), out=True, port="other").action == UNSPEC
    del bench.ports["other"]


def test_terminals_are_learned_from_the_office_side_only(bench: Bench) -> None:
    bench.ingress(plain4(tcp(), TCP, True), out=True)
    bench.ingress(tagged_twice6(tcp(), TCP, True), out=True)
    bench.ingress(plain4(tcp(out=False), TCP, False), out=False)
    found = {str(terminal.address): terminal for terminal in bench.gate.terminals()}
    assert set(found) == {"192.168.10.11", "fd00:10::11"}
    assert {terminal.mac for terminal in found.values()} == {CLIENT_MAC.hex(":")}


@pytest.mark.parametrize("wrap", TUNNELS, ids=lambda wrap: wrap.__name__)
def test_tunnel_shows_the_terminal_inside_and_the_router(bench: Bench, wrap: Wrap) -> None:
    bench.ingress(wrap(tcp(), TCP, True), out=True)
    inside = "fd00:10::11" if is_inner_v6(wrap) else "192.168.10.11"
    outside = "192.168.10.5" if wrap.__name__.endswith("in4") else "fd00:10::5"
    assert {str(terminal.address) for terminal in bench.gate.terminals()} == {inside, outside}


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"])
def test_address_that_no_terminal_can_have_is_not_learned(bench: Bench, source: str) -> None:
    address = ipaddress.ip_address(source)
    if address.version == 4:
        frame = plain4(udp(), UDP, True).replace(C4, address.packed, 1)
    else:
        frame = plain6(udp(), UDP, True).replace(C6, address.packed, 1)
    bench.ingress(frame, out=True)
    assert bench.gate.terminals() == []


def test_terminal_that_changes_its_network_card_is_a_new_one(bench: Bench) -> None:
    frame = plain4(tcp(), TCP, True)
    bench.ingress(frame, out=True)
    bench.ingress(frame.replace(CLIENT_MAC, bytes.fromhex("02000000000c"), 1), out=True)
    (terminal,) = bench.gate.terminals()
    assert (terminal.mac, terminal.tx_packets) == ("02:00:00:00:00:0c", 1)


def test_counters_say_what_happened_to_each_packet(bench: Bench) -> None:
    frame = plain4(tcp(), TCP, True)
    grown = Growth(bench.gate)
    blocked = bench.gate.counters()[Counter.BLOCKED].bytes
    bench.ingress(frame, out=True)
    bench.egress(frame, out=True)
    bench.ingress(frame, out=True)
    bench.ingress(UNREADABLE["ARP"], out=True)
    bench.ingress(frame[:40], out=True)
    bench.ingress(UNREADABLE["IPv4 with a short header length"], out=True)
    bench.ingress(ethernet(IPV4, ipv4(4, ipv4(1, bytes(8)))), out=True)
    bench.block(*LISTED_SERVERS)
    bench.ingress(frame, out=True)
    bench.ingress(frame, out=True)
    assert grown.counters() == {
        Counter.INSPECTED: 4,
        Counter.RETURNED: 1,
        Counter.BYPASSED: 1,
        Counter.REDIRECTED: 1,
        Counter.BLOCKED: 2,
        Counter.UNPARSED: 2,
        Counter.OTHER: 1,
        Counter.LEARNED: 1,
        Counter.EXPIRED: 1,
        Counter.TUNNELLED: 1,
    }
    assert bench.gate.counters()[Counter.BLOCKED].bytes - blocked == 2 * len(frame)


def test_joined_packet_counts_as_many(bench: Bench) -> None:
    frame = plain4(tcp() + bytes(3000), TCP, True)
    grown = Growth(bench.gate)
    bench.ingress(frame, out=True, segments=(3, 1000))
    bench.egress(frame, out=True, mark=0, segments=(3, 1000))
    assert grown.counters() == {Counter.INSPECTED: 3, Counter.RETURNED: 3}
    assert [packets for packets, _ in grown.uninspected().values()] == [3]
