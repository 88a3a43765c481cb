"""The frames of the conformance test are what their names say."""

from __future__ import annotations

import pytest

from omamori_lab.wire_frames import (
    INTERNET,
    NEVER_FORWARDED,
    OFFICE,
    REFUSED_BY_FILTER,
    frames,
    is_same,
    jumbo,
    without_trailer,
)
from omamori_lab.wire_packets import MIN_FRAME, checksum, multicast_mac

WAYS = pytest.mark.parametrize(("near", "far"), [(OFFICE, INTERNET), (INTERNET, OFFICE)], ids=["out", "in"])


@WAYS
def test_each_kind_has_one_name_and_comes_from_the_near_side(near, far) -> None:
    made = frames(near, far)
    names = [frame.name for frame in made]
    assert len(set(names)) == len(names) > 140
    assert set(names) >= NEVER_FORWARDED | REFUSED_BY_FILTER
    assert {frame.data[6:12] for frame in made} == {near.mac}
    assert max(len(frame.data) for frame in made) == 14 + 4 + 1500
    runts = {frame.name for frame in made if len(frame.data) < MIN_FRAME}
    assert "runt" in runts
    assert "ARP request" not in runts


def test_checksums_are_right() -> None:
    by_name = {frame.name: frame.data for frame in frames(OFFICE, INTERNET)}
    assert checksum(by_name["UDP"][14:34]) == 0
    assert checksum(by_name["IPv4 with a wrong checksum"][14:34]) != 0
    assert checksum(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7") == 0x220D  # the example of RFC 1071
    assert checksum(b"\x01") == 0xFEFF


def test_groups_have_the_addresses_of_the_standards() -> None:
    assert multicast_mac("224.0.0.251").hex(":") == "01:00:5e:00:00:fb"
    assert multicast_mac("239.255.255.250").hex(":") == "01:00:5e:7f:ff:fa"
    assert multicast_mac("ff02::1:ff00:11").hex(":") == "33:33:ff:00:00:11"


def test_only_padding_may_be_missing() -> None:
    by_name = {frame.name: frame.data for frame in frames(OFFICE, INTERNET)}
    padded = by_name["IPv4 ACK with padding of something"]
    assert without_trailer(padded) == padded[:54]
    assert is_same(padded, padded)
    assert is_same(padded, padded[:54])
    assert is_same(padded, padded[:54] + bytes(6))
    assert not is_same(padded, padded[:53])
    assert not is_same(padded, padded[:54] + b"\x01" * 6)
    assert not is_same(padded, None)
    assert without_trailer(by_name["IPv6 with a trailer"]) == by_name["IPv6 with a trailer"][:-10]
    for whole in ("VLAN: IPv4", "service tag and VLAN: IPv6", "PPPoE: IPv6", "LLDP", "runt", "802.3 with LLC"):
        assert without_trailer(by_name[whole]) == by_name[whole]


def test_jumbo_frames_fill_the_mtu() -> None:
    made = {frame.name: len(frame.data) for frame in jumbo(OFFICE, INTERNET, 9000)}
    assert made["jumbo IPv4"] == made["jumbo IPv6"] == made["jumbo IPv4 in a VLAN"] - 4 == 9014
