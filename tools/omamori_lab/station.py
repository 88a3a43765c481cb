"""A Wi-Fi station: the second simulated radio of the box's virtual machine, in a network namespace of its own.

The radios exist only inside the guest (mac80211_hwsim), so the station does too: everything is done through the root
console of the development image. The air is simulated, all else is real: wpa_supplicant signs on at the box's hostapd,
and the station's packets cross the box's bridge like those of a PC on a cable.
"""

from __future__ import annotations

import base64
import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import addresses
from .addresses import STATION
from .box import Box
from .errors import BoxError, NotReadyError
from .office import Download
from .waiting import wait_for

_RADIO = "wlan1"
_NAMESPACE = "station"
_DIRECTORY = "/run/station"
_PROGRAM = Path(__file__).with_name("station_program.py")
_INSIDE = f"ip netns exec {_NAMESPACE}"
_ASK = f"{_INSIDE} wpa_cli -p {_DIRECTORY}/control -i {_RADIO}"
_SLACK_S = 20.0  # to start a program in an emulated machine
_NO_ANSWER = 28  # curl's status for a transfer that took too long


class KeyManagement(StrEnum):
    """How a station proves that it knows the passphrase."""

    WPA2 = "WPA-PSK"
    WPA3 = "SAE"


class Station:
    """Somebody on the box's Wi-Fi.

    Args:
        box: A running box with the development image.
    """

    def __init__(self, box: Box) -> None:
        self._box = box

    def open(self) -> None:
        """Take the second radio into its namespace and give it its addresses.

        Raises:
            BoxError: The guest has no second radio.
        """
        program = base64.b64encode(_PROGRAM.read_bytes()).decode()
        steps = [
            f"mkdir -p {_DIRECTORY}",
            f"echo {program} | base64 -d >{_DIRECTORY}/program.py",
            f"ip netns add {_NAMESPACE}",
            f"iw phy $(cat /sys/class/net/{_RADIO}/phy80211/name) set netns name {_NAMESPACE}",
            f"ip -n {_NAMESPACE} link set dev lo up",
            f"ip -n {_NAMESPACE} link set dev {_RADIO} address {STATION.mac}",
            f"ip -n {_NAMESPACE} addr add {STATION.ipv4}/{addresses.LAN_PREFIX} dev {_RADIO}",
            f"ip -n {_NAMESPACE} addr add {STATION.ipv6}/{addresses.LAN_PREFIX_IPV6} dev {_RADIO} nodad",
            f"ip -n {_NAMESPACE} link set dev {_RADIO} up",
            f"ip -n {_NAMESPACE} route add default via {addresses.ROUTER_IPV4}",
        ]
        self._run(" && ".join(steps))

    def close(self) -> None:
        """Leave the network and give the radio back; nothing happens if it was never taken."""
        steps = [
            f"{_ASK} terminate",
            # The kernel would give it back by itself, some time after the namespace is gone.
            f"{_INSIDE} sh -c 'iw phy $(cat /sys/class/net/{_RADIO}/phy80211/name) set netns 1'",
            f"ip netns delete {_NAMESPACE}",
            f"rm -rf {_DIRECTORY}",
        ]
        self._box.shell("; ".join(steps), timeout_s=_SLACK_S)

    def sign_on(self, ssid: str, passphrase: str, key_management: KeyManagement) -> None:
        """Begin to sign on; `await_signed_on` tells whether it worked.

        Args:
            ssid: Name of the network.
            passphrase: Its passphrase.
            key_management: The only way that this station knows.
        """
        protected = 2 if key_management is KeyManagement.WPA3 else 0
        lines = [
            f"ctrl_interface={_DIRECTORY}/control",
            "country=JP",
            "sae_pwe=2",
            "network={",
            f"ssid={ssid.encode().hex()}",
            f"key_mgmt={key_management}",
            f'psk="{passphrase}"',
            f"ieee80211w={protected}",
            "}",
        ]
        text = base64.b64encode("\n".join([*lines, ""]).encode()).decode()
        self._run(
            f"{_ASK} terminate >/dev/null 2>&1; echo {text} | base64 -d >{_DIRECTORY}/wpa.conf && "
            f"{_INSIDE} wpa_supplicant -B -i {_RADIO} -c {_DIRECTORY}/wpa.conf"
        )

    def status(self) -> dict[str, str]:
        """Return what wpa_supplicant says; ``wpa_state`` is ``COMPLETED`` when the station is on the network."""
        output = self._box.shell(f"{_ASK} status", timeout_s=_SLACK_S).output
        return {key: value for key, found, value in (line.partition("=") for line in output.split("\n")) if found}

    def await_signed_on(self, *, timeout_s: float) -> dict[str, str] | None:
        """Wait until the station is on the network; return its status, or None when it did not get there."""

        def look() -> dict[str, str] | None:
            status = self.status()
            return status if status.get("wpa_state") == "COMPLETED" else None

        try:
            return wait_for(look, "the station on the network", timeout_s=timeout_s, every_s=0.5)
        except NotReadyError:
            return None

    def connected_s(self) -> int | None:
        """Return for how many seconds the station has been on the network without a break; None when it is not."""
        output = self._box.shell(f"{_INSIDE} iw dev {_RADIO} station dump", timeout_s=_SLACK_S).output
        found = [line.split() for line in output.split("\n") if "connected time:" in line]
        return int(found[0][2]) if found else None

    def get(self, url: str, *, address: str, timeout_s: float = 20.0) -> Download:
        """Fetch a URL (plain HTTP) from an address."""
        parts = urlsplit(url)
        words = ["get", parts.hostname or "", str(parts.port or 80), parts.path or "/", address, f"{timeout_s:g}"]
        got = self._do(words, timeout_s)
        code = 0 if got["status"] else _NO_ANSWER
        return Download(code, got["status"], got["size"], got["sha256"], got["seconds"])

    def resolve(self, name: str, *, server: str, timeout_s: float = 2.0) -> list[str] | None:
        """Ask a DNS server once; None means that no answer came."""
        answer = self._do(["resolve", name, server, f"{timeout_s:g}"], timeout_s)
        return None if answer is None else list(answer["addresses"])

    def _do(self, words: list[str], timeout_s: float) -> Any:
        command = f"{_INSIDE} python3 -I {_DIRECTORY}/program.py {shlex.join(words)}"
        output = self._run(command, timeout_s=timeout_s + _SLACK_S)
        try:
            return json.loads(output.split("\n")[-1])
        except ValueError as err:
            raise BoxError(f"the station's program said {output[-200:]!r}") from err

    def _run(self, command: str, *, timeout_s: float = 30.0) -> str:
        result = self._box.shell(command, timeout_s=timeout_s)
        if result.exit_code != 0:
            raise BoxError(f"the station: {result.output.strip()[-200:]}")
        return result.output
