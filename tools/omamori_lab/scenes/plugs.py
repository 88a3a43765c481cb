"""A cable is pulled on the spot: the box says so by a code, on console and lamp, and in the portal once it can.

The long scene leaves it out until the cloud knows, and tells it from a power cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from omamori_lab.addresses import PC3
from omamori_lab.errors import NotReadyError
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.waiting import wait_for

from .scene import Title

_WAN = 0
_CODE = "7112"
_NO_CABLE = f"{_CODE} no-wan-cable"
_OVER = "trouble over"
_CONSOLE_TIMEOUT_S = 90.0
_LAMP_TIMEOUT_S = 30.0
_KNOWN_TIMEOUT_S = 300.0
_OUTAGE_TIMEOUT_S = 180.0
_SHOWN = "cat /run/omamori/agent/code"
_LIT = "cat /sys/class/leds/*::capslock/brightness | grep -c -v '^0$'"


@contextlib.contextmanager
def pulled(lab: Lab) -> Iterator[None]:
    """Keep the router's cable out."""
    lab.box.plug(_WAN, is_in=False)
    try:
        yield
    finally:
        lab.box.plug(_WAN, is_in=True)


def check_told(lab: Lab, checks: Checklist, mark: int, trouble: str, *, timeout_s: float = _CONSOLE_TIMEOUT_S) -> None:
    """Note what somebody beside the box sees.

    Args:
        lab: The lab.
        checks: Where it is noted.
        mark: From where on the console is looked at.
        trouble: Code and word.
        timeout_s: How long it may take until the box says so.
    """
    code = trouble.partition(" ")[0]
    line = lab.box.await_line(rf"trouble {trouble}", timeout_s=timeout_s, since=mark)
    checks.add("console meanwhile", expected=code, seen=line[0], ok=True)
    checks.equal("code for the lamp", code, lab.box.shell(_SHOWN).output.strip())
    lit = False
    with contextlib.suppress(NotReadyError):
        lit = wait_for(
            lambda: lab.box.shell(_LIT).output.strip() not in ("", "0"), "the lamp to blink", timeout_s=_LAMP_TIMEOUT_S
        )
    checks.equal("the lamp blinks", expected=True, seen=lit)


class PlugsScene:
    """The router's cable is out for a moment."""

    name = "plugs"
    title = Title("抜けたケーブルを本体が知らせる", "a cable is out: the box says so by a code")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Pull the cable until the box says so, and plug it in again."""
        lab.await_online()
        mark = lab.box.console.mark()
        with pulled(lab):
            check_told(lab, checks, mark, _NO_CABLE)
        lab.box.await_line(_OVER, timeout_s=_CONSOLE_TIMEOUT_S, since=mark)
        checks.equal("code for the lamp, afterwards", "0", lab.box.shell(_SHOWN).output.strip())
        box = lab.portal.await_box(lab.serial, lambda box: box["online"], timeout_s=_CONSOLE_TIMEOUT_S)
        checks.equal("trouble in the portal", None, box["trouble"])


class LineDownScene:
    """The router's cable is out until the cloud knows, then it is back: the line, not the power."""

    name = "line-down"
    title = Title("回線の停止を停電と区別する", "the line is down, and that is no power cut")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Pull the cable, wait until the cloud knows, plug it in, and ask why the box was away."""
        lab.await_online()
        known = max((item["id"] for item in lab.portal.outages(lab.serial)), default=0)
        mark = lab.box.console.mark()
        with pulled(lab):
            check_told(lab, checks, mark, _NO_CABLE)
            lasting = wait_for(
                lambda: [item for item in lab.portal.outages(lab.serial) if item["id"] > known],
                "the cloud to know that the box is away",
                timeout_s=_KNOWN_TIMEOUT_S,
            )
            checks.equal("what the cloud says meanwhile", "unknown", lasting[0]["reason"])
        outage = lab.portal.await_outage(lab.serial, known=known, timeout_s=_OUTAGE_TIMEOUT_S)
        checks.equal("why the box was away, by the cloud", "line", outage["reason"])
        checks.equal("what the box saw meanwhile", int(_CODE), outage["evidence"].get("trouble"))
        checks.equal("the customer is disturbed for that", None, outage["noticed"])
        page = lab.client(PC3.name).get("http://web.example/", options=["-4"])
        checks.add("ordinary request", expected="passes", seen=page, ok=page.complete)
