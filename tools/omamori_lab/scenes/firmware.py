"""New firmware: published, fetched as a difference, tried after a restart, kept. The office works meanwhile."""

from __future__ import annotations

import re
import secrets

from omamori_lab.addresses import PC1, WEB
from omamori_lab.box import FORWARDING, PROTECTING, RELEASE
from omamori_lab.errors import BoxError
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.settings import SERIAL

from .failures import ask_dangerous
from .scene import Title, check_once

_CERTIFICATE = "sha256sum /var/lib/omamori/identity/device.crt"
_FETCH_TIMEOUT_S = 240.0
_RESTART_TIMEOUT_S = 180.0
_COMMIT_TIMEOUT_S = 180.0
_ALERT_TIMEOUT_S = 60.0
# Any hour of any day: the scene is about what happens in the window, not about when it is.
_WINDOW = {"days": 127, "start_min": 0, "length_min": 1440, "zone": "Asia/Tokyo"}


class FirmwareScene:
    """An update from slot A to slot B."""

    name = "firmware"
    title = Title("新しいファームウェアに自動で入れ替わる", "new firmware is fetched, tried and kept by itself")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Publish a firmware, ask for it, and look at every step that the box tells."""
        certificate = lab.box.shell(_CERTIFICATE).output
        feed = lab.portal.box(SERIAL)["feed"]["serial"]
        release = lab.surroundings.firmware.publish_next()
        mark = lab.box.restarts_by_itself()
        settings = {
            "version": release.version,
            "window": _WINDOW,
            "max_wait_s": 0,
            "metered": "never",
            "rate_kbps": 0,
            "owner_refuses_scheduled": False,
        }
        lab.surroundings.desired.publish(firmware=settings)
        with lab.client(PC1.name).pinging(WEB.ipv4) as pings:
            self._await_state(lab, mark, release.version, "reboot-pending", _FETCH_TIMEOUT_S)
            match = lab.box.await_line(RELEASE, timeout_s=_RESTART_TIMEOUT_S, since=mark)
            checks.equal(
                "version and slot after the restart", (release.version, "B"), (match["version"], match["slot"])
            )
            lab.box.await_line(FORWARDING, timeout_s=_RESTART_TIMEOUT_S, since=mark)
        summary = pings.stop()
        lost_s = (summary.sent - summary.received) * 0.2
        checks.add(
            "time without forwarding", expected="one restart", seen=f"{lost_s:.0f} s", ok=lost_s < _RESTART_TIMEOUT_S
        )
        lab.box.await_line(PROTECTING, timeout_s=_RESTART_TIMEOUT_S, since=mark)
        self._await_state(lab, mark, release.version, "committed", _COMMIT_TIMEOUT_S)
        checks.add("tried, then kept", expected="committed", seen="committed", ok=True)
        fetched = lab.surroundings.firmware.fetched_bytes(release)
        checks.add(
            "fetched",
            expected=f"the difference, {release.delta_bytes} bytes, and not much more",
            seen=f"{fetched} bytes of {release.bundle_bytes}",
            ok=fetched < release.delta_bytes * 1.2 + 100_000,
        )
        self._look(lab, checks, release.version, certificate=certificate, feed=feed)

    def _look(self, lab: Lab, checks: Checklist, version: str, *, certificate: str, feed: int) -> None:
        box = lab.portal.await_box(
            SERIAL, lambda box: box["firmware"] == version and box["slot"] == "B", timeout_s=_ALERT_TIMEOUT_S
        )
        checks.equal("firmware and slot in the portal", (version, "B"), (box["firmware"], box["slot"]))
        checks.equal("certificate kept", certificate, lab.box.shell(_CERTIFICATE).output)
        checks.equal("feed kept", feed, box["feed"]["serial"])
        names = ask_dangerous(lab, checks, "updated", secrets.token_hex(3))
        check_once(lab, checks, names, timeout_s=_ALERT_TIMEOUT_S)

    def _await_state(self, lab: Lab, mark: int, version: str, state: str, timeout_s: float) -> None:
        """Wait for a state on the console; end at once when the box says that it failed."""
        line = (
            rf"omamori: firmware version={re.escape(version)} state=(?P<state>{state}|failed|rolled-back) (?P<rest>.*)"
        )
        match = lab.box.await_line(line, timeout_s=timeout_s, since=mark)
        if match["state"] != state:
            raise BoxError(f"firmware {version}: {match['state']} {match['rest']}")
