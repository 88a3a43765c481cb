"""The Wi-Fi access point: hostapd under the agent's control (requirement 7).

`WifiPart` is one part of the desired state. The radio becomes a port of the bridge, so its stations are inspected
exactly as the office's cables are.
"""

from __future__ import annotations

from omamori_agent.config import Paths

from .errors import HostapdError, HostapdGoneError, WifiRefusedError
from .hostapd import AccessPointStatus
from .hostapd_config import AccessPoint
from .part import WifiLimits, WifiPart
from .radio import Radio
from .regulatory import load_database

__all__ = [
    "AccessPointStatus",
    "HostapdError",
    "HostapdGoneError",
    "WifiLimits",
    "WifiPart",
    "WifiRefusedError",
    "build",
]

BRIDGE = "br0"
GROUP = "omamori-wifi"


def build(paths: Paths, radio: str | None) -> WifiPart:
    """Make the part; nothing is touched before `apply`.

    Args:
        paths: Of the box.
        radio: The board's radio interface, or None when the board never has one.
    """
    point = AccessPoint(interface=radio or "", bridge=BRIDGE, control=paths.hostapd, group=GROUP)
    return WifiPart(
        Radio(radio, paths.interfaces),
        point,
        paths.wifi_config,
        lambda: load_database(paths.regulatory_database),
    )
