"""Who lives where in the lab: terminals of the office, hosts of the internet, their names.

Only documentation and private addresses, only reserved names. Everything else (interfaces, DNS, web servers, expected
alerts) is derived from these tables.
"""

from __future__ import annotations

import dataclasses

ROUTER_IPV4 = "192.168.10.1"
ROUTER_IPV6 = "fd00:10::1"
ROUTER_MAC = "02:0a:00:00:00:01"
LAN_PREFIX = 24
LAN_PREFIX_IPV6 = 64
DHCP_RANGE = ("192.168.10.100", "192.168.10.150")
BOX_WAN_MAC = "02:0a:00:00:01:01"
BOX_LAN_MAC = "02:0a:00:00:01:02"


@dataclasses.dataclass(frozen=True)
class Terminal:
    """A device of the office."""

    name: str
    ipv4: str
    ipv6: str
    mac: str


@dataclasses.dataclass(frozen=True)
class Host:
    """A host of the internet; `domains` resolve to it together with everything below them."""

    name: str
    ipv4: str
    ipv6: str | None = None
    domains: tuple[str, ...] = ()


PC1 = Terminal("pc1", "192.168.10.11", "fd00:10::11", "02:0a:00:00:00:11")
PC2 = Terminal("pc2", "192.168.10.12", "fd00:10::12", "02:0a:00:00:00:12")
PC3 = Terminal("pc3", "192.168.10.13", "fd00:10::13", "02:0a:00:00:00:13")
SERVER = Terminal("srv", "192.168.10.20", "fd00:10::20", "02:0a:00:00:00:20")
TERMINALS = (PC1, PC2, PC3, SERVER)
# On the box's Wi-Fi, so inside its virtual machine; none of the office's namespaces.
STATION = Terminal("station", "192.168.10.31", "fd00:10::31", "02:0a:00:00:00:31")

WEB = Host(
    "web",
    "198.51.100.10",
    "2001:db8:10::10",
    ("web.example", "notmalware.test", "games.test", "sns.test"),
)
MAIL = Host("mail", "198.51.100.25", "2001:db8:10::25", ("mail.example",))
SERVICES = Host(
    "services",
    "198.51.100.20",
    "2001:db8:10::20",
    ("broker.omamori.test", "repo.omamori.test", "enrol.omamori.test"),
)
ATTACKER = Host("attacker", "203.0.113.66", "2001:db8:bad::66", ())
C2 = Host("c2", "203.0.113.77", None, ("c2.test",))
# `new-phishing.test` is dangerous only from the feed on that the lab publishes while it runs.
DANGEROUS = Host("dangerous", "203.0.113.80", None, ("malware.test", "phishing.test", "new-phishing.test"))
BLOCK_LISTED = Host("block-listed", "203.0.113.99", "2001:db8:bad::99", ())
HOSTS = (WEB, MAIL, SERVICES, ATTACKER, C2, DANGEROUS, BLOCK_LISTED)

NEIGHBOUR_DOMAIN = "notmalware.test"
NEW_DOMAIN = "new-phishing.test"
BROKER_PORT = 8883
ENROLMENT_PORT = 8443
WEB_PORTS = (80, 8081)


def host_of(domain: str) -> Host:
    """Return the host that a domain (or a name below one) resolves to.

    Raises:
        KeyError: No host of the lab has that name.
    """
    for host in HOSTS:
        if any(domain == known or domain.endswith(f".{known}") for known in host.domains):
            return host
    raise KeyError(domain)
