"""The power is cut while the office works; the box starts again by itself and is the same box.

The battery of its clock is empty too: it wakes up years ago, when no certificate was valid yet.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ipaddress
import secrets
import time

from omamori_lab import addresses
from omamori_lab.addresses import PC1, PC3, SERVICES, WEB
from omamori_lab.capture import Capture
from omamori_lab.errors import NotReadyError
from omamori_lab.frames import Header
from omamori_lab.lab import Lab
from omamori_lab.portal import identity
from omamori_lab.results import Checklist
from omamori_lab.topology import WAN_TAP
from omamori_lab.waiting import wait_for
from omamori_lab.web_content import BIG_FILE

from .failures import ask_dangerous
from .scene import Title, check_once, count_alerts

_CERTIFICATE = "sha256sum /var/lib/omamori/identity/device.crt"
_ALERT_TIMEOUT_S = 60.0
_OUTAGE_TIMEOUT_S = 30.0
_CLOCK = "2020-01-01T00:00:00"
_CLOCK_TIMEOUT_S = 120.0
# Of a box's clock, beside the lab's own.
_CLOCK_TOLERANCE_S = 30.0
# Where the canary's question is addressed to: nobody has it, and the engine drops the question.
_CANARY = "192.0.2.53"
_OFFICE = (
    ipaddress.ip_network(f"{addresses.ROUTER_IPV4}/{addresses.LAN_PREFIX}", strict=False),
    ipaddress.ip_network(f"{addresses.ROUTER_IPV6}/{addresses.LAN_PREFIX_IPV6}", strict=False),
)


# Whoever else speaks on the box's outer cable. The box's own address there is made by its bridge, and no terminal's.
_OTHERS = {addresses.ROUTER_MAC, *(terminal.mac for terminal in (*addresses.TERMINALS, addresses.STATION))}


def contacted(headers: set[Header]) -> set[str]:
    """Return the hosts beyond the office's network that the box itself sent something to."""
    targets = {ipaddress.ip_address(header.target) for header in headers if header.source_mac not in _OTHERS}
    return {
        str(target)
        for target in targets
        if not (target.is_multicast or target.is_link_local or str(target) == "255.255.255.255")
        and not any(target in network for network in _OFFICE if network.version == target.version)
    }


class PowerCutScene:
    """Virtual machine killed in the middle of traffic and alerts, then started on the same disk."""

    name = "power-cut"
    title = Title("停電のあと自力で復帰する", "a power cut: it protects again by itself")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Cut the power during a download, start again, and compare identity and alerts."""
        before = lab.box.shell(_CERTIFICATE).output
        feed = lab.portal.box(lab.serial)["feed"]["serial"]
        token = secrets.token_hex(3)
        known = max((item["id"] for item in lab.portal.outages(lab.serial)), default=0)
        names = ask_dangerous(lab, checks, "before", token)
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            url = f"http://web.example/{BIG_FILE}"
            download = pool.submit(
                lambda: lab.client(PC1.name).get(url, timeout_s=8, options=["-4", "--limit-rate", "2M"])
            )
            check_once(lab, checks, names, timeout_s=_ALERT_TIMEOUT_S)
            cut_short = ask_dangerous(lab, checks, "cut", token)
            lab.box.cut_power()
            download.result()
        with Capture(lab.surroundings.internet, WAN_TAP) as internet:
            lab.box.power_on(clock=_CLOCK)
            boot = lab.box.await_protecting()
            checks.add("protects again", expected="by itself", seen=f"after {boot.protecting_s:.0f} s", ok=True)
            box = lab.await_online()
            self._look_at_clock(lab, checks)
            checks.equal("feed kept", feed, box["feed"]["serial"])
            checks.equal("certificate kept", before, lab.box.shell(_CERTIFICATE).output)
            checks.equal("boxes in the portal", [lab.serial], [box["device"] for box in lab.portal.boxes()])
            names += ask_dangerous(lab, checks, "after", token)
            check_once(lab, checks, names, timeout_s=_ALERT_TIMEOUT_S)
        hosts, declared = contacted(internet.headers), {SERVICES.ipv4, SERVICES.ipv6}
        checks.add(
            "hosts that the box itself contacts, from power-on until its alerts have arrived",
            expected="its own services, and no other",
            seen=", ".join(sorted(hosts)) or "none",
            ok=bool(hosts & declared) and hosts <= declared | {_CANARY} and not internet.dropped,
        )
        outage = lab.portal.await_outage(lab.serial, known=known, timeout_s=_OUTAGE_TIMEOUT_S)
        checks.equal("why the box was away, by the cloud", "power", outage["reason"])
        checks.equal("the customer is disturbed for that", None, outage["noticed"])
        twice = {name: count for name, count in count_alerts(lab, cut_short).items() if count > 1}
        checks.equal("alerts of the last moment, told twice", {}, twice)
        alerts = [identity(alert) for alert in lab.portal.alerts()]
        checks.equal("events in the portal twice", 0, len(alerts) - len(set(alerts)))
        page = lab.client(PC3.name).get(f"http://{WEB.ipv4}/")
        checks.add("ordinary request", expected="passes", seen=page, ok=page.complete)

    def _look_at_clock(self, lab: Lab, checks: Checklist) -> None:
        def off_s() -> float:
            return abs(float(lab.box.shell("date +%s").output) - time.time())

        with contextlib.suppress(NotReadyError):
            wait_for(lambda: off_s() < _CLOCK_TOLERANCE_S, "the right time", timeout_s=_CLOCK_TIMEOUT_S)
        seen_s = off_s()
        checks.add(
            f"the box's clock, after the board's began at {_CLOCK[:4]}",
            expected="the time of day",
            seen=f"{seen_s:.0f} s off",
            ok=seen_s < _CLOCK_TOLERANCE_S,
        )
