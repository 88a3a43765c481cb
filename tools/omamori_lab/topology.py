"""The wires of the lab: an office switch with its terminals on one side of the box, an internet on the other.

    pc1 pc2 pc3 srv ── sw0 (office) ── lan0 │ box │ wan0 (internet): router and every internet host

With a supervisor its relay lies between: both cables lead through a patch, and either through the box or past it.

The internet's hosts are addresses of one namespace, so nothing routes between the two captures: a frame that arrives
changed was changed by the box. Terminals have fixed addresses; the box asks the router by DHCP.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from . import addresses
from .addresses import HOSTS, TERMINALS, Terminal
from .journal import Journal
from .namespace import Namespace
from .wire_relay import BOX_LAN, BOX_WAN, INTERNET, OFFICE, WireRelay

TERMINAL_PORT = "eth0"
WAN_TAP = "wan0"
LAN_TAP = "lan0"


class Topology:
    """Namespaces, links and taps of one lab.

    Args:
        journal: Where they are noted.
        has_relay: Whether a supervisor's relay is in the wire.

    Attributes:
        relay: The relay; None without one.
        office: The switch.
        internet: Router and hosts.
        terminals: Namespace of each terminal by name.
        wan_tap: Descriptor for the box's WAN port.
        lan_tap: Descriptor for the box's LAN port.
    """

    def __init__(self, journal: Journal, *, has_relay: bool = False) -> None:
        self._patch = Namespace(journal, "patch") if has_relay else None
        self.relay = WireRelay(self._patch) if self._patch is not None else None
        self.office = Namespace(journal, "office")
        self.internet = Namespace(journal, "inet")
        self.terminals = {terminal.name: Namespace(journal, terminal.name) for terminal in TERMINALS}
        self.wan_tap = -1
        self.lan_tap = -1

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Make everything; on leaving remove it again in reverse order."""
        with contextlib.ExitStack() as stack:
            patch = () if self._patch is None else (self._patch,)
            for namespace in (self.office, self.internet, *patch, *self.terminals.values()):
                stack.callback(namespace.delete)
                namespace.create()
            self._open_taps(stack)
            self._make_switch()
            self._make_internet()
            for terminal in TERMINALS:
                self._make_terminal(terminal)
            yield

    def _open_taps(self, stack: contextlib.ExitStack) -> None:
        """Open the box's two ends; with a relay they are in the patch, and cables in their place."""
        if self.relay is None or self._patch is None:
            self.lan_tap = self.office.open_tap(LAN_TAP)
            self.wan_tap = self.internet.open_tap(WAN_TAP)
        else:
            self.lan_tap = self._patch.open_tap(BOX_LAN)
            self.wan_tap = self._patch.open_tap(BOX_WAN)
            self.relay.cable(OFFICE, self.office, LAN_TAP)
            self.relay.cable(INTERNET, self.internet, WAN_TAP)
            self.relay.start()
        stack.callback(os.close, self.lan_tap)
        stack.callback(os.close, self.wan_tap)

    def _make_switch(self) -> None:
        self.office.sysctl(ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1)
        self.office.configure(
            [
                "link add sw0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set {LAN_TAP} master sw0 up",
                "link set sw0 up",
            ]
        )

    def _make_internet(self) -> None:
        hosts = [f"addr add {host.ipv4}/32 dev lo" for host in HOSTS]
        hosts += [f"addr add {host.ipv6}/128 dev lo nodad" for host in HOSTS if host.ipv6]
        self.internet.configure(hosts)
        self.address_router()

    def address_router(self) -> None:
        """Make the router's interface what the box's outer cable leads to."""
        self.internet.configure(
            [
                f"link set {WAN_TAP} address {addresses.ROUTER_MAC} up",
                f"addr add {addresses.ROUTER_IPV4}/{addresses.LAN_PREFIX} dev {WAN_TAP}",
                f"addr add {addresses.ROUTER_IPV6}/{addresses.LAN_PREFIX_IPV6} dev {WAN_TAP} nodad",
            ]
        )

    def _make_terminal(self, terminal: Terminal) -> None:
        namespace = self.terminals[terminal.name]
        self.office.configure(
            [
                f"link add {terminal.name} type veth peer name {TERMINAL_PORT} netns {namespace.name}",
                f"link set {terminal.name} master sw0 up",
            ]
        )
        namespace.configure(
            [
                f"link set {TERMINAL_PORT} address {terminal.mac} up",
                f"addr add {terminal.ipv4}/{addresses.LAN_PREFIX} dev {TERMINAL_PORT}",
                f"addr add {terminal.ipv6}/{addresses.LAN_PREFIX_IPV6} dev {TERMINAL_PORT} nodad",
                f"route add default via {addresses.ROUTER_IPV4}",
                f"route add default via {addresses.ROUTER_IPV6}",
            ]
        )
