"""The box's Wi-Fi: switched on from the cloud, joined by a station, inspected like the cables, switched off again."""

from __future__ import annotations

from typing import Any

from omamori_lab import addresses
from omamori_lab.addresses import DANGEROUS, STATION, WEB
from omamori_lab.errors import NotReadyError
from omamori_lab.lab import Lab
from omamori_lab.portal import Expected
from omamori_lab.results import Checklist
from omamori_lab.settings import SERIAL
from omamori_lab.station import KeyManagement, Station
from omamori_lab.waiting import wait_for

from .scene import BLOCKED_TIMEOUT_S, Title, check_alerts

_DNS = addresses.ROUTER_IPV4
_SSID = "おまもり office"
_PASSPHRASE = 'a "long" passphrase|id=x'  # noqa: S105 - of a simulated network
_GOOD: dict[str, Any] = {
    "enabled": True,
    "ssid": _SSID,
    "passphrase": _PASSPHRASE,
    "channel": 6,
    "country": "JP",
    "security": "wpa2",
    "isolation": False,
}
_APPLY_TIMEOUT_S = 90.0
_SIGN_ON_TIMEOUT_S = 45.0
_OFF_TIMEOUT_S = 20.0


class WifiScene:
    """A station by WPA2, refused settings, a station by WPA3, and no access point at all."""

    name = "wifi"
    title = Title("無線LANの端末も同じように守る", "stations on the Wi-Fi are protected as those on cables")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Change the settings as the operator does, and look at them as a station does."""
        station = Station(lab.box)
        station.open()
        try:
            self._wpa2(lab, checks, station)
            self._refused(lab, checks, station)
            self._wpa3(lab, checks, station)
            self._off(lab, checks, station)
        finally:
            station.close()

    def _wpa2(self, lab: Lab, checks: Checklist, station: Station) -> None:
        checks.equal("WPA2 on channel 6", ("applied", None), _publish(lab, _GOOD))
        known = lab.known_alerts()
        self._sign_on(checks, station, KeyManagement.WPA2, "WPA2-PSK")
        self._ordinary(checks, station, "WPA2")
        checks.equal("DNS www.malware.test", None, station.resolve("www.malware.test", server=_DNS))
        blocked = station.get("http://phishing.test/", address=DANGEROUS.ipv4, timeout_s=BLOCKED_TIMEOUT_S)
        checks.add("HTTP Host phishing.test", expected="blocked", seen=blocked, ok=blocked.status == 0)
        wanted = [
            Expected(function="dangerous-site", direction="out", terminal=STATION, destination=name, severity=2)
            for name in (r"malware\.test", r"phishing\.test")
        ]
        check_alerts(lab, checks, wanted, known=known)

    def _refused(self, lab: Lab, checks: Checklist, station: Station) -> None:
        before = station.connected_s()
        state, reason = _publish(lab, {**_GOOD, "channel": 13, "country": "US"})
        checks.equal("channel 13 in the US", "refused", state)
        checks.equal("its reason", "channel 13 is not allowed in US, only 1 to 11", reason)
        after = station.connected_s()
        stays = before is not None and after is not None and after >= before
        checks.add("the station meanwhile", expected="stays on", seen=f"{before} s, then {after} s", ok=stays)
        self._ordinary(checks, station, "after refused settings")

    def _wpa3(self, lab: Lab, checks: Checklist, station: Station) -> None:
        settings = {**_GOOD, "security": "wpa2-wpa3", "channel": 0, "isolation": True}
        checks.equal("WPA2 and WPA3 on a free channel", ("applied", None), _publish(lab, settings))
        status = self._sign_on(checks, station, KeyManagement.WPA3, "SAE")
        # 1: the access point leaves the choice to the station; this one insists.
        checks.equal("protected management frames", "1", status.get("pmf"))
        self._ordinary(checks, station, "WPA3")
        self._sign_on(checks, station, KeyManagement.WPA2, "WPA2-PSK")

    def _off(self, lab: Lab, checks: Checklist, station: Station) -> None:
        checks.equal("no access point", ("applied", None), _publish(lab, None))
        checks.equal("station", "off the network", self._await_off(station))
        left = lab.box.shell(
            "timeout 30 sh -c 'while [ -e /sys/class/net/br0/brif/wlan0 ]; do sleep 0.2; done'", timeout_s=40
        )
        checks.equal("the radio has left the bridge", 0, left.exit_code)
        checks.equal("hostapd", "inactive", lab.box.shell("systemctl is-active omamori-wifi").output)
        leaked = lab.box.shell(f"journalctl --no-pager | grep -cF {_PASSPHRASE!r}").output
        checks.equal("lines of the journal with the passphrase", "0", leaked)

    def _await_off(self, station: Station) -> str:
        # It learns of it by a frame, or by beacons that stay away.
        try:
            wait_for(lambda: station.connected_s() is None, "the station off the network", timeout_s=_OFF_TIMEOUT_S)
        except NotReadyError as err:
            return str(err)
        return "off the network"

    def _sign_on(
        self, checks: Checklist, station: Station, key_management: KeyManagement, expected: str
    ) -> dict[str, str]:
        station.sign_on(_SSID, _PASSPHRASE, key_management)
        status = station.await_signed_on(timeout_s=_SIGN_ON_TIMEOUT_S) or {}
        checks.equal(f"station signs on with {key_management}", expected, status.get("key_mgmt"))
        checks.equal("802.11n", "4", status.get("wifi_generation"))
        return status

    def _ordinary(self, checks: Checklist, station: Station, when: str) -> None:
        checks.equal(f"DNS web.example, {when}", [WEB.ipv4], station.resolve("web.example", server=_DNS))
        got = station.get("http://web.example/", address=WEB.ipv4)
        checks.add(f"HTTP web.example, {when}", expected="passes", seen=got, ok=got.complete)


def _publish(lab: Lab, wifi: dict[str, Any] | None) -> tuple[str, str | None]:
    """Publish Wi-Fi settings; return what the box reports about them, once it is no longer pending."""
    version = lab.surroundings.desired.publish(**({} if wifi is None else {"wifi": wifi}))

    def is_settled(box: dict[str, Any]) -> bool:
        settings = box["settings"]
        return (
            settings is not None
            and settings["version"] == version
            and settings["parts"].get("wifi", {}).get("state") not in (None, "none", "pending")
        )

    box = lab.portal.await_box(SERIAL, is_settled, timeout_s=_APPLY_TIMEOUT_S)
    wifi_part = box["settings"]["parts"]["wifi"]
    return wifi_part["state"], wifi_part["reason"]
