"""The diagnosis on a real bridge, behind two real routers: on which port the router is, and who is behind it."""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.diagnosis.facts import Facts, Port
from omamori_agent.diagnosis.rules import diagnose
from omamori_lab.journal import Journal
from omamori_lab.namespace import Namespace
from omamori_lab.run import run
from omamori_protocol.trouble import Trouble

pytestmark = pytest.mark.root

ROUTER_MAC = "02:00:00:00:00:01"
HOST = "203.0.113.9"
# Prints what the box sees; the kernel's files are those of the namespace.
LOOK = f"""
import socket, time
from pathlib import Path
from omamori_agent.diagnosis.kernel import Kernel
from omamori_agent.diagnosis.reach import second_hop
kernel = Kernel(Path("/sys/class/net"), Path("/proc/self"))
gateway = kernel.gateway()
end = time.monotonic() + 10
mac = None
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    while not mac and time.monotonic() < end:
        sock.sendto(b"", (gateway, 9))
        time.sleep(0.1)
        mac = kernel.gateway_mac(gateway)
ports = [(port.name, port.has_carrier) for port in kernel.ports()]
where = kernel.port_of(mac) if mac else ""
print((ports, kernel.address(), gateway, mac, where, second_hop("{HOST}", 8883)))
"""


class Network:
    """The box between an office without anybody and a router behind a router."""

    def __init__(self, journal: Journal) -> None:
        self.box, self.inner, self.outer, self.host = (
            Namespace(journal, role) for role in ("dbox", "drouter", "dsecond", "dhost")
        )

    def make(self) -> None:
        self.box.configure(
            [
                "link add br0 type bridge",
                f"link add wan type veth peer name office netns {self.inner.name}",
                f"link add lan1 type veth peer name wrong netns {self.inner.name}",
                "link set wan master br0 up",
                "link set lan1 master br0 up",
                "link set br0 up",
                "addr add 192.168.10.5/24 dev br0",
            ]
        )
        self.inner.configure(
            [
                "addr add 192.168.10.1/24 dev office",
                f"link set office address {ROUTER_MAC} up",
                f"link add line type veth peer name inside netns {self.outer.name}",
                "addr add 192.168.1.2/24 dev line",
                "link set line up",
                "route add default via 192.168.1.1",
            ]
        )
        self.outer.configure(
            [
                "addr add 192.168.1.1/24 dev inside",
                "link set inside up",
                "route add 192.168.10.0/24 via 192.168.1.2",
                f"link add line type veth peer name eth0 netns {self.host.name}",
                "addr add 203.0.113.1/24 dev line",
                "link set line up",
            ]
        )
        self.host.configure([f"addr add {HOST}/24 dev eth0", "link set eth0 up", "route add default via 203.0.113.1"])
        for router in (self.inner, self.outer):
            router.sysctl(ipv4__ip_forward=1)
        self.box.configure(["route add default via 192.168.10.1"])

    def swap(self) -> None:
        """Plug the router into the office's port."""
        self.inner.configure(
            [
                "link set office down",
                "addr del 192.168.10.1/24 dev office",
                "addr add 192.168.10.1/24 dev wrong",
                f"link set wrong address {ROUTER_MAC} up",
            ]
        )

    def look(self) -> Facts:
        # A namespace of mounts of its own, so that /sys is that of the network.
        argv: list[str | Path] = ["ip", "netns", "exec", self.box.name, sys.executable, "-c", LOOK]
        ports, address, gateway, mac, where, hop = ast.literal_eval(run(argv, timeout_s=40).output)
        assert mac == ROUTER_MAC
        return Facts(
            ports=tuple(Port(name=name, has_carrier=has) for name, has in ports),
            address=address,
            gateway=gateway,
            gateway_answers=bool(mac),
            gateway_port=where,
            is_connected=True,
            second_hop=hop,
        )


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(Journal(tmp_path))
    with contextlib.ExitStack() as stack:
        for namespace in (made.box, made.inner, made.outer, made.host):
            stack.callback(namespace.delete)
            namespace.create()
        made.make()
        yield made


def test_a_swapped_plug_and_a_second_router_are_seen(network: Network) -> None:
    facts = network.look()
    assert (facts.address, facts.gateway, facts.gateway_port) == ("192.168.10.5", "192.168.10.1", "wan")
    assert facts.second_hop == "192.168.1.1"
    # Nobody is plugged in on the office's side yet.
    assert diagnose(facts) == (Trouble.NO_LAN_CABLE, Trouble.DOUBLE_ROUTER)
    network.swap()
    facts = network.look()
    assert facts.gateway_port == "lan1"
    assert diagnose(facts) == (Trouble.SWAPPED, Trouble.DOUBLE_ROUTER)
