"""What the operator may decide about a box: who is exempt, what happens without an engine, which address it has."""

from __future__ import annotations

import datetime as dt
from typing import Any

from omamori_lab import addresses
from omamori_lab.addresses import DANGEROUS, PC1, PC2, PC3, SERVER, WEB
from omamori_lab.box import PROTECTING
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.waiting import wait_for

from .engine_faults import calm_engine, on_box
from .scene import BLOCKED_TIMEOUT_S, Title
from .uninspected import check_inspected, check_settings, check_told, office_at_work, passed

_ENGINE = "omamori-engine.service"
_TRAVERSAL_RULE = "1900020"  # of the demonstration feed
_LEFT_S = 8  # until an exemption ends by itself
_RECOVERY_TIMEOUT_S = 60.0
_STATIC = "192.168.10.50"


class ExemptionsScene:
    """A terminal, a destination and a rule are exempt for a while."""

    name = "exemptions"
    title = Title("対象外にした端末・相手先・ルールだけを通す", "what is exempt passes, everything else is inspected")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Exempt, look, and wait for the end; no ping is lost though the engine loads its rules anew."""
        before = passed(lab)
        exemptions: list[dict[str, Any]] = [
            {"id": 1, "kind": "terminal-mac", "value": PC2.mac},
            {"id": 2, "kind": "destination", "value": DANGEROUS.ipv4},
            {"id": 3, "kind": "rule", "value": _TRAVERSAL_RULE},
        ]
        with office_at_work(lab, checks, "while exemptions come and go", may_lose=0):
            check_settings(lab, checks, "exemptions", "three exemptions", exemptions=exemptions)
            self._look(lab, checks)
            end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_LEFT_S)
            exemptions[1]["until"] = f"{end:%Y-%m-%dT%H:%M:%SZ}"
            check_settings(lab, checks, "exemptions", "one of them with an end", exemptions=exemptions)
            wait_for(
                lambda: not self._reaches_dangerous(lab),
                "the end of the destination's exemption",
                timeout_s=_LEFT_S + 30,
                every_s=0.5,
            )
            check_inspected(lab, checks, "still not", expected=False, terminal=PC2.name)
            check_settings(lab, checks, "exemptions", "no exemptions")
            check_inspected(lab, checks, "again", expected=True, terminal=PC2.name)
            checks.equal("path traversal", "stopped", self._traverse(lab))
        check_told(lab, checks, "exempt", before=before)

    def _look(self, lab: Lab, checks: Checklist) -> None:
        check_inspected(lab, checks, "although it is exempt", expected=False, terminal=PC2.name)
        check_inspected(lab, checks, "although others are exempt", expected=True, terminal=PC1.name)
        checks.equal(f"{PC3.name} reaches the exempt destination", expected=True, seen=self._reaches_dangerous(lab))
        checks.equal("path traversal without its rule", "arrived", self._traverse(lab))

    def _reaches_dangerous(self, lab: Lab) -> bool:
        pc = lab.client(PC3.name)
        return pc.get("http://phishing.test/", address=DANGEROUS.ipv4, timeout_s=BLOCKED_TIMEOUT_S).complete

    def _traverse(self, lab: Lab) -> str:
        url = f"http://{SERVER.ipv4}/files/../../../../etc/passwd"
        got = lab.client("attacker").get(url, timeout_s=BLOCKED_TIMEOUT_S)
        return "arrived" if got.complete else f"stopped{'' if got.status == 0 else f' with {got.status}'}"


class FailClosedScene:
    """The owner prefers no connection to an uninspected one; the box itself still reaches the cloud."""

    name = "fail-closed"
    title = Title(
        "検査できないときに通信を止める設定", "fail-closed: without an engine nothing passes but the box's own"
    )
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Close, stop the engine, open again by the cloud, start the engine."""
        pc = lab.client(PC1.name)
        check_settings(lab, checks, "policy", "fail-closed", policy={"fail_closed": True})
        visit = pc.get("http://web.example/", options=["-4"])
        checks.add("HTTP with an engine", expected="passes", seen=visit, ok=visit.complete)
        calm_engine(lab)
        mark = lab.box.console.mark()
        on_box(lab, f"systemctl stop {_ENGINE}")
        try:
            checks.equal("ping without an engine", 0, pc.ping(WEB.ipv4, count=3).received)
            closed = pc.get("http://web.example/", options=["-4"], timeout_s=3)
            checks.add("HTTP without an engine", expected="nothing", seen=closed, ok=closed.status == 0)
            # The answer to this has to leave the box, and the portal has to have it.
            check_settings(lab, checks, "policy", "fail-open, asked for and told without an engine")
            opened = wait_for(
                lambda: pc.ping(WEB.ipv4, count=1).received == 1, "the office to be connected again", timeout_s=20
            )
            checks.equal("ping once it is open", expected=True, seen=opened)
        finally:
            on_box(lab, f"systemctl start {_ENGINE}", timeout_s=90)
        lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
        check_inspected(lab, checks, "with the engine back", expected=True)


class AddressScene:
    """The box's own address: static, and by DHCP again."""

    name = "address"
    title = Title("機器のアドレスを遠隔で変える", "the box's own address changes, the office notices nothing")
    needs_shell = False

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Ask for a static address, look who answers there, and go back."""
        pc = lab.client(PC1.name)
        checks.equal(f"ping {_STATIC} before", 0, pc.ping(_STATIC, count=1).received)
        with office_at_work(lab, checks, "while the box changes its address", may_lose=0):
            address = {
                "mode": "static",
                "ipv4": f"{_STATIC}/{addresses.LAN_PREFIX}",
                "gateway": addresses.ROUTER_IPV4,
                "dns": [addresses.ROUTER_IPV4],
            }
            check_settings(lab, checks, "address", "a static address", address=address)
            checks.equal(f"ping {_STATIC} then", 1, pc.ping(_STATIC, count=1).received)
            lab.await_online()
            check_settings(lab, checks, "address", "DHCP")
            wait_for(lambda: pc.ping(_STATIC, count=1).received == 0, "the static address to be gone", timeout_s=20)
        lab.await_online()
