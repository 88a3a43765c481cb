"""Whether bridged packets can reach the queue at all.

The kernel says nothing when these settings are off: the queue rule just never sees a packet. They are set by
omamori-wire.service; the agent reads them back before it claims to protect.
"""

from __future__ import annotations

from pathlib import Path

BRIDGE_SETTINGS = (
    "bridge-nf-call-iptables",
    "bridge-nf-call-ip6tables",
    "bridge-nf-filter-vlan-tagged",
    "bridge-nf-filter-pppoe-tagged",
)
_DIRECTORY = Path("/proc/sys/net/bridge")


def unset_bridge_settings(directory: Path = _DIRECTORY) -> tuple[str, ...]:
    """Return the names of needed settings that are not 1 (or cannot be read); empty when all is well."""
    return tuple(name for name in BRIDGE_SETTINGS if _read(directory / name) != "1")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
