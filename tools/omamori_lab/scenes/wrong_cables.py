"""What an office may do to a box without an engineer: plugs exchanged, a loop, no DHCP, a line that wants a login.

In each the box says so by its code, on console and lamp, and the office's traffic goes on as far as it can.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from omamori_lab.addresses import PC1, PC2, WEB
from omamori_lab.cabling import all_in_one_switch, crossed
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.topology import Topology

from .plugs import check_told
from .scene import Title

_PLUGS = (0, 1)
_OVER = "trouble over"
_TOLD_TIMEOUT_S = 180.0
_OVER_TIMEOUT_S = 240.0
_ROUTER = "dnsmasq"
_NOBODY = "192.168.10.99"
_PAGE = f"http://{WEB.ipv4}/"

Cabling = Callable[[Topology], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def cabled(lab: Lab, cabling: Cabling) -> Iterator[None]:
    """Pull both plugs, plug them in otherwise, and put everything back in the end."""
    with contextlib.ExitStack() as stack:
        stack.callback(_plug, lab, is_in=True)
        _plug(lab, is_in=False)
        stack.callback(lab.surroundings.services[_ROUTER].start)
        stack.enter_context(cabling(lab.surroundings.topology))
        lab.surroundings.services[_ROUTER].stop()
        lab.surroundings.services[_ROUTER].start()
        stack.callback(_plug, lab, is_in=False)
        _plug(lab, is_in=True)
        # Before the cables are put back: the router's servers hold on to an interface that goes.
        stack.callback(lab.surroundings.services[_ROUTER].stop)
        yield


def _plug(lab: Lab, *, is_in: bool) -> None:
    for port in _PLUGS:
        lab.box.plug(port, is_in=is_in)


def check_page(lab: Lab, checks: Checklist, name: str) -> None:
    """Note that somebody in the office gets a page."""
    page = lab.client(PC1.name).get(_PAGE, timeout_s=20)
    checks.add(name, expected="passes", seen=page, ok=page.complete)


def check_over(lab: Lab, checks: Checklist, mark: int) -> None:
    """Note that all is well again."""
    lab.box.await_line(_OVER, timeout_s=_OVER_TIMEOUT_S, since=mark)
    box = lab.portal.await_box(
        lab.serial, lambda box: bool(box["online"]) and box["trouble"] is None, timeout_s=_OVER_TIMEOUT_S
    )
    checks.equal("trouble in the portal, afterwards", None, box["trouble"])


class SwappedScene:
    """The two cables are in each other's plugs."""

    name = "swapped"
    title = Title("WANとLANの差し間違い", "the two cables are in each other's plugs")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Exchange the cables until the box says so; the office must not notice."""
        lab.await_online()
        mark = lab.box.console.mark()
        with cabled(lab, crossed):
            check_told(lab, checks, mark, "7121 swapped", timeout_s=_TOLD_TIMEOUT_S)
            check_page(lab, checks, "ordinary request through a box with exchanged plugs")
            box = lab.portal.await_box(lab.serial, lambda box: bool(box["trouble"]), timeout_s=_TOLD_TIMEOUT_S)
            checks.equal("trouble in the portal", 7121, box["trouble"]["code"])
            mark = lab.box.console.mark()
        check_over(lab, checks, mark)


class LoopScene:
    """Both cables of the box, the router's and the office's are in one switch."""

    name = "loop"
    title = Title("ケーブルの輪", "cables form a loop through the box")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Plug everything into one switch until the box says so."""
        lab.await_online()
        mark = lab.box.console.mark()
        # Somebody asks in vain who has an address, as happens in every office: a broadcast that runs for ever.
        with cabled(lab, all_in_one_switch), lab.client(PC2.name).pinging(_NOBODY, interval_s=1.0):
            check_told(lab, checks, mark, "7122 loop", timeout_s=_TOLD_TIMEOUT_S)
            mark = lab.box.console.mark()
        check_over(lab, checks, mark)
        check_page(lab, checks, "ordinary request, afterwards")


class NoDhcpScene:
    """The router gives no addresses while the box starts."""

    name = "no-dhcp"
    title = Title("IPアドレスをもらえない", "no address for the box")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Start the box beside a router without DHCP; it protects all the same."""
        router = lab.surroundings.services[_ROUTER]
        lab.await_online()
        lab.box.cut_power()
        with contextlib.ExitStack() as stack:
            stack.callback(router.start)
            router.stop()
            mark = lab.box.console.mark()
            lab.box.power_on()
            boot = lab.box.await_protecting()
            checks.add("protects without an address", expected="yes", seen=f"after {boot.protecting_s:.0f} s", ok=True)
            check_told(lab, checks, mark, "7211 no-dhcp", timeout_s=_TOLD_TIMEOUT_S)
            check_page(lab, checks, "ordinary request meanwhile")
            mark = lab.box.console.mark()
        check_over(lab, checks, mark)


class CaptiveScene:
    """The line answers everything itself until somebody logs in."""

    name = "captive"
    title = Title("回線の認証画面", "the line wants a login")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Let the line answer in place of the services until the box says so."""
        lab.await_online()
        mark = lab.box.console.mark()
        with lab.surroundings.captive():
            check_told(lab, checks, mark, "7321 portal", timeout_s=_TOLD_TIMEOUT_S)
            mark = lab.box.console.mark()
        check_over(lab, checks, mark)
