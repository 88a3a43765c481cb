"""Four-digit codes for what is wrong around a box: the lamp, the console, the page and phone support say the same one.

A code is four digits from 1 to 9, each of which a lamp can blink. The first digit is 7 for cables and plugs and the
office's network, 8 for the way to the service, 9 for the box itself; 1 to 6 are the supervisor's own codes
(docs/supervisor.md). A number once given out is never used for something else: it stands on paper beside telephones.
What the owner should do is told in docs/diagnosis.md.
"""

from __future__ import annotations

from .vocabulary import WireEnum

MAX_CODE = 9999
# From where on a box is hot, and its rail too low: the supervisor's own thresholds (docs/supervisor.md), so that its
# lamp, the box's code and the page say the same. Below `COOL_CELSIUS` a box that was hot is not any more.
HOT_CELSIUS = 85
COOL_CELSIUS = 80
LOW_MILLIVOLTS = 3000


class Trouble(WireEnum):
    """What is wrong, by its code."""

    # Cables and plugs.
    NO_CABLE = 7111
    NO_WAN_CABLE = 7112
    NO_LAN_CABLE = 7113
    SWAPPED = 7121
    LOOP = 7122
    # The office's network.
    NO_DHCP = 7211
    NO_ROUTER = 7212
    ROUTER_SILENT = 7213
    NO_NAMES = 7221
    # Beyond the router.
    NO_INTERNET = 7311
    PORTAL = 7321
    DOUBLE_ROUTER = 7331
    # The way to the service.
    SERVICE_UNREACHABLE = 8111
    BROKER_UNREACHABLE = 8112
    BROKER_REFUSES = 8121
    CLAIM_REFUSED = 8122
    CLOCK_WRONG = 8211
    # The box itself.
    NO_WIRE = 9111
    ENGINE_DOWN = 9121
    HOT = 9131

    @property
    def is_remark(self) -> bool:
        """Whether it is only worth knowing: nothing is broken, and the lamp does not blink for it."""
        return self is Trouble.DOUBLE_ROUTER


def trouble_of(code: int | None) -> Trouble | None:
    """Return the trouble with a code; None for no code, and for one of a newer box."""
    try:
        return Trouble(code) if code else None
    except ValueError:
        return None
