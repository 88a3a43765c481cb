"""The operator's commands: the lamp says which box it is, the box tells about itself, and restarts when it may."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from omamori_lab.addresses import PC3
from omamori_lab.box import FORWARDING, PROTECTING, RELEASE
from omamori_lab.errors import NotReadyError
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.waiting import wait_for

from .scene import Title

_TOLD_TIMEOUT_S = 60.0
_LAMP_TIMEOUT_S = 30.0
_RESTART_TIMEOUT_S = 240.0
_OUTAGE_TIMEOUT_S = 180.0
_LIT = "cat /sys/class/leds/*::capslock/brightness | grep -c -v '^0$'"
# Looks for as long as ten blinks of the fast pattern take.
_FLICKER = f"for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do {_LIT}; sleep 0.06; done"
_LAMP = "systemctl is-active omamori-lamp.service"
_PROVISION = "/var/lib/omamori/factory/provision.json"
_CLAIM = f'python3 -c \'import json; print(json.load(open("{_PROVISION}"))["claim"])\''
# Any hour of any day: the scene is about what happens in the window, not about when it is.
_WINDOW = {"days": 127, "start_min": 0, "length_min": 1440, "zone": "Asia/Tokyo"}


class CommandsScene:
    """Identify, diagnostics, restart in the window."""

    name = "commands"
    title = Title("遠隔の指示に従う", "commands: which box it is, what it knows, a restart")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Give each command, and look at the box and at what the cloud was told."""
        lab.await_online()
        self._identify(lab, checks)
        self._diagnostics(lab, checks)
        self._reboot(lab, checks)

    def _identify(self, lab: Lab, checks: Checklist) -> None:
        mark = lab.box.console.mark()
        number = lab.surroundings.desired.order("identify", "--minutes", "5")
        checks.equal("portal about the lamp", "applied", self._await_told(lab, number)["state"])
        line = lab.box.await_line(rf"this is {lab.serial}, asks lab", timeout_s=_TOLD_TIMEOUT_S, since=mark)
        checks.add("console", expected="which box it is", seen=line[0], ok=True)
        with contextlib.suppress(NotReadyError):
            wait_for(lambda: lab.box.shell(_LAMP).output.strip() == "active", "the lamp", timeout_s=_LAMP_TIMEOUT_S)
        seen = set(lab.box.shell(_FLICKER).output.split())
        checks.add("the lamp, looked at for a moment", expected="on and off", seen=sorted(seen), ok={"0"} < seen)
        lab.surroundings.desired.order("identify", "--minutes", "0")
        over = False
        with contextlib.suppress(NotReadyError):
            over = wait_for(
                lambda: lab.box.shell(_LAMP).output.strip() == "inactive", "the lamp's end", timeout_s=_LAMP_TIMEOUT_S
            )
        checks.equal("the lamp's end", expected=True, seen=over)
        checks.equal("the lamp afterwards", "0", lab.box.shell(_LIT).output.strip())

    def _diagnostics(self, lab: Lab, checks: Checklist) -> None:
        number = lab.surroundings.desired.order("diagnostics")
        told = self._await_told(lab, number, is_over=True)
        checks.equal("portal about diagnostics", "applied", told["state"])
        found = lab.portal.get(f"/api/v1/diagnostics?device={lab.serial}")["diagnostics"]
        content: dict[str, Any] = found["content"]
        checks.equal("what it tells is the answer", number, found["command"])
        checks.equal("engine", "inspecting", content["status"]["engine"])
        checks.equal("ports", ["lan1", "wan"], sorted(set(content["ports"]) & {"lan1", "wan"}))
        checks.equal("carrier of the router's port", "1", content["ports"].get("wan", {}).get("carrier"))
        checks.add("lines of log", expected="some", seen=len(content["log"]), ok=len(content["log"]) > 5)
        errors = {name for name, part in content["box"].items() if "error" in part}
        # Without a document and an update there are no files of theirs.
        checks.equal("parts that could not be read", set(), errors - {"desired", "firmware"})
        claim = lab.box.shell(_CLAIM).output.strip()
        checks.add(
            "claim", expected="not in it", seen=len(claim), ok=len(claim) > 10 and claim not in json.dumps(content)
        )

    def _reboot(self, lab: Lab, checks: Checklist) -> None:
        known = max((item["id"] for item in lab.portal.outages(lab.serial)), default=0)
        box = lab.portal.box(lab.serial)
        version = lab.surroundings.desired.publish(
            firmware={
                "version": box["firmware"],
                "window": _WINDOW,
                "max_wait_s": 0,
                "metered": "never",
                "rate_kbps": 0,
                "owner_refuses_scheduled": False,
            }
        )
        lab.portal.await_box(
            lab.serial,
            lambda box: box["settings"]["version"] == version and box["settings"]["state"] == "applied",
            timeout_s=_TOLD_TIMEOUT_S,
        )
        mark = lab.box.restarts_by_itself()
        number = lab.surroundings.desired.order("reboot", "--when", "window")
        told = self._await_told(lab, number)
        checks.equal("portal before the restart", ("pending", "restarts now"), (told["state"], told["reason"]))
        for line in (RELEASE, FORWARDING, PROTECTING):
            lab.box.await_line(line, timeout_s=_RESTART_TIMEOUT_S, since=mark)
        told = self._await_told(lab, number, is_over=True)
        checks.equal("portal after the restart", ("applied", None), (told["state"], told["reason"]))
        outage = lab.portal.await_outage(lab.serial, known=known, timeout_s=_OUTAGE_TIMEOUT_S)
        checks.equal("why the box was away, by the cloud", "maintenance", outage["reason"])
        checks.equal("the customer is disturbed for that", None, outage["noticed"])
        page = lab.client(PC3.name).get("http://web.example/", options=["-4"])
        checks.add("ordinary request", expected="passes", seen=page, ok=page.complete)

    def _await_told(self, lab: Lab, number: str, *, is_over: bool = False) -> dict[str, Any]:
        """Wait until the portal tells of a command, and if need be that it is done or refused; return that."""

        def fits(box: dict[str, Any]) -> bool:
            command = (box["settings"] or {}).get("command") or {}
            return command.get("id") == number and not (is_over and command["state"] == "pending")

        timeout_s = _RESTART_TIMEOUT_S if is_over else _TOLD_TIMEOUT_S
        command: dict[str, Any] = lab.portal.await_box(lab.serial, fits, timeout_s=timeout_s)["settings"]["command"]
        return command
