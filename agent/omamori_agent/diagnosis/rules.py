"""Facts in, troubles out, the most useful one first. No input or output.

The order is that of a person with a telephone: first what can be seen and touched (cables, plugs), then the office's
network, then what lies beyond the router, then the service. What explains the others comes before them: a box without
a cable has no address either, and nobody wants to hear that.
"""

from __future__ import annotations

import ipaddress

from omamori_protocol.trouble import COOL_CELSIUS, HOT_CELSIUS, Trouble

from .facts import Contact, Facts

ENGINE_PATIENCE_S = 300.0
_PRIVATE = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]


def diagnose(facts: Facts) -> tuple[Trouble, ...]:
    """Return what is wrong, the one to tell first in front; remarks stand at the end."""
    found = _cables(facts) or _network(facts) or _beyond(facts)
    if not facts.is_wire_whole:
        found.append(Trouble.NO_WIRE)
    elif facts.engine_down_s > ENGINE_PATIENCE_S:
        found.append(Trouble.ENGINE_DOWN)
    if facts.is_hot:
        found.append(Trouble.HOT)
    if is_double_router(facts.gateway, facts.second_hop):
        found.append(Trouble.DOUBLE_ROUTER)
    return tuple(found)


def is_hot(celsius: int | None, *, was_hot: bool) -> bool:
    """Tell whether a temperature is too high; once it was, only when it has fallen by some degrees is it not any more.

    Args:
        celsius: The supervisor's temperature; None if nobody knows it.
        was_hot: What was said at the look before.
    """
    return celsius is not None and celsius >= (COOL_CELSIUS if was_hot else HOT_CELSIUS)


def is_double_router(gateway: str, second_hop: str) -> bool:
    """Tell whether behind the router there is another private network, so that two routers translate addresses.

    Addresses that providers share among their customers (100.64.0.0/10) are none of the owner's business.
    """
    try:
        first, second = ipaddress.ip_address(gateway), ipaddress.ip_address(second_hop)
    except ValueError:
        return False
    return first != second and any(second in network for network in _PRIVATE)


def _cables(facts: Facts) -> list[Trouble]:
    plugs = [port for port in facts.ports if not port.is_radio]
    if plugs and not any(port.has_carrier for port in plugs):
        return [Trouble.NO_CABLE]
    if any(port.is_outer and not port.has_carrier for port in plugs):
        # Whoever plugs the router into the office's side has an empty outer port as well.
        is_swapped = _is_swapped(facts)
        return [Trouble.SWAPPED] if is_swapped else [Trouble.NO_WAN_CABLE]
    if facts.is_looping:
        return [Trouble.LOOP]
    if _is_swapped(facts):
        return [Trouble.SWAPPED]
    has_radio = any(port.is_radio for port in facts.ports)
    inner = [port for port in plugs if not port.is_outer]
    if inner and not has_radio and not any(port.has_carrier for port in inner):
        return [Trouble.NO_LAN_CABLE]
    return []


def _is_swapped(facts: Facts) -> bool:
    by_name = {port.name: port for port in facts.ports}
    port = by_name.get(facts.gateway_port)
    return port is not None and not port.is_outer and not port.is_radio


def _network(facts: Facts) -> list[Trouble]:
    if facts.is_connected:
        return []
    if not facts.address:
        return [] if facts.has_ipv6 else [Trouble.NO_DHCP]
    if not facts.gateway:
        return [] if facts.has_ipv6 else [Trouble.NO_ROUTER]
    return [Trouble.ROUTER_SILENT] if facts.gateway_answers is False else []


def _beyond(facts: Facts) -> list[Trouble]:
    if facts.is_connected or not facts.contacts:
        return []
    seen = set(facts.contacts.values())
    if not seen & {Contact.FOREIGN, Contact.OTHER_TIME} and Contact.REACHED in seen:
        return _service(facts)
    if seen <= {Contact.NO_NAME}:
        return [Trouble.NO_NAMES]
    # The first that fits. A name that was answered speaks for a line that works.
    for contact, trouble in (
        (Contact.FOREIGN, Trouble.PORTAL),
        (Contact.OTHER_TIME, Trouble.CLOCK_WRONG),
        (Contact.REFUSED, Trouble.SERVICE_UNREACHABLE),
        (Contact.NO_ANSWER_ABOUT_NAME, Trouble.NO_INTERNET),
        (Contact.NO_WAY, Trouble.NO_INTERNET),
    ):
        if contact in seen:
            return [trouble]
    return [Trouble.SERVICE_UNREACHABLE]


def _service(facts: Facts) -> list[Trouble]:
    """Return what is wrong although a server of the service was reached."""
    if not facts.is_enrolled:
        reached = facts.contacts.get("enrolment") is Contact.REACHED
        return [Trouble.CLAIM_REFUSED if reached else Trouble.SERVICE_UNREACHABLE]
    reached = facts.contacts.get("broker") is Contact.REACHED
    return [Trouble.BROKER_REFUSES if reached else Trouble.BROKER_UNREACHABLE]
