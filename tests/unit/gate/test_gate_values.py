"""What the agent makes of the gate's bytes, and what it refuses to put into them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.errors import RejectedError, TransientError
from omamori_agent.gate import BlockListFullError, Gate, GateUnavailableError, PrefixTooWideError, layout
from omamori_agent.gate import gate as module
from omamori_agent.gate.layout import MapName
from omamori_agent.gate.wire import BRIDGE_SETTINGS, unset_bridge_settings
from omamori_protocol.vocabulary import Direction

CLIENT = bytes(10) + b"\xff\xff" + bytes([192, 168, 10, 11])
OWN_MAC = b"\x02\x00\x00\x00\x00\xfe"
SERVER6 = ipaddress.IPv6Address("2001:db8::1").packed


class MemoryMap:
    """A map in memory with the interface of the real one."""

    def __init__(self, content: dict[bytes, bytes] | None = None) -> None:
        self.content = content or {}
        self.writes = 0

    def lookup(self, key: bytes, *, size: int | None = None) -> bytes | None:
        return self.content.get(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from list(self.content.items())

    def take(self) -> Iterator[tuple[bytes, bytes]]:
        taken, self.content = self.content, {}
        yield from taken.items()

    def update_many(self, keys: list[bytes], values: list[bytes]) -> None:
        self.writes += len(keys)
        self.content.update(zip(keys, values, strict=True))

    def delete_many(self, keys: list[bytes]) -> None:
        self.writes += len(keys)
        for key in keys:
            self.content.pop(key, None)

    def close(self) -> None:
        pass


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryMap]:
    made = {name.value: MemoryMap() for name in MapName}
    made["config"].content[b"\0\0\0\0"] = layout.CONFIG.pack(layout.ABI, 7, 3, 2, 60, 7200, 300, OWN_MAC)
    monkeypatch.setattr(module, "BpfMap", lambda path, _key, _value, **_: made[path.name])
    return made


@pytest.fixture
def gate(maps: dict[str, MemoryMap]) -> Gate:
    return Gate(Path("/nowhere"), clocks=lambda: (1_000_000.0, 500.0))


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


def test_bridge_settings_that_are_off_or_absent_are_named(tmp_path: Path) -> None:
    for name in BRIDGE_SETTINGS:
        (tmp_path / name).write_text("1\n")
    assert unset_bridge_settings(tmp_path) == ()
    (tmp_path / BRIDGE_SETTINGS[0]).write_text("0\n")
    (tmp_path / BRIDGE_SETTINGS[1]).unlink()
    assert unset_bridge_settings(tmp_path) == BRIDGE_SETTINGS[:2]
