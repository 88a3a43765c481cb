"""The block list as a stream: what a line means, what a whole list does, and that a bad one does nothing."""

from __future__ import annotations

import errno
import ipaddress
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.gate import BadPrefixError, BlockListFullError, Gate, PrefixTooWideError, layout
from omamori_agent.gate.block_list import BATCH, parse_prefix
from omamori_agent.gate.values import prefix_key
from sim.memory_maps import MemoryMap, make_gate, make_maps


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryMap]:
    return make_maps(monkeypatch)


@pytest.fixture
def gate(maps: dict[str, MemoryMap]) -> Gate:
    return make_gate()


def entries(gate: Gate) -> dict[str, int]:
    return {str(prefix): list_id for prefix, list_id in gate.block_list()}


def line(number: int) -> bytes:
    return f"203.{number >> 16}.{number >> 8 & 255}.{number & 255}".encode()


@given(st.ip_addresses(), st.integers(8, 128))
def test_line_means_what_the_standard_library_says(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int
) -> None:
    bits = min(bits, address.max_prefixlen)
    network = ipaddress.ip_network((address, bits), strict=False)
    try:
        expected = prefix_key(network)
    except PrefixTooWideError:
        with pytest.raises(PrefixTooWideError):
            parse_prefix(f"{address}/{bits}".encode())
        return
    assert parse_prefix(f"{address}/{bits}".encode()) == expected
    if bits == address.max_prefixlen:
        assert parse_prefix(str(address).encode()) == expected


@pytest.mark.parametrize(
    "bad",
    [
        *(b"", b"/", b"/8", b"203.0.113.7/", b"203.0.113.7/33", b"203.0.113.7/-1", b"203.0.113.7/ 8", b"203.0.113"),
        *(b"203.0.113.256", b"203.0.113.07\n", b"2001:db8::/129", b"2001:db8::1::", b"host.test", b"203.0.113.7/8/8"),
        *(b"\xff\xfe", b"2001:db8::1%eth0", b"203.0.113.7/0000000008", b"203.0.113.7" + bytes(60), b"1" * 100),
    ],
)
def test_line_that_is_no_address_is_refused(bad: bytes) -> None:
    with pytest.raises(BadPrefixError) as caught:
        parse_prefix(bad)
    assert len(caught.value.line) <= 64


@pytest.mark.parametrize("wide", [b"0.0.0.0/0", b"10.0.0.0/7", b"::/0", b"2000::/3", b"::/80", b"::ffff:0:0/96"])
def test_line_that_covers_too_much_is_refused(wide: bytes) -> None:
    with pytest.raises(PrefixTooWideError):
        parse_prefix(wide)


def test_changes_are_applied_in_their_order(gate: Gate) -> None:
    assert gate.change_block([(b"203.0.113.7", 1), (b"2001:db8::/32", 2)]) == (2, 0)
    assert entries(gate) == {"203.0.113.7/32": 1, "2001:db8::/32": 2}
    assert gate.change_block([(b"203.0.113.7", None), (b"203.0.113.7", 3), (b"198.51.100.1", None)]) == (1, 1)
    assert entries(gate) == {"203.0.113.7/32": 3, "2001:db8::/32": 2}
    assert gate.change_block([(b"203.0.113.7", 4), (b"203.0.113.7", None)]) == (0, 1)
    assert entries(gate) == {"2001:db8::/32": 2}
    assert gate.change_block([]) == (0, 0)


def test_bad_line_among_changes_leaves_the_batches_before_in_force(gate: Gate) -> None:
    changes = [*((line(number), 1) for number in range(BATCH)), (line(BATCH), 1), (b"nonsense", 1)]
    with pytest.raises(BadPrefixError):
        gate.change_block(changes)
    assert len(entries(gate)) == BATCH


def test_whole_list_replaces_whatever_was_there(gate: Gate) -> None:
    gate.change_block([(b"203.0.113.7", 1), (b"203.0.113.8", 1)])
    gate.sync_block([ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("203.0.113.8/32")])
    assert gate.replace_block(lambda: [(b"203.0.113.8", 5), (b"2001:db8::/32", 6)]) == (2, 1)
    assert entries(gate) == {"203.0.113.8/32": 5, "2001:db8::/32": 6}
    assert gate.replace_block(lambda: [(b"203.0.113.8", 7)]) == (1, 1)
    assert entries(gate) == {"203.0.113.8/32": 7}
    assert gate.replace_block(list) == (0, 1)


def test_writing_that_was_cut_off_leaves_nothing_behind_after_the_next(gate: Gate) -> None:
    calls = itertools.count()

    def breaking() -> Iterable[tuple[bytes, int]]:
        is_second = next(calls) == 1
        for number in range(3 * BATCH):
            if is_second and number == 2 * BATCH:
                raise KeyboardInterrupt
            yield line(number), 1

    with pytest.raises(KeyboardInterrupt):
        gate.replace_block(breaking)
    assert len(entries(gate)) == 2 * BATCH
    assert gate.replace_block(lambda: [(b"198.51.100.1", 2)]) == (1, 2 * BATCH)
    assert entries(gate) == {"198.51.100.1/32": 2}


@pytest.mark.parametrize(
    ("last", "error"),
    [(b"nonsense", BadPrefixError), (b"0.0.0.0/0", PrefixTooWideError), (b"198.51.100.1", BlockListFullError)],
)
def test_whole_list_that_is_bad_at_its_end_changes_nothing(
    gate: Gate, maps: dict[str, MemoryMap], monkeypatch: pytest.MonkeyPatch, last: bytes, error: type[Exception]
) -> None:
    monkeypatch.setattr(layout, "MAX_BLOCK", 4)
    gate.change_block([(b"203.0.113.7", 1)])
    writes = maps["block"].writes
    good = [(line(number), 1) for number in range(4)]
    with pytest.raises(error):
        gate.replace_block(lambda: [*good, (last, 1)])
    assert maps["block"].writes == writes
    assert gate.replace_block(lambda: good) == (4, 1)


class FullMap(MemoryMap):
    """A map with little room."""

    capacity = 3 * BATCH

    def update_many(self, keys: list[bytes], values: list[bytes]) -> None:
        if len(self.content.keys() | set(keys)) > self.capacity:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().update_many(keys, values)


def test_old_list_makes_room_when_both_do_not_fit(gate: Gate, maps: dict[str, MemoryMap]) -> None:
    maps["block"] = full = FullMap()
    gate._maps[layout.MapName.BLOCK] = full  # type: ignore[assignment]
    old = [(line(number), 1) for number in range(2 * BATCH)]
    new = [(line(number + 1), 2) for number in range(2 * BATCH, 5 * BATCH)]
    assert gate.replace_block(lambda: old) == (2 * BATCH, 0)
    assert gate.replace_block(lambda: new) == (3 * BATCH, 2 * BATCH)
    assert len(entries(gate)) == 3 * BATCH
    with pytest.raises(BlockListFullError):
        gate.change_block([(b"198.51.100.1", 1)])
