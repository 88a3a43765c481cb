"""What the agent makes of the gate's bytes, and what it refuses to put into them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.gate import (
    BlockListFullError,
    Control,
    Count,
    ExemptAddress,
    ExemptionsFullError,
    ExemptMac,
    Gate,
    GateUnavailableError,
    PrefixTooWideError,
    layout,
)
from omamori_agent.gate.layout import ControlSlot, ExemptKind, Uninspected
from omamori_agent.gate.wire import BRIDGE_SETTINGS, unset_bridge_settings
from omamori_protocol.vocabulary import Direction
from sim.memory_maps import NOW, OWN_MAC, SINCE_BOOT, MemoryMap, make_gate, make_maps, set_slot

CLIENT = bytes(10) + b"\xff\xff" + bytes([192, 168, 10, 11])
SERVER6 = ipaddress.IPv6Address("2001:db8::1").packed


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryMap]:
    return make_maps(monkeypatch)


@pytest.fixture
def gate(maps: dict[str, MemoryMap]) -> Gate:
    return make_gate()


def test_terminal_has_ipv4_again_a_readable_mac_and_unix_time(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    value = layout.TERMINAL.pack(
        b"\x02\x00\x00\x00\x00\x0b", 2, 400_000_000_000, 499_500_000_000, 7, 900, 5, 600, 90, 60
    )
    maps["terminals"].content[CLIENT] = value
    terminal = gate.terminal("192.168.10.11")
    assert terminal is not None
    assert terminal.mac == "02:00:00:00:00:0b"
    assert terminal.address == ipaddress.IPv4Address("192.168.10.11")
    assert (terminal.first_seen, terminal.last_seen) == (999_900.0, 999_999.5)
    assert (terminal.tx_packets, terminal.tx_bytes, terminal.rx_packets, terminal.rx_bytes) == (7, 900, 5, 600)
    assert (terminal.bypassed_tx_bytes, terminal.bypassed_rx_bytes) == (90, 60)
    assert gate.terminals() == [terminal]
    assert gate.terminal("192.168.10.12") is None


def test_blocked_flow_from_inside_names_the_terminal_and_is_drained_once(
    gate: Gate, maps: dict[str, MemoryMap]
) -> None:
    key = layout.BLOCKED_KEY.pack(CLIENT, SERVER6, (443).to_bytes(2, "big"), 6, 2)
    value = layout.BLOCKED.pack(3, 180, 0, 500_000_000_000, b"\x02\x00\x00\x00\x00\x0b", (50000).to_bytes(2, "big"), 4)
    maps["blocked"].content[key] = value
    (flow,) = gate.drain_blocked()
    assert (str(flow.src), str(flow.dst), flow.sport, flow.dport, flow.proto) == (
        "192.168.10.11",
        "2001:db8::1",
        50000,
        443,
        6,
    )
    assert (flow.direction, flow.mac, flow.packets, flow.bytes, flow.list_id) == (
        Direction.OUT,
        "02:00:00:00:00:0b",
        3,
        180,
        4,
    )
    assert gate.drain_blocked() == []


def test_blocked_flow_to_a_group_has_no_mac(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    key = layout.BLOCKED_KEY.pack(SERVER6, CLIENT, b"\0\0", 1, 1)
    maps["blocked"].content[key] = layout.BLOCKED.pack(1, 60, 0, 0, bytes(6), b"\0\0", 0)
    (flow,) = gate.drain_blocked()
    assert flow.mac is None
    assert flow.direction is Direction.IN


def test_sync_adds_what_is_new_and_removes_what_is_gone(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    first = [ipaddress.ip_network("203.0.113.99/32"), ipaddress.ip_network("2001:db8:bad::/48")]
    assert gate.sync_block(first) == (2, 0)
    assert gate.sync_block(first) == (0, 0)
    assert gate.sync_block([*first[1:], ipaddress.ip_network("198.51.100.0/24")]) == (1, 1)
    lengths = sorted(layout.BLOCK_KEY.unpack(key)[0] for key in maps["block"].content)
    assert lengths == [48, 96 + 24]
    assert gate.sync_block([]) == (0, 2)


def test_prefix_in_two_lists_belongs_to_the_first(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    prefix = ipaddress.ip_network("203.0.113.99/32")
    assert gate.sync_block_lists({5: [prefix], 6: [prefix]}) == (1, 0)
    assert [layout.BLOCK.unpack(value)[1] for value in maps["block"].content.values()] == [5]
    assert gate.sync_block_lists({6: [prefix]}) == (1, 0)


@pytest.mark.parametrize(
    "prefix", ["0.0.0.0/0", "10.0.0.0/7", "::/0", "2000::/3", "::/80", "::ffff:0:0/96", "::ffff:0.0.0.0/103"]
)
def test_prefix_that_covers_too_much_is_refused_and_nothing_changes(
    gate: Gate, maps: dict[str, MemoryMap], prefix: str
) -> None:
    good = ipaddress.ip_network("203.0.113.99/32")
    gate.sync_block([good])
    writes = maps["block"].writes
    with pytest.raises(PrefixTooWideError):
        gate.sync_block([good, ipaddress.ip_network(prefix)])
    assert maps["block"].writes == writes


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "2001::/16", "::ffff:10.0.0.0/104"])
def test_prefix_at_the_bound_is_taken(gate: Gate, prefix: str) -> None:
    assert gate.sync_block([ipaddress.ip_network(prefix)]) == (1, 0)


def test_one_prefix_more_than_the_map_holds_is_refused_and_nothing_changes(
    gate: Gate, maps: dict[str, MemoryMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_BLOCK", 4)
    prefixes = [ipaddress.ip_network(f"203.0.113.{number}/32") for number in range(5)]
    with pytest.raises(BlockListFullError) as caught:
        gate.sync_block(prefixes)
    assert caught.value.capacity == 4
    assert maps["block"].writes == 0
    assert gate.sync_block(prefixes[:4]) == (4, 0)


def test_maps_of_another_version_are_not_used(maps: dict[str, MemoryMap]) -> None:
    maps["config"].content[b"\0\0\0\0"] = layout.CONFIG.pack(layout.ABI + 1, 7, 3, 2, 60, 7200, 300, OWN_MAC)
    with pytest.raises(GateUnavailableError, match="version 3 instead of 2"):
        Gate(Path("/nowhere"))


def test_absent_pins_are_a_transient_error(tmp_path: Path) -> None:
    with pytest.raises(GateUnavailableError) as caught:
        Gate(tmp_path)
    assert isinstance(caught.value, TransientError)
    assert caught.value.map_name == "config"


def test_refusals_are_rejections() -> None:
    assert issubclass(BlockListFullError, RejectedError)
    assert issubclass(PrefixTooWideError, RejectedError)
    assert issubclass(ExemptionsFullError, RejectedError)


def test_bridge_settings_that_are_off_or_absent_are_named(tmp_path: Path) -> None:
    for name in BRIDGE_SETTINGS:
        (tmp_path / name).write_text("1\n")
    assert unset_bridge_settings(tmp_path) == ()
    (tmp_path / BRIDGE_SETTINGS[0]).write_text("0\n")
    (tmp_path / BRIDGE_SETTINGS[1]).unlink()
    assert unset_bridge_settings(tmp_path) == BRIDGE_SETTINGS[:2]


def test_only_the_agent_s_own_maps_are_opened_for_writing(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    writable = {name for name, one in maps.items() if not one.read_only and name != "ports"}
    assert writable == {"block", "blocked", "control", "exempt", "exempt_mac"}


def test_flow_says_whether_it_is_in_a_tunnel_and_of_which_epoch(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    key = layout.FLOW_KEY.pack(CLIENT, SERVER6, b"\xc3\x50", b"\x01\xbb", 10, 0, 7, 6, 99)
    maps["flows"].content[key] = layout.FLOW.pack(0, 499_000_000_000, 1, 2, 3, 4, 5)
    (flow,) = gate.bypassed_flows()
    assert (str(flow.a), flow.a_port, str(flow.b), flow.b_port, flow.vlan) == (
        "192.168.10.11",
        50000,
        "2001:db8::1",
        443,
        10,
    )
    assert (flow.in_packets, flow.in_bytes, flow.out_packets, flow.out_bytes, flow.epoch) == (1, 2, 3, 4, 5)
    assert flow.is_tunnelled
    assert flow.last_seen == NOW - 1


def test_station_is_read(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    maps["stations"].content[layout.STATION_KEY.pack(OWN_MAC, 10)] = layout.STATION.pack(4, 498_000_000_000)
    (station,) = gate.stations()
    assert (station.mac, station.vlan, station.ifindex, station.last_seen) == ("02:00:00:00:00:fe", 10, 4, NOW - 2)


def test_uninspected_is_summed_over_the_processors(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    pairs = layout.COUNT.pack(1, 100) + layout.COUNT.pack(2, 50)
    maps["uninspected"].content[Uninspected.HUNG.to_bytes(4, "little")] = pairs
    assert gate.uninspected()[Uninspected.HUNG] == Count(3, 150)
    assert gate.uninspected()[Uninspected.NO_VERDICT] == Count(0, 0)


def test_bypass_is_a_lease_in_time_since_boot(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    gate.set_bypass_until(NOW + 600)
    raw = maps["control"].content[ControlSlot.BYPASS_UNTIL_NS.to_bytes(4, "little")]
    assert layout.CONTROL.unpack(raw) == ((SINCE_BOOT + 600) * 1_000_000_000,)
    assert gate.bypass_until() == NOW + 600
    for ended in (None, NOW, NOW - 1):
        gate.set_bypass_until(ended)
        assert gate.bypass_until() is None


def test_bypass_of_more_than_a_week_is_refused(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    gate.set_bypass_until(NOW + 7 * 86400)
    writes = maps["control"].writes
    with pytest.raises(ValueError, match="week"):
        gate.set_bypass_until(NOW + 7 * 86400 + 1)
    assert maps["control"].writes == writes


def test_control_shows_what_others_wrote(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    assert gate.control() == Control(None, None, None, 0, fail_closed=False)
    set_slot(maps, ControlSlot.HUNG_UNTIL_NS, 501_000_000_000)
    set_slot(maps, ControlSlot.BUTTON_UNTIL_NS, 502_000_000_000)
    gate.set_fail_closed(on=True)
    assert [gate.raise_epoch(), gate.raise_epoch()] == [1, 2]
    control = gate.control()
    assert (control.hung_until, control.button_until, control.bypass_until) == (NOW + 1, NOW + 2, None)
    assert (control.epoch, control.fail_closed) == (2, True)


def test_epoch_goes_round_at_the_end_of_its_number(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    set_slot(maps, ControlSlot.EPOCH, 2**64 - 1)
    assert gate.raise_epoch() == 0


def addresses(*prefixes: str, kind: ExemptKind = ExemptKind.TERMINAL) -> list[ExemptAddress]:
    return [ExemptAddress(ipaddress.ip_network(prefix), kind, 1) for prefix in prefixes]


def test_exemptions_are_synchronised_as_a_whole(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    macs = [ExemptMac("02:00:00:00:00:0b", 5)]
    assert gate.sync_exemptions(addresses("192.168.10.11/32", "fd00::/64"), macs) == (3, 0)
    assert gate.sync_exemptions(addresses("192.168.10.11/32", "fd00::/64"), macs) == (0, 0)
    assert maps["exempt_mac"].content == {b"\x02\0\0\0\0\x0b\0\0": b"\5\0\0\0"}
    assert gate.sync_exemptions(addresses("fd00::/64")) == (0, 2)
    assert gate.sync_exemptions() == (0, 1)


def test_kinds_of_one_prefix_and_of_those_around_it_are_joined(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    gate.sync_exemptions(
        [
            *addresses("198.51.100.0/24", kind=ExemptKind.DESTINATION),
            *addresses("198.51.100.10/32", "198.51.0.0/16"),
            *addresses("192.0.2.1/32"),
            *addresses("192.0.2.1/32", kind=ExemptKind.DESTINATION),
        ]
    )
    kinds = {
        layout.EXEMPT_KEY.unpack(key)[0]: layout.EXEMPT.unpack(value)[0]
        for key, value in maps["exempt"].content.items()
        if b"\xc6\x33" in key
    }
    assert kinds == {96 + 16: 1, 96 + 24: 3, 96 + 32: 3}
    assert layout.EXEMPT.pack(3, 1) in {value for key, value in maps["exempt"].content.items() if b"\xc0\0\2\1" in key}


@pytest.mark.parametrize(
    "mac", ["", "02:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "0" * 12, "no mac here"]
)
def test_exemption_of_no_single_device_is_refused_and_nothing_changes(
    gate: Gate, maps: dict[str, MemoryMap], mac: str
) -> None:
    with pytest.raises(ValueError, match=r"MAC|hex"):
        gate.sync_exemptions(addresses("192.168.10.11/32"), [ExemptMac(mac)])
    assert (maps["exempt"].writes, maps["exempt_mac"].writes) == (0, 0)


def test_one_exemption_more_than_the_maps_hold_is_refused_and_nothing_changes(
    gate: Gate, maps: dict[str, MemoryMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_EXEMPT", 2)
    monkeypatch.setattr(layout, "MAX_EXEMPT_MAC", 2)
    macs = [ExemptMac(f"02:00:00:00:00:0{number}") for number in range(3)]
    with pytest.raises(ExemptionsFullError):
        gate.sync_exemptions(addresses("10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"))
    with pytest.raises(ExemptionsFullError):
        gate.sync_exemptions(macs=macs)
    with pytest.raises(PrefixTooWideError):
        gate.sync_exemptions(addresses("0.0.0.0/0"))
    assert (maps["exempt"].writes, maps["exempt_mac"].writes) == (0, 0)
    assert gate.sync_exemptions(addresses("10.0.0.1/32", "10.0.0.2/32"), macs[:2]) == (4, 0)


def test_refusal_of_the_kernel_names_the_map(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    maps["control"].failure = PermissionError(13, "Permission denied")
    with pytest.raises(GateUnavailableError, match="gate map control: Permission denied") as caught:
        gate.raise_epoch()
    assert "group omamori" in caught.value.hint


def test_block_list_is_read_back(gate: Gate) -> None:
    prefixes = [ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8::/32")]
    gate.sync_block_lists({4: prefixes})
    assert sorted(gate.block_list(), key=str) == [(prefix, 4) for prefix in prefixes]


def test_pause_of_the_engine_is_short_and_can_be_ended(gate: Gate) -> None:
    gate.pause_engine()
    assert gate.control().paused_until == NOW + 3
    gate.resume_engine()
    assert gate.control().paused_until is None
