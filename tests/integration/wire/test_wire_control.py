"""What steers the gate: leases, exemptions, fail-closed; and that each uninspected packet is counted once."""

from __future__ import annotations

import ipaddress

import pytest

from omamori_agent.gate import ExemptAddress, ExemptKind, ExemptMac
from omamori_agent.gate.layout import MARKS_DECIDED, ControlSlot, Counter, Mark, Uninspected
from omamori_lab.waiting import wait_for
from sim.frames import (
    C4,
    CLIENT_MAC,
    IPV4,
    NEVER_BYPASSED,
    OWN_MAC,
    READABLE,
    ROUTER_MAC,
    S4,
    T4,
    TCP,
    UDP,
    UNREADABLE,
    Wrap,
    ethernet,
    ipv4,
    plain4,
    plain6,
    tcp,
    tunnel_4in4,
    tunnel_4in6,
    udp,
)
from sim.gate_bench import REDIRECT, SHOT, UNSPEC, Bench, Growth

pytestmark = pytest.mark.root

PACKET = plain4(tcp(), TCP, True)
ANSWER = plain4(tcp(out=False), TCP, False)
SERVER = "198.51.100.10"
COMMAND_SLOTS = [ControlSlot.BYPASS_UNTIL_NS, ControlSlot.BUTTON_UNTIL_NS]
LEASES = {
    ControlSlot.HUNG_UNTIL_NS: Uninspected.HUNG,
    ControlSlot.PAUSED_UNTIL_NS: Uninspected.PAUSED,
    ControlSlot.BYPASS_UNTIL_NS: Uninspected.COMMAND,
    ControlSlot.BUTTON_UNTIL_NS: Uninspected.COMMAND,
}
readable = pytest.mark.parametrize("wrap", READABLE, ids=lambda wrap: wrap.__name__)
leases = pytest.mark.parametrize("slot", LEASES)


def pass_through(bench: Bench, frame: bytes, *, out: bool) -> int:
    """Let a frame come in and go out again as on a box whose engine is dead; return its mark when it left."""
    came = bench.ingress(frame, out=out)
    assert came.action == UNSPEC
    assert bench.egress(frame, out=out, mark=came.mark).action == UNSPEC
    return came.mark


@leases
@readable
def test_leased_packet_skips_the_queue_and_is_counted_once(bench: Bench, slot: ControlSlot, wrap: Wrap) -> None:
    bench.lease(slot, 60)
    grown = Growth(bench.gate)
    frame = wrap(tcp(), TCP, True)
    assert pass_through(bench, frame, out=True) == Mark.SKIP
    assert grown.uninspected() == {LEASES[slot]: (1, len(frame))}
    assert grown.counters()[Counter.SKIPPED] == 1
    assert Counter.INSPECTED not in grown.counters()


@leases
def test_lease_ends_by_itself(bench: Bench, slot: ControlSlot) -> None:
    bench.lease(slot, 0.2)
    wait_for(lambda: bench.ingress(PACKET, out=True).mark == 0, timeout_s=10, what="the end of the lease")
    grown = Growth(bench.gate)
    assert pass_through(bench, PACKET, out=True) == 0
    assert grown.uninspected() == {Uninspected.NO_VERDICT: (1, len(PACKET))}


@leases
def test_lease_of_the_past_is_none(bench: Bench, slot: ControlSlot) -> None:
    bench.lease(slot, -1)
    assert bench.ingress(PACKET, out=True).mark == 0


@leases
@pytest.mark.parametrize("kind", NEVER_BYPASSED)
def test_fragments_and_the_like_are_leased_too(bench: Bench, slot: ControlSlot, kind: str) -> None:
    bench.lease(slot, 60)
    for out in (True, False):
        assert bench.ingress(NEVER_BYPASSED[kind](out), out=out).mark == Mark.SKIP


@pytest.mark.parametrize("slot", COMMAND_SLOTS)
def test_command_and_button_make_the_box_a_cable(bench: Bench, slot: ControlSlot) -> None:
    bench.block(SERVER)
    bench.control(ControlSlot.FAIL_CLOSED, 1)
    bench.lease(slot, 60)
    assert pass_through(bench, PACKET, out=True) == Mark.SKIP
    assert pass_through(bench, ANSWER, out=False) == Mark.SKIP
    bench.control(slot, 0)
    assert bench.ingress(PACKET, out=True).action == SHOT


@pytest.mark.parametrize("slot", [ControlSlot.HUNG_UNTIL_NS, ControlSlot.PAUSED_UNTIL_NS])
def test_hung_or_paused_engine_does_not_open_the_block_list(bench: Bench, slot: ControlSlot) -> None:
    bench.block(SERVER)
    bench.lease(slot, 60)
    assert bench.ingress(PACKET, out=True).action == SHOT


def test_command_is_the_reason_when_the_engine_hangs_too(bench: Bench) -> None:
    bench.lease(ControlSlot.HUNG_UNTIL_NS, 60)
    bench.lease(ControlSlot.BYPASS_UNTIL_NS, 60)
    grown = Growth(bench.gate)
    pass_through(bench, PACKET, out=True)
    assert set(grown.uninspected()) == {Uninspected.COMMAND}


@leases
def test_bypassed_flow_goes_on_as_such_during_a_lease(bench: Bench, slot: ControlSlot) -> None:
    bench.egress(PACKET, out=True)
    bench.lease(slot, 60)
    grown = Growth(bench.gate)
    assert bench.ingress(PACKET, out=True).action == REDIRECT
    assert grown.uninspected() == {}


def test_agent_s_bypass_reaches_the_gate_and_can_be_ended(bench: Bench) -> None:
    now, _ = bench.gate._clocks()
    bench.gate.set_bypass_until(now + 600)
    assert bench.gate.bypass_until() == pytest.approx(now + 600, abs=1)
    assert bench.ingress(PACKET, out=True).mark == Mark.SKIP
    bench.gate.set_bypass_until(None)
    assert bench.gate.bypass_until() is None
    assert bench.ingress(PACKET, out=True).mark == 0


# --- exemptions


def exempt(bench: Bench, prefix: str, kind: ExemptKind) -> None:
    bench.gate.sync_exemptions([ExemptAddress(ipaddress.ip_network(prefix), kind, 7)])


def is_exempt(bench: Bench, frame: bytes, *, out: bool) -> bool:
    grown = Growth(bench.gate)
    verdict = bench.ingress(frame, out=out)
    assert verdict.action == UNSPEC
    counted = grown.uninspected() == {Uninspected.EXEMPT: (1, len(frame))}
    assert counted == (verdict.mark == Mark.SKIP) == (Counter.EXEMPTED in grown.counters())
    return counted


def test_exempt_terminal_passes_both_ways_but_nobody_outside_can_pose_as_it(bench: Bench) -> None:
    exempt(bench, "192.168.10.11/32", ExemptKind.TERMINAL)
    assert is_exempt(bench, PACKET, out=True)
    assert is_exempt(bench, ANSWER, out=False)
    posing = ethernet(IPV4, ipv4(TCP, tcp()), out=False)
    assert not is_exempt(bench, posing, out=False)
    assert not is_exempt(bench, plain6(tcp(), TCP, True), out=True)


def test_exempt_destination_passes_both_ways_but_not_as_a_terminal(bench: Bench) -> None:
    exempt(bench, "198.51.100.0/24", ExemptKind.DESTINATION)
    assert is_exempt(bench, PACKET, out=True)
    assert is_exempt(bench, ANSWER, out=False)
    assert not is_exempt(bench, ANSWER, out=True)
    assert not is_exempt(bench, PACKET, out=False)


@pytest.mark.parametrize("mac", ["02:00:00:00:00:0b", "02-00-00-00-00-0B", "02000000000b"])
def test_exempt_device_passes_both_ways_but_nobody_outside_can_pose_as_it(bench: Bench, mac: str) -> None:
    bench.gate.sync_exemptions(macs=[ExemptMac(mac)])
    for wrap in READABLE:
        assert is_exempt(bench, wrap(tcp(), TCP, True), out=True)
        assert is_exempt(bench, wrap(tcp(out=False), TCP, False), out=False)
    assert is_exempt(bench, UNREADABLE["IPv4 with a short header length"], out=True)
    assert not is_exempt(bench, PACKET, out=False)
    assert not is_exempt(bench, ethernet(IPV4, ipv4(TCP, tcp())).replace(CLIENT_MAC, OWN_MAC), out=True)


def test_exemption_inside_the_office_covers_both_directions(bench: Bench) -> None:
    exempt(bench, "192.168.10.11/32", ExemptKind.TERMINAL)
    assert is_exempt(bench, PACKET, out=True)
    assert is_exempt(bench, ANSWER, out=True)


@pytest.mark.parametrize("kind", NEVER_BYPASSED)
def test_fragments_and_the_like_of_an_exempt_terminal_are_exempt_too(bench: Bench, kind: str) -> None:
    bench.gate.sync_exemptions(
        [
            ExemptAddress(ipaddress.ip_network("192.168.10.11/32"), ExemptKind.TERMINAL),
            ExemptAddress(ipaddress.ip_network("fd00:10::11/128"), ExemptKind.TERMINAL),
        ]
    )
    for out in (True, False):
        assert is_exempt(bench, NEVER_BYPASSED[kind](out), out=out)


def test_exemption_wins_over_the_block_list_and_ends_at_once(bench: Bench) -> None:
    bench.block(SERVER)
    assert bench.ingress(PACKET, out=True).action == SHOT
    exempt(bench, "192.168.10.11/32", ExemptKind.TERMINAL)
    assert is_exempt(bench, PACKET, out=True)
    bench.gate.sync_exemptions()
    assert bench.ingress(PACKET, out=True).action == SHOT


@pytest.mark.parametrize("wrap", [tunnel_4in4, tunnel_4in6], ids=lambda wrap: wrap.__name__)
def test_exemption_inside_a_tunnel_holds_but_reaches_no_listed_end(bench: Bench, wrap: Wrap) -> None:
    frame = wrap(tcp(), TCP, True)
    exempt(bench, "198.51.100.10/32", ExemptKind.DESTINATION)
    bench.block(SERVER)
    assert is_exempt(bench, frame, out=True)
    bench.block("192.0.2.1", "2001:db8:aa::1")
    assert bench.ingress(frame, out=True).action == SHOT


def test_exempt_router_takes_its_tunnel_along(bench: Bench) -> None:
    exempt(bench, "192.168.10.5/32", ExemptKind.TERMINAL)
    bench.block(SERVER)
    assert is_exempt(bench, tunnel_4in4(tcp(), TCP, True), out=True)
    assert is_exempt(bench, tunnel_4in4(tcp(out=False), TCP, False), out=False)


def test_narrow_exemption_does_not_hide_the_wide_one_around_it(bench: Bench) -> None:
    networks = {"198.51.100.0/24": ExemptKind.DESTINATION, "198.51.100.10/32": ExemptKind.TERMINAL}
    bench.gate.sync_exemptions([ExemptAddress(ipaddress.ip_network(text), kind) for text, kind in networks.items()])
    assert is_exempt(bench, PACKET, out=True)
    assert is_exempt(bench, ANSWER, out=False)


def test_packets_for_the_box_itself_are_never_in_the_ledger(bench: Bench) -> None:
    frame = ethernet(IPV4, ipv4(UDP, udp()), target=OWN_MAC)
    exempt(bench, "192.168.10.11/32", ExemptKind.TERMINAL)
    grown = Growth(bench.gate)
    assert bench.ingress(frame, out=True).mark == Mark.SKIP
    bench.gate.sync_exemptions()
    bench.lease(ControlSlot.HUNG_UNTIL_NS, 60)
    assert bench.ingress(frame, out=True).mark == Mark.SKIP
    assert grown.uninspected() == {}


# --- what leaves without a verdict


@readable
@pytest.mark.parametrize("mark", [0, Mark.WAITING, Mark.INSPECTED, Mark.BYPASS, Mark.INSPECTED | Mark.BYPASS])
def test_forwarded_packet_without_any_mark_is_uninspected(bench: Bench, wrap: Wrap, mark: int) -> None:
    frame = wrap(tcp(), TCP, True)
    grown = Growth(bench.gate)
    assert bench.egress(frame, out=True, mark=mark).action == UNSPEC
    assert grown.uninspected() == ({} if mark & MARKS_DECIDED else {Uninspected.NO_VERDICT: (1, len(frame))})


@pytest.mark.parametrize("kind", [kind for kind in UNREADABLE if not kind.startswith("IPv")])
def test_what_is_not_ip_is_neither_counted_nor_refused(bench: Bench, kind: str) -> None:
    bench.control(ControlSlot.FAIL_CLOSED, 1)
    grown = Growth(bench.gate)
    assert pass_through(bench, UNREADABLE[kind], out=True) == 0
    assert grown.uninspected() == {}


@readable
def test_fail_closed_refuses_what_nothing_has_inspected(bench: Bench, wrap: Wrap) -> None:
    bench.gate.set_fail_closed(on=True)
    frame = wrap(tcp(), TCP, True)
    grown = Growth(bench.gate)
    for mark in (0, Mark.WAITING, 0xFFFFFFF8):
        assert bench.egress(frame, out=True, mark=mark).action == SHOT
    assert grown.counters() == {Counter.REFUSED: 3}
    assert grown.uninspected() == {}
    for mark in MARKS_DECIDED:
        assert bench.egress(frame, out=True, mark=mark).action == UNSPEC
    assert bench.egress(frame, out=True, mark=0, is_own=True).action == UNSPEC
    bench.gate.set_fail_closed(on=False)
    assert bench.egress(frame, out=True, mark=0).action == UNSPEC


def test_fail_closed_keeps_bypassed_flows_and_exemptions(bench: Bench) -> None:
    bench.gate.set_fail_closed(on=True)
    bench.egress(PACKET, out=True)
    came = bench.ingress(PACKET, out=True)
    assert (came.action, came.mark) == (REDIRECT, Mark.SKIP)
    assert bench.egress(PACKET, out=True, mark=came.mark).action == UNSPEC
    exempt(bench, "192.168.10.11/32", ExemptKind.TERMINAL)
    other = plain4(udp(), UDP, True)
    assert pass_through(bench, other, out=True) == Mark.SKIP


@pytest.mark.parametrize("slot", [ControlSlot.HUNG_UNTIL_NS, ControlSlot.PAUSED_UNTIL_NS])
def test_fail_closed_is_not_opened_by_an_engine_that_hangs_or_stops(bench: Bench, slot: ControlSlot) -> None:
    bench.gate.set_fail_closed(on=True)
    bench.lease(slot, 60)
    assert bench.ingress(PACKET, out=True).mark == 0


@pytest.mark.parametrize("is_own", [True, False])
def test_own_packets_of_the_box_are_not_in_the_ledger(bench: Bench, is_own: bool) -> None:
    grown = Growth(bench.gate)
    bench.egress(PACKET, out=True, mark=0, is_own=is_own)
    assert (grown.uninspected() == {}) == is_own


def test_copies_on_the_same_port_are_packets_of_their_own(bench: Bench) -> None:
    """Only a copy that leaves by another port is the same packet; that is tested with a real flood."""
    grown = Growth(bench.gate)
    for _ in range(3):
        bench.egress(PACKET, out=True, mark=0)
    assert grown.uninspected() == {Uninspected.NO_VERDICT: (3, 3 * len(PACKET))}


# --- stations


def test_station_is_where_it_spoke_last(bench: Bench) -> None:
    for port in ("lan1", "lan2", "lan3", "lan1"):
        bench.ingress(PACKET, out=True, port=port)
        (station,) = bench.gate.stations()
        assert (station.mac, station.vlan, station.ifindex) == (CLIENT_MAC.hex(":"), 0, bench.ports[port])


@pytest.mark.parametrize("kind", UNREADABLE)
def test_station_is_learned_from_any_frame(bench: Bench, kind: str) -> None:
    bench.ingress(UNREADABLE[kind], out=True, port="lan2")
    (station,) = bench.gate.stations()
    assert (station.mac, station.ifindex) == (CLIENT_MAC.hex(":"), bench.ports["lan2"])


def test_group_and_the_box_s_own_mac_are_no_stations(bench: Bench) -> None:
    for mac in (bytes.fromhex("03000000000b"), OWN_MAC):
        bench.ingress(PACKET.replace(CLIENT_MAC, mac), out=True)
    assert bench.gate.stations() == []


def test_same_mac_in_two_vlans_is_two_stations(bench: Bench) -> None:
    for wrap, port in ((READABLE[0], "lan1"), (READABLE[6], "lan2")):
        bench.ingress(wrap(tcp(), TCP, True), out=True, port=port)
    assert {(station.vlan, station.ifindex) for station in bench.gate.stations()} == {
        (0, bench.ports["lan1"]),
        (10, bench.ports["lan2"]),
    }


def redirected(bench: Bench, frame: bytes, *, out: bool, port: str | None = None) -> bool:
    grown = Growth(bench.gate)
    verdict = bench.ingress(frame, out=out, port=port)
    assert verdict.mark == Mark.SKIP
    assert grown.counters()[Counter.BYPASSED] == 1
    assert (verdict.action == REDIRECT) == (Counter.REDIRECTED in grown.counters())
    return verdict.action == REDIRECT


def test_with_several_lan_ports_only_a_known_station_is_redirected_to(bench: Bench) -> None:
    bench.configure(single=False)
    bench.egress(PACKET, out=True)
    assert not redirected(bench, PACKET, out=True)
    assert redirected(bench, ANSWER, out=False)  # the client has just spoken
    assert redirected(bench, PACKET, out=True)  # and now the router has


def test_silent_station_is_not_redirected_to(bench: Bench) -> None:
    bench.configure(single=False)
    bench.egress(PACKET, out=True)
    bench.ingress(PACKET, out=True)
    assert redirected(bench, ANSWER, out=False)
    bench.configure(single=False, station_idle_ns=0)
    assert not redirected(bench, ANSWER, out=False)
    bench.configure(station_idle_ns=0)  # with two ports there is only one other side
    assert redirected(bench, ANSWER, out=False)


def test_frame_for_a_station_behind_the_same_port_is_left_to_the_bridge(bench: Bench) -> None:
    bench.egress(PACKET, out=True)
    bench.ingress(ethernet(0x0806, bytes(28)).replace(CLIENT_MAC, ROUTER_MAC), out=True)  # the router is inside
    assert not redirected(bench, PACKET, out=True)


def test_stations_are_bounded_and_a_flood_of_macs_only_costs_redirection(bench: Bench) -> None:
    bench.configure(single=False)
    bench.egress(PACKET, out=True)
    for number in range(200):
        bench.ingress(PACKET.replace(CLIENT_MAC, b"\x02\x01" + number.to_bytes(4, "big")), out=True)
    assert len(bench.gate.stations()) == 200
    assert not redirected(bench, ethernet(IPV4, ipv4(TCP, tcp()), target=b"\x02\x02\0\0\0\0"), out=True)


def test_two_terminals_inside_are_both_accounted(bench: Bench) -> None:
    bench.ingress(ethernet(IPV4, ipv4(UDP, udp(), ends=(T4, S4))), out=True)
    frame = ethernet(IPV4, ipv4(UDP, udp(), ends=(C4, T4)))
    bench.egress(frame, out=True)
    bench.ingress(frame, out=True)
    sender, receiver = bench.gate.terminal("192.168.10.11"), bench.gate.terminal("192.168.10.5")
    assert sender is not None
    assert receiver is not None
    assert (sender.bypassed_tx_bytes, receiver.bypassed_rx_bytes) == (len(frame), len(frame))
    assert (receiver.tx_packets, receiver.rx_packets) == (1, 1)
