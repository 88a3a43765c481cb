"""What is around the engine fails: the queue is taken away, the disk is full, the agent is not there."""

from __future__ import annotations

import secrets

from omamori_lab.addresses import PC2, WEB
from omamori_lab.box import PROTECTING
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist

from .engine_faults import on_box
from .failures import ask_dangerous
from .scene import Title, check_once
from .uninspected import check_inspected, check_told, office_at_work, passed

_ALERT_TIMEOUT_S = 60.0
_PINGS = 20
_RECOVERY_TIMEOUT_S = 60.0
_FILLER = "/var/filler"
_SWITCHES = "/proc/sys/net/bridge/bridge-nf-call-ip*tables"


class WireFaultsScene:
    """The bridge does not lead to the queue; then a full data partition and no agent, both at once."""

    name = "wire-faults"
    title = Title(
        "検査への道が外れても、満杯でも、通信は止まらない",
        "no way to the engine, a full disk, no agent: traffic goes on",
    )
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Break the surroundings of the engine one after the other."""
        self._no_queue(lab, checks)
        self._full_disk_and_no_agent(lab, checks)

    def _no_queue(self, lab: Lab, checks: Checklist) -> None:
        before = passed(lab)
        with office_at_work(lab, checks, "while nothing leads to the engine", may_lose=0):
            on_box(lab, f"for file in {_SWITCHES}; do echo 0 >$file; done")
            check_inspected(lab, checks, "without a way to the engine", expected=False)
            visit = lab.client(PC2.name).get("http://web.example/", options=["-4"])
            checks.add("HTTP meanwhile", expected="passes", seen=visit, ok=visit.complete)
            # The ledger looks once a second; what passes while the agent is away, too, it cannot tell from overload.
            checks.equal("ping meanwhile", _PINGS, lab.client(PC2.name).ping(WEB.ipv4, count=_PINGS).received)
            on_box(lab, "systemctl restart omamori-wire.service")
        check_inspected(lab, checks, "with the wire installed again", expected=True)
        check_told(lab, checks, "no-gate", before=before)

    def _full_disk_and_no_agent(self, lab: Lab, checks: Checklist) -> None:
        token = secrets.token_hex(3)
        mark = lab.box.console.mark()
        with office_at_work(lab, checks, "with a full disk and without the agent", may_lose=0):
            on_box(lab, f"dd if=/dev/zero of={_FILLER} bs=1M 2>/dev/null; sync {_FILLER}; true", timeout_s=60)
            free = on_box(lab, "stat --file-system --format %a /var")
            checks.equal("free blocks of the data partition", "0", free)
            names = ask_dangerous(lab, checks, "full", token)
            on_box(lab, "systemctl stop omamori-agent.service")
            names += ask_dangerous(lab, checks, "stopped", token)
            on_box(lab, "systemctl start omamori-agent.service", timeout_s=60)
            lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
            names += ask_dangerous(lab, checks, "started", token)
            on_box(lab, f"rm {_FILLER}")
        check_once(lab, checks, names, timeout_s=_ALERT_TIMEOUT_S)
        lab.await_online()
