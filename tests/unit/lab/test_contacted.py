"""Whom the box itself talked to, from what was captured outside of it."""

from omamori_lab.addresses import PC1, ROUTER_IPV4, ROUTER_MAC, SERVICES, WEB
from omamori_lab.frames import TCP, Header
from omamori_lab.scenes.power import contacted

BOX_MAC = "7e:01:02:03:04:05"  # of its bridge


def header(target: str, source_mac: str = BOX_MAC) -> Header:
    return Header(source_mac, ROUTER_MAC, "192.168.10.100", target, protocol=TCP, ttl=64, tos=0)


def test_only_the_box_s_own_and_only_beyond_the_office() -> None:
    headers = {
        header(SERVICES.ipv4),
        header(SERVICES.ipv6 or ""),
        header("203.0.113.66"),
        header(WEB.ipv4, PC1.mac),
        header(PC1.ipv4, ROUTER_MAC),
        header("203.0.113.77", ROUTER_MAC),
        header(ROUTER_IPV4),
        header("255.255.255.255"),
        header("224.0.0.22"),
        header("ff02::16"),
        header("fe80::1"),
        header("fd00:10::1"),
    }
    assert contacted(headers) == {SERVICES.ipv4, SERVICES.ipv6, "203.0.113.66"}
