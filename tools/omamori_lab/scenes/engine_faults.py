"""The engine hangs, and runs out of memory: the watch and the service manager mend it, the office notices nothing."""

from __future__ import annotations

from omamori_lab.box import PROTECTING
from omamori_lab.errors import BoxError
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist

from .scene import Title
from .uninspected import check_inspected, check_told, office_at_work, passed

_ENGINE = "omamori-engine.service"
_RECOVERY_TIMEOUT_S = 60.0
# A hang is noticed after 150 ms of the box's clock; an emulated processor may make a little more of it.
_HANG_MAY_LOSE = 4
_OOM_MAY_LOSE = 3


def on_box(lab: Lab, command: str, *, timeout_s: float = 30.0) -> str:
    """Run a command in the guest that must succeed; return what it printed."""
    result = lab.box.shell(command, timeout_s=timeout_s)
    if result.exit_code != 0:
        raise BoxError(f"{command[:80]}: {result.output[-200:] or result.exit_code}")
    return result.output


class EngineFaultsScene:
    """SIGSTOP, then too little memory."""

    name = "engine-faults"
    title = Title("検査エンジンが固まっても通信は止まらない", "a hung or starved engine is replaced, traffic goes on")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Hang the engine, then let the kernel kill it for its memory, under a ping at 5 Hz."""
        self._hang(lab, checks)
        self._starve(lab, checks)

    def _hang(self, lab: Lab, checks: Checklist) -> None:
        before, mark = passed(lab), lab.box.console.mark()
        stuck = on_box(lab, f"systemctl show --property MainPID --value {_ENGINE}")
        with office_at_work(lab, checks, "while the engine hangs", may_lose=_HANG_MAY_LOSE):
            on_box(lab, f"systemctl kill --signal=STOP {_ENGINE}")
            lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
        fresh = on_box(lab, f"systemctl show --property MainPID --value {_ENGINE}")
        checks.add("engine after the hang", expected="another process", seen=f"{stuck} → {fresh}", ok=fresh != stuck)
        check_inspected(lab, checks, "again after the hang", expected=True)
        check_told(lab, checks, "engine-hung", before=before)

    def _starve(self, lab: Lab, checks: Checklist) -> None:
        before, mark = passed(lab), lab.box.console.mark()
        with office_at_work(lab, checks, "while the engine has no memory", may_lose=_OOM_MAY_LOSE):
            on_box(lab, f"systemctl set-property --runtime {_ENGINE} MemoryMax=24M")
            killed = (
                f"timeout 30 sh -c 'until journalctl --no-pager --since=-2min -u {_ENGINE} | grep -q oom-kill; "
                "do sleep 0.3; done'"
            )
            checks.equal("killed for its memory", 0, lab.box.shell(killed, timeout_s=40).exit_code)
            on_box(lab, f"systemctl set-property --runtime {_ENGINE} MemoryMax=infinity")
            lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
        check_inspected(lab, checks, "again with memory", expected=True)
        check_told(lab, checks, "engine-down", "engine-starting", before=before)
