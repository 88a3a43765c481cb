"""Cables in the wrong plugs: the two of the box exchanged, or everything in one switch.

The ends of the box's cables are taps (or, with a relay, the patch's cables), and those move from namespace to namespace
as cables do from plug to plug. What serves on the router's interface has to be started again by the caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .run import run
from .topology import LAN_TAP, WAN_TAP, Topology

_TIMEOUT_S = 15.0
_MOVED = "moved"
_SECOND = "second"
_ROUTER_PLUG = "router"
# Of an end that lies in the office: a switch would keep for itself what is for the router's own address.
_PLUG_MAC = "02:0a:00:00:02:01"
# What a storm may take of this machine; every copy goes through the box.
_STORM = "tbf rate 400kbit burst 8k latency 100ms"


@contextlib.contextmanager
def crossed(topology: Topology) -> Iterator[None]:
    """Keep the router's cable in the box's LAN plug and the office's in its WAN plug."""
    _exchange(topology)
    try:
        yield
    finally:
        _exchange(topology)


@contextlib.contextmanager
def all_in_one_switch(topology: Topology) -> Iterator[None]:
    """Keep router, office and both of the box's cables in the office's switch: a loop through the box."""
    office, internet = topology.office, topology.internet
    internet.configure([f"link set {WAN_TAP} netns {office.name} name {_SECOND}"])
    internet.configure([f"link add {WAN_TAP} type veth peer name {_ROUTER_PLUG} netns {office.name}"])
    topology.address_router()
    for end in (LAN_TAP, _SECOND):  # a copy runs either way round
        run(office.command(["tc", "qdisc", "add", "dev", end, "root", *_STORM.split()]), timeout_s=_TIMEOUT_S)
    office.configure(
        [
            f"link set {_ROUTER_PLUG} master sw0 up",
            f"link set {_SECOND} address {_PLUG_MAC}",
            f"link set {_SECOND} master sw0 up",
        ]
    )
    try:
        yield
    finally:
        internet.configure([f"link delete {WAN_TAP}"])
        for end in (LAN_TAP, _SECOND):
            run(office.command(["tc", "qdisc", "delete", "dev", end, "root"]), timeout_s=_TIMEOUT_S)
        office.configure([f"link set {_SECOND} nomaster", f"link set {_SECOND} netns {internet.name} name {WAN_TAP}"])
        topology.address_router()


def _exchange(topology: Topology) -> None:
    office, internet = topology.office, topology.internet
    office.configure([f"link set {LAN_TAP} nomaster", f"link set {LAN_TAP} netns {internet.name} name {_MOVED}"])
    internet.configure([f"link set {WAN_TAP} netns {office.name} name {LAN_TAP}", f"link set {_MOVED} name {WAN_TAP}"])
    topology.address_router()
    office.configure([f"link set {LAN_TAP} address {_PLUG_MAC}", f"link set {LAN_TAP} master sw0 up"])
