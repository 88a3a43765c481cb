"""Block-listed addresses: the gate drops every packet from and to them, before the engine sees any."""

from __future__ import annotations

from omamori_lab.addresses import BLOCK_LISTED, PC1, PC2, PC3, SERVER
from omamori_lab.lab import Lab
from omamori_lab.portal import Expected
from omamori_lab.results import Checklist
from omamori_lab.surroundings import BLOCK_LISTED_PORT

from .scene import Title, check_alerts, together


def connected(value: object) -> str:
    """Say whether a connection came about."""
    return "connected" if value else "no connection"


def answered(value: object) -> str:
    """Say whether an answer came."""
    return "no answer" if value is None else "answered"


class BlockListScene:
    """TCP and UDP, out to a block-listed host and in from it, IPv4 and IPv6."""

    name = "block-list"
    title = Title("ブロックリストのアドレスを遮断する", "block-listed addresses are dropped")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Try every way; nothing may arrive on either side."""
        known = lab.known_alerts()
        pc1, pc2, pc3 = (lab.client(pc.name) for pc in (PC1, PC2, PC3))
        outside = lab.client("block-listed")
        address, address6 = BLOCK_LISTED.ipv4, str(BLOCK_LISTED.ipv6)
        tcp_out, udp_out, tcp6_out, tcp_in, udp_in = together(
            lambda: pc1.connect(address, BLOCK_LISTED_PORT),
            lambda: pc2.exchange_udp(address, BLOCK_LISTED_PORT, b"lab: out"),
            lambda: pc3.connect(address6, BLOCK_LISTED_PORT),
            lambda: outside.connect(SERVER.ipv4, 80),
            lambda: outside.exchange_udp(SERVER.ipv4, 80, b"lab: in"),
        )
        checks.equal("TCP out", "no connection", connected(tcp_out))
        checks.equal("UDP out", "no answer", answered(udp_out))
        checks.equal("TCP out by IPv6", "no connection", connected(tcp6_out))
        checks.equal("TCP in", "no connection", connected(tcp_in))
        checks.equal("UDP in", "no answer", answered(udp_in))
        arrived = lab.listeners.block_listed.arrivals + lab.listeners.block_listed_ipv6.arrivals
        arrived += [item for item in lab.listeners.office_server.arrivals if item.peer == address]
        checks.equal("packets that arrived", 0, len(arrived))
        there = f"^{address}$"
        wanted = [
            Expected(function="firewall", direction="out", terminal=PC1, destination=there),
            Expected(function="firewall", direction="out", terminal=PC2, destination=there),
            Expected(function="firewall", direction="out", terminal=PC3, destination=f"^{address6}$"),
            Expected(function="ips", direction="in", terminal=SERVER, destination=there, severity=1),
        ]
        check_alerts(lab, checks, wanted, known=known)
