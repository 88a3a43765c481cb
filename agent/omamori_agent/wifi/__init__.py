"""The Wi-Fi access point: hostapd under the agent's control (requirement 7).

`WifiPart` is one part of the desired state, `WifiSwitch` does the work behind it. The radio becomes a port of the
bridge, so its stations are inspected exactly as the office's cables are.
"""

from __future__ import annotations

from omamori_agent.config import Paths

from .errors import HostapdError, HostapdGoneError, WifiRefusedError
from .hostapd import AccessPointStatus
from .hostapd_config import AccessPoint
from .part import WifiPart, WifiWorker
from .radio import Radio
from .regulatory import load_database
from .switch import WifiLimits, WifiSwitch

__all__ = [
    "AccessPointStatus",
    "HostapdError",
    "HostapdGoneError",
    "WifiLimits",
    "WifiPart",
    "WifiRefusedError",
    "WifiSwitch",
    "WifiWorker",
    "build",
]

BRIDGE = "br0"
GROUP = "omamori-wifi"


def build(paths: Paths, radio: str | None) -> WifiSwitch:
    """Make what switches the access point; nothing is touched before it is asked to.

    Args:
        paths: Of the box.
        radio: The board's radio interface, or None when the board never has one.
    """
    return WifiSwitch(
        Radio(radio, paths.interfaces),
        AccessPoint(interface=radio or "", bridge=BRIDGE, control=paths.hostapd, group=GROUP),
        paths.wifi_config,
        paths.wifi_kept,
        lambda: load_database(paths.regulatory_database),
    )
