"""The configuration file of hostapd, from settings: text out, nothing else.

Rules:
- What a person chose enters the file in a form that cannot become another line or option: the SSID as hexadecimal
  digits, the passphrase as checked printable ASCII at the end of its line.
- 11b/g/n in the 2.4 GHz band and nothing newer (requirement 7), CCMP and nothing older.
- Each file has a *run*: a random word that names the directory of its control socket. Who reaches a socket there
  knows which file the process behind it was started with.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from omamori_protocol.desired import WifiSecurity, WifiSettings

MAX_STATIONS = 64
MAX_CONFIG_BYTES = 4096
AUTOMATIC = 0
# Channels that do not overlap; the radio's own survey chooses among them.
QUIET_CHANNELS = (1, 6, 11)

_RUN = re.compile(r"^ctrl_interface=/.*/([0-9a-f]{16})$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class AccessPoint:
    """What does not depend on the settings.

    Attributes:
        interface: Of the radio.
        bridge: That it becomes a port of.
        control: Directory below which the control sockets lie.
        group: Whose members may control it.
    """

    interface: str
    bridge: str
    control: Path
    group: str


def render_config(
    settings: WifiSettings, point: AccessPoint, *, run: str, channel: int, allowed: tuple[int, ...]
) -> bytes:
    """Return the configuration file.

    Args:
        settings: Checked settings.
        point: Where it works.
        run: 16 hexadecimal digits that name this file.
        channel: The channel, or `AUTOMATIC`; not taken from the settings, because a radio that cannot survey the
            channels is given a fixed one.
        allowed: Channels that the country allows; at least one.
    """
    lines = [
        f"interface={point.interface}",
        "driver=nl80211",
        f"bridge={point.bridge}",
        f"ctrl_interface={point.control}/{run}",
        f"ctrl_interface_group={point.group}",
        "logger_syslog=0",
        "logger_stdout=-1",
        "logger_stdout_level=2",
        f"ssid2={settings.ssid.encode().hex()}",
        "utf8_ssid=1",
        f"country_code={settings.country}",
        "ieee80211d=1",
        "hw_mode=g",
        f"channel={channel}",
    ]
    if channel == AUTOMATIC:
        lines.append(f"chanlist={' '.join(map(str, survey_channels(allowed)))}")
    lines += [
        "ieee80211n=1",
        "wmm_enabled=1",
        f"max_num_sta={MAX_STATIONS}",
        f"ap_isolate={int(settings.isolation)}",
        "auth_algs=1",
        "wpa=2",
        "rsn_pairwise=CCMP",
        *_security(settings.security),
        f"wpa_passphrase={settings.passphrase}",
    ]
    return ("\n".join(lines) + "\n").encode()


def survey_channels(allowed: tuple[int, ...]) -> tuple[int, ...]:
    """Return the channels among which an automatic choice is made."""
    return tuple(channel for channel in QUIET_CHANNELS if channel in allowed) or allowed


def run_of(config: bytes) -> str | None:
    """Return the run that a configuration file names, or None."""
    found = _RUN.search(config.decode(errors="replace"))
    return found[1] if found else None


def _security(security: WifiSecurity) -> list[str]:
    if security is WifiSecurity.WPA2:
        # Without protected management frames: stations that know only WPA2 are the reason to choose it, and some of
        # them stay away from an access point that offers more.
        return ["wpa_key_mgmt=WPA-PSK", "ieee80211w=0"]
    # Stations that can, use SAE with protected management frames; the others WPA2. `sae_pwe=2`: both ways to derive
    # the password element, because stations before 2020 know only the older one.
    return ["wpa_key_mgmt=WPA-PSK SAE", "ieee80211w=1", "sae_require_mfp=1", "sae_pwe=2"]
