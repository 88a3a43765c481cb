import pytest

from omamori_lab.frames import Header, parse_header

MACS = bytes.fromhex("020a00000001 020a00000011")
IPV4 = bytes.fromhex("4510 0054 0000 4000 3d 01 0000 c0a80a0b c633640a")
IPV6 = bytes.fromhex("6a500000 0000 06 40 fd000010000000000000000000000011 20010db8001000000000000000000010")


def test_ipv4_header() -> None:
    assert parse_header(MACS + b"\x08\x00" + IPV4) == Header(
        "02:0a:00:00:00:11", "02:0a:00:00:00:01", "192.168.10.11", "198.51.100.10", protocol=1, ttl=61, tos=0x10
    )


def test_ipv6_header() -> None:
    header = parse_header(MACS + b"\x86\xdd" + IPV6)
    assert header is not None
    assert (header.source, header.target) == ("fd00:10::11", "2001:db8:10::10")
    assert (header.protocol, header.ttl, header.tos) == (6, 64, 0xA5)


def test_a_tag_is_looked_behind() -> None:
    assert parse_header(MACS + b"\x81\x00\x00\x64\x08\x00" + IPV4) == parse_header(MACS + b"\x08\x00" + IPV4)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        MACS,
        MACS + b"\x08\x06" + bytes(28),
        MACS + b"\x08\x00" + IPV4[:19],
        MACS + b"\x86\xdd" + IPV6[:39],
        MACS + b"\x81\x00\x00\x64\x08\x00" + IPV4[:16],
        MACS + b"\x08\x00" + b"\x65" + IPV4[1:],
    ],
    ids=["empty", "no type", "arp", "short ipv4", "short ipv6", "short behind a tag", "version 6 as ipv4"],
)
def test_anything_else_is_none(frame: bytes) -> None:
    assert parse_header(frame) is None


def test_a_changed_ttl_is_a_different_header() -> None:
    changed = IPV4[:8] + b"\x3c" + IPV4[9:]
    assert parse_header(MACS + b"\x08\x00" + changed) != parse_header(MACS + b"\x08\x00" + IPV4)
