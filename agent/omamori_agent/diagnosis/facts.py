"""What a diagnosis is made of. Values only; `kernel` and `reach` fill them in, `rules` judges them."""

from __future__ import annotations

import dataclasses
from enum import StrEnum


class Contact(StrEnum):
    """How far a try to reach one server of the service came."""

    REACHED = "reached"  # TLS, with the certificate that it must have
    NO_NAME = "no-name"  # the name is not known
    NO_ANSWER_ABOUT_NAME = "no-answer-about-name"  # nobody who could know it answers
    NO_WAY = "no-way"  # a router on the way says that there is none
    SILENT = "silent"
    REFUSED = "refused"
    FOREIGN = "foreign"  # somebody else answers: another certificate, or no TLS at all
    OTHER_TIME = "other-time"  # its certificate is right, but not now


@dataclasses.dataclass(frozen=True, kw_only=True)
class Port:
    """A port of the bridge."""

    name: str
    has_carrier: bool

    @property
    def is_outer(self) -> bool:
        """Whether the router belongs there."""
        return self.name == "wan"

    @property
    def is_radio(self) -> bool:
        """Whether it has no plug."""
        return self.name.startswith("wlan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything known at one moment.

    Attributes:
        ports: The ports of the bridge.
        address: The box's own IPv4 address, empty without one.
        has_ipv6: Whether it has a routable IPv6 address.
        gateway: The router's IPv4 address, empty without one.
        gateway_answers: Whether the router answers to ARP; None while that is not known.
        gateway_port: The port behind which the router is, empty while that is not known.
        is_looping: Whether our own frames, or stations everywhere, come back.
        is_wire_whole: Whether bridge and gate are there.
        engine_down_s: Seconds without an inspecting engine.
        is_hot: Whether the supervisor's thermometer says so; no board without one is ever hot.
        is_connected: Whether the broker is.
        is_enrolled: Whether there is a certificate.
        contacts: Tries to reach the service's servers since the connection was lost, by role: ``repository``,
            ``broker``, ``enrolment``.
        second_hop: Address of the router behind the router, empty while that is not known.
    """

    ports: tuple[Port, ...] = ()
    address: str = ""
    has_ipv6: bool = False
    gateway: str = ""
    gateway_answers: bool | None = None
    gateway_port: str = ""
    is_looping: bool = False
    is_wire_whole: bool = True
    engine_down_s: float = 0.0
    is_hot: bool = False
    is_connected: bool = False
    is_enrolled: bool = True
    contacts: dict[str, Contact] = dataclasses.field(default_factory=dict)
    second_hop: str = ""
