"""The power is cut while the office works; the box starts again by itself and is the same box."""

from __future__ import annotations

import concurrent.futures
import secrets

from omamori_lab.addresses import PC1, PC3, WEB
from omamori_lab.lab import Lab
from omamori_lab.portal import identity
from omamori_lab.results import Checklist
from omamori_lab.web_content import BIG_FILE

from .failures import ask_dangerous
from .scene import Title, check_once, count_alerts

_CERTIFICATE = "sha256sum /var/lib/omamori/identity/device.crt"
_ALERT_TIMEOUT_S = 60.0


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
        lab.box.power_on()
        boot = lab.box.await_protecting()
        checks.add("protects again", expected="by itself", seen=f"after {boot.protecting_s:.0f} s", ok=True)
        box = lab.await_online()
        checks.equal("feed kept", feed, box["feed"]["serial"])
        checks.equal("certificate kept", before, lab.box.shell(_CERTIFICATE).output)
        checks.equal("boxes in the portal", [lab.serial], [box["device"] for box in lab.portal.boxes()])
        names += ask_dangerous(lab, checks, "after", token)
        check_once(lab, checks, names, timeout_s=_ALERT_TIMEOUT_S)
        twice = {name: count for name, count in count_alerts(lab, cut_short).items() if count > 1}
        checks.equal("alerts of the last moment, told twice", {}, twice)
        alerts = [identity(alert) for alert in lab.portal.alerts()]
        checks.equal("events in the portal twice", 0, len(alerts) - len(set(alerts)))
        page = lab.client(PC3.name).get(f"http://{WEB.ipv4}/")
        checks.add("ordinary request", expected="passes", seen=page, ok=page.complete)
