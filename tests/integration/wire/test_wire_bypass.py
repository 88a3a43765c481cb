"""What may pass the engine by: only what the engine has let through, and only as long as it is the same flow."""

from __future__ import annotations

import pytest

from omamori_agent.gate import layout
from omamori_agent.gate.bpf import BpfMap
from omamori_agent.gate.layout import ControlSlot, Counter, Mark
from sim.frames import (
    ACK,
    C4,
    FIN,
    IPV4,
    IPV6,
    NEVER_BYPASSED,
    OWN_MAC,
    P4,
    RST,
    S4,
    SYN,
    T4,
    TCP,
    UDP,
    VLAN,
    ethernet,
    ipv4,
    ipv6,
    plain4,
    plain6,
    quic,
    tagged4,
    tcp,
    tunnel_4in4,
    tunnel_4in6,
    udp,
    vlan,
)
from sim.gate_bench import REDIRECT, SHOT, UNSPEC, Bench, Growth

pytestmark = pytest.mark.root

PACKET = plain4(tcp(), TCP, True)
ANSWER = plain4(tcp(out=False), TCP, False)


def learn(bench: Bench, frame: bytes = PACKET, *, out: bool = True) -> None:
    bench.egress(frame, out=out)
    assert bench.ingress(frame, out=out).action == REDIRECT


def test_packet_the_engine_drops_is_never_bypassed_however_often_it_is_sent(bench: Bench) -> None:
    """A dropped packet does not leave, so there is nothing to learn from."""
    for _ in range(5):
        assert bench.ingress(PACKET, out=True).action == UNSPEC
        assert bench.ingress(ANSWER, out=False).action == UNSPEC
    assert bench.flows() == 0


@pytest.mark.parametrize("mark", [0, Mark.SKIP, Mark.INSPECTED, Mark.WAITING, Mark.SKIP | Mark.INSPECTED, 0xFFFFFFF8])
def test_nothing_but_the_engine_s_own_mark_teaches(bench: Bench, mark: int) -> None:
    bench.egress(PACKET, out=True, mark=mark)
    assert bench.flows() == 0


def test_mark_of_the_gate_itself_never_teaches_even_beside_the_engine_s(bench: Bench) -> None:
    bench.egress(PACKET, out=True, mark=Mark.SKIP | Mark.BYPASS)
    assert bench.flows() == 0


@pytest.mark.parametrize("out", [True, False], ids=["out", "in"])
def test_marks_from_outside_are_cleared_and_no_other_bit_is(bench: Bench, out: bool) -> None:
    assert bench.ingress(PACKET if out else ANSWER, out=out, mark=0xFFFFFFFF).mark == 0xFFFFFFF0
    for mark in Mark:
        assert bench.ingress(PACKET if out else ANSWER, out=out, mark=mark).mark == 0
    assert bench.egress(PACKET, out=True, mark=0xFFFFFFFF).mark == 0xFFFFFFFF


@pytest.mark.parametrize("flag", [SYN, RST, SYN | ACK, RST | ACK], ids=["SYN", "RST", "SYN+ACK", "RST+ACK"])
@pytest.mark.parametrize("out", [True, False], ids=["out", "in"])
def test_beginning_and_end_of_a_connection_end_its_bypass(bench: Bench, flag: int, out: bool) -> None:
    learn(bench)
    assert bench.ingress(plain4(tcp(flag, out=out), TCP, out), out=out).action == UNSPEC
    assert bench.flows() == 0
    assert bench.ingress(PACKET, out=True).action == UNSPEC


def test_closing_side_of_a_bypassed_connection_is_still_bypassed(bench: Bench) -> None:
    learn(bench)
    assert bench.ingress(plain4(tcp(FIN | ACK), TCP, True), out=True).action == REDIRECT


def test_late_verdict_about_the_old_connection_does_not_outlive_the_new_one_s_syn(bench: Bench) -> None:
    """The engine's verdict on an old packet may leave after the SYN came in, but never after the SYN leaves."""
    assert bench.ingress(plain4(tcp(SYN), TCP, True), out=True).action == UNSPEC
    bench.egress(ANSWER, out=False)
    assert bench.flows() == 1
    bench.egress(plain4(tcp(SYN), TCP, True), out=True, mark=Mark.INSPECTED)
    assert bench.flows() == 0
    assert bench.ingress(PACKET, out=True).action == UNSPEC


@pytest.mark.parametrize("flag", [SYN, RST, SYN | ACK], ids=["SYN", "RST", "SYN+ACK"])
def test_nothing_is_learned_from_a_turning_point(bench: Bench, flag: int) -> None:
    bench.egress(plain4(tcp(flag), TCP, True), out=True)
    assert bench.flows() == 0


@pytest.mark.parametrize(
    "payload",
    [quic(0xC3, 1), quic(0xC0, 0xFF00001D), quic(0xD1, 0x6B3343CF), quic(0xC3, 1)[:5]],
    ids=["version 1", "draft 29", "version 2", "just the head"],
)
@pytest.mark.parametrize("out", [True, False], ids=["out", "in"])
def test_quic_initial_on_a_bypassed_flow_is_inspected_and_so_is_what_follows(
    bench: Bench, payload: bytes, out: bool
) -> None:
    for frame in (plain4, plain6):
        learn(bench, frame(udp(), UDP, True))
        initial = frame(udp(out=out, payload=payload), UDP, out)
        assert bench.ingress(initial, out=out).action == UNSPEC
        assert bench.flows() == 0
        bench.egress(initial, out=out)
        assert bench.flows() == 0
        learn(bench, frame(udp(), UDP, True))
        bench.egress(initial, out=out, mark=Mark.INSPECTED)
        assert bench.flows() == 0


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc3\0\0\0", quic(0x43, 1), quic(0xE3, 1), quic(0xC1, 0x6B3343CF), quic(0xC3, 0), quic(0xC3, 0x12345678)],
    ids=["empty", "too short", "short header", "handshake", "version 2 0-RTT", "negotiation", "not QUIC"],
)
def test_other_datagrams_of_a_bypassed_flow_stay_bypassed(bench: Bench, payload: bytes) -> None:
    learn(bench, plain4(udp(), UDP, True))
    assert bench.ingress(plain4(udp(payload=payload), UDP, True), out=True).action == REDIRECT


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_silent_flow_is_inspected_again(bench: Bench, proto: int) -> None:
    frame = plain4(tcp() if proto == TCP else udp(), proto, True)
    learn(bench, frame)
    bench.configure(udp_idle_ns=1, tcp_idle_ns=1)
    assert bench.ingress(frame, out=True).action == UNSPEC
    assert bench.flows() == 0


def test_raised_epoch_ends_every_bypass_at_once(bench: Bench) -> None:
    frames = [plain4(tcp(client_port=port), TCP, True) for port in range(50000, 50010)]
    for frame in frames:
        learn(bench, frame)
    grown = Growth(bench.gate)
    epoch = bench.gate.raise_epoch()
    assert {bench.ingress(frame, out=True).action for frame in frames} == {UNSPEC}
    assert grown.counters() == {Counter.EXPIRED: 10, Counter.INSPECTED: 10}
    learn(bench, frames[0])
    (flow,) = bench.gate.bypassed_flows()
    assert flow.epoch == epoch


def test_flow_of_an_old_epoch_is_learned_anew_when_the_engine_says_so_again(bench: Bench) -> None:
    learn(bench)
    bench.gate.raise_epoch()
    bench.egress(PACKET, out=True)  # the verdict comes before the next packet
    assert bench.ingress(PACKET, out=True).action == REDIRECT


@pytest.mark.parametrize("slot", [ControlSlot.HUNG_UNTIL_NS, ControlSlot.BYPASS_UNTIL_NS, ControlSlot.BUTTON_UNTIL_NS])
def test_nothing_is_learned_while_packets_pass_the_engine_by(bench: Bench, slot: ControlSlot) -> None:
    """A verdict may be about a connection whose successor the engine has not seen."""
    bench.lease(slot, 60)
    bench.egress(PACKET, out=True)
    assert bench.flows() == 0


def test_flood_of_flows_evicts_but_bypasses_nothing_else(bench: Bench) -> None:
    """Whatever the flood throws out of the map goes to the engine; only what the engine said is ever bypassed."""
    learned = range(40000, 40200)
    for port in learned:
        bench.egress(plain4(tcp(client_port=port), TCP, True), out=True)
    flows = BpfMap(bench.maps / "flows", layout.FLOW_KEY.size, layout.FLOW.size)
    value = layout.FLOW.pack(1, 2**63, 0, 0, 0, 0, 0)
    keys = [
        layout.FLOW_KEY.pack(number.to_bytes(16, "big"), bytes(16), b"\0\1", b"\0\2", 0, 0, 0, TCP, 0)
        for number in range(2 * layout.MAX_FLOWS)
    ]
    flows.update_many(keys, [value] * len(keys))
    flows.close()
    ends = {"192.168.10.11", "198.51.100.10"}
    kept = [flow for flow in bench.gate.bypassed_flows() if {str(flow.a), str(flow.b)} == ends]
    ports = {max(flow.a_port, flow.b_port) for flow in kept}
    assert len(ports) < len(learned)
    assert bench.flows() <= layout.MAX_FLOWS
    for port in range(39950, 40250):
        action = bench.ingress(plain4(tcp(client_port=port), TCP, True), out=True).action
        assert action == (REDIRECT if port in ports else UNSPEC), port
    learn(bench)  # and what the engine says now is learned all the same


def test_other_ends_ports_vlans_and_tunnels_are_other_flows(bench: Bench) -> None:
    learn(bench)
    learn(bench, tagged4(tcp(), TCP, True))
    learn(bench, tunnel_4in6(tcp(), TCP, True))
    strangers = [
        plain4(tcp(client_port=50001), TCP, True),
        plain4(udp(), UDP, True),
        plain6(tcp(), TCP, True),
        ethernet(VLAN, vlan(11, IPV4, ipv4(TCP, tcp()))),
        tunnel_4in4(tcp(), TCP, True),
        ethernet(IPV6, ipv6(4, ipv4(TCP, tcp()), ends=(bytes(15) + b"\x09", bytes(15) + b"\x08"))),
        ethernet(IPV4, ipv4(TCP, tcp(), ends=(C4, P4))),
        ethernet(IPV4, ipv4(TCP, tcp(), ends=(T4, S4))),
    ]
    for stranger in strangers:
        assert bench.ingress(stranger, out=True).action == UNSPEC


def test_same_addresses_with_the_ports_the_other_way_round_are_another_flow(bench: Bench) -> None:
    learn(bench)
    mirrored = ethernet(IPV4, ipv4(TCP, tcp(out=False)))
    assert bench.ingress(mirrored, out=True).action == UNSPEC


@pytest.mark.parametrize("kind", NEVER_BYPASSED)
def test_fragments_and_the_like_never_end_or_use_a_bypass(bench: Bench, kind: str) -> None:
    learn(bench)
    for out in (True, False):
        assert bench.ingress(NEVER_BYPASSED[kind](out), out=out).action == UNSPEC
    assert bench.flows() == 1


@pytest.mark.parametrize("target", ["01005e0000fb", "3333000000fb", "ffffffffffff"])
def test_frame_to_a_group_is_neither_learned_nor_bypassed(bench: Bench, target: str) -> None:
    frame = ethernet(IPV4, ipv4(UDP, udp()), target=bytes.fromhex(target))
    bench.egress(frame, out=True)
    assert bench.flows() == 0
    learn(bench, plain4(udp(), UDP, True))
    assert bench.ingress(frame, out=True).action == UNSPEC


def test_new_block_stops_a_bypassed_flow_with_its_next_packet(bench: Bench) -> None:
    learn(bench)
    bench.block("198.51.100.10")
    assert bench.ingress(PACKET, out=True).action == SHOT
    assert bench.ingress(ANSWER, out=False).action == SHOT
    assert bench.flows() == 0


def test_bypassed_frame_for_the_box_itself_is_not_sent_elsewhere(bench: Bench) -> None:
    frame = ethernet(IPV4, ipv4(TCP, tcp()), target=OWN_MAC)
    bench.egress(frame, out=True)
    verdict = bench.ingress(frame, out=True)
    assert (verdict.action, verdict.mark) == (UNSPEC, Mark.SKIP)


@pytest.mark.parametrize(("size", "expected"), [(1522, REDIRECT), (1523, UNSPEC), (3000, UNSPEC)])
def test_jumbo_frame_is_left_to_the_bridge_that_knows_what_a_port_can_send(
    bench: Bench, size: int, expected: int
) -> None:
    learn(bench)
    frame = PACKET + bytes(size - len(PACKET))
    verdict = bench.ingress(frame, out=True)
    assert (verdict.action, verdict.mark) == (expected, Mark.SKIP)
    assert bench.ingress(frame, out=True, segments=(7, 1448)).action == REDIRECT


def test_bytes_of_bypassed_flows_are_accounted_per_terminal_and_direction(bench: Bench) -> None:
    big_out, big_in = PACKET + bytes(1000), ANSWER + bytes(1400)
    bench.ingress(PACKET, out=True)
    learn(bench)
    for _ in range(3):
        bench.ingress(big_out, out=True)
    for _ in range(2):
        bench.ingress(big_in, out=False)
    terminal = bench.gate.terminal("192.168.10.11")
    assert terminal is not None
    assert terminal.bypassed_tx_bytes == len(PACKET) + 3 * len(big_out)
    assert terminal.bypassed_rx_bytes == 2 * len(big_in)
    assert (terminal.tx_packets, terminal.rx_packets) == (5, 2)
    assert (terminal.tx_bytes, terminal.rx_bytes) == (2 * len(PACKET) + 3 * len(big_out), 2 * len(big_in))
    (flow,) = bench.gate.bypassed_flows()
    assert (flow.out_bytes, flow.in_bytes) == (terminal.bypassed_tx_bytes, terminal.bypassed_rx_bytes)


def test_terminal_inside_a_tunnel_has_the_bypassed_bytes(bench: Bench) -> None:
    frame = tunnel_4in6(tcp(), TCP, True)
    learn(bench, frame)
    inside, router = bench.gate.terminal("192.168.10.11"), bench.gate.terminal("fd00:10::5")
    assert inside is not None
    assert router is not None
    assert (inside.bypassed_tx_bytes, router.bypassed_tx_bytes) == (len(frame), 0)
    assert inside.tx_bytes == router.tx_bytes == len(frame)
