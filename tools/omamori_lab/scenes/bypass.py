"""Everything passes for a while because somebody asked for it: the operator by command, or a person by the button."""

from __future__ import annotations

import time

from omamori_lab.lab import Lab
from omamori_lab.portal import Portal
from omamori_lab.results import Checklist
from omamori_lab.settings import SERIAL

from .scene import Title
from .uninspected import check_inspected, check_told, office_at_work, passed

_MINUTES = 5
_TOLD_TIMEOUT_S = 30.0
_BOUNCE_S = 1.5  # the box takes a second press that comes at once for a bounce of the first


class BypassScene:
    """On and off by command, on and off by the button."""

    name = "bypass"
    title = Title(
        "指示やボタンで一時的に検査を止められる", "everything passes for a while, by command or by the button"
    )
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Ask for a bypass in both ways and end it again; the office loses nothing."""
        before = passed(lab)
        check_inspected(lab, checks, "before", expected=True)
        with office_at_work(lab, checks, "while the bypass comes and goes", may_lose=0):
            self._by_command(lab, checks)
            lab.box.press_button()
            check_inspected(lab, checks, "after the button was pressed", expected=False)
            time.sleep(_BOUNCE_S)
            lab.box.press_button()
            check_inspected(lab, checks, "after it was pressed again", expected=True)
        check_told(lab, checks, "command", before=before, least=5)

    def _by_command(self, lab: Lab, checks: Checklist) -> None:
        lab.surroundings.desired.bypass(_MINUTES)
        check_inspected(lab, checks, f"during a bypass of {_MINUTES} minutes", expected=False)
        self._await_told(lab.portal, checks, "the portal says so", is_on=True)
        lab.surroundings.desired.bypass(0)
        check_inspected(lab, checks, "after its end by command", expected=True)
        self._await_told(lab.portal, checks, "the portal says that it is over", is_on=False)

    def _await_told(self, portal: Portal, checks: Checklist, what: str, *, is_on: bool) -> None:
        box = portal.await_box(SERIAL, lambda box: ("bypassed" in box["findings"]) is is_on, timeout_s=_TOLD_TIMEOUT_S)
        command = box["settings"]["command"]
        checks.equal(what, ("applied", is_on), (command["state"], box["settings"]["bypass_until"] is not None))
