"""The engine hangs, and runs out of memory: watch and service manager mend it, the office notices nothing."""

from __future__ import annotations

import time

from omamori_lab.box import PROTECTING
from omamori_lab.errors import BoxError
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist

from .scene import Title
from .uninspected import check_inspected, check_told, office_at_work, passed

_ENGINE = "omamori-engine.service"
_GROUP = f"/sys/fs/cgroup/system.slice/{_ENGINE}"
_CALM_S = 70.0
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


def calm_engine(lab: Lab) -> None:
    """Wait until the box has forgotten earlier ends of its engine: several in a row would cost the feed its place.

    The scenes are ordered so that there is nothing to wait for when all of them are played.
    """
    time.sleep(max(0.0, lab.box.engine_ended_s + _CALM_S - time.monotonic()))
    lab.box.engine_ended_s = time.monotonic()


class EngineHangScene:
    """SIGSTOP: the watch lets traffic pass, kills the engine, and systemd starts another."""

    name = "engine-hang"
    title = Title("検査エンジンが固まっても通信は止まらない", "a hung engine is replaced, traffic goes on")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Hang the engine under a ping at 5 Hz."""
        calm_engine(lab)
        before, mark = passed(lab), lab.box.console.mark()
        stuck = on_box(lab, f"systemctl show --property MainPID --value {_ENGINE}")
        with office_at_work(lab, checks, "while the engine hangs", may_lose=_HANG_MAY_LOSE):
            on_box(lab, f"systemctl kill --signal=STOP {_ENGINE}")
            lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
        fresh = on_box(lab, f"systemctl show --property MainPID --value {_ENGINE}")
        checks.add("engine after the hang", expected="another process", seen=f"{stuck} → {fresh}", ok=fresh != stuck)
        check_inspected(lab, checks, "again after the hang", expected=True)
        check_told(lab, checks, "engine-hung", before=before)


class EngineMemoryScene:
    """Too little memory: the kernel kills the engine, and systemd starts another."""

    name = "engine-memory"
    title = Title(
        "検査エンジンのメモリが尽きても通信は止まらない", "an engine out of memory is replaced, traffic goes on"
    )
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Leave the engine less memory than it has, under a ping at 5 Hz."""
        calm_engine(lab)
        before, mark = passed(lab), lab.box.console.mark()
        with office_at_work(lab, checks, "while the engine has no memory", may_lose=_OOM_MAY_LOSE):
            # The group of the next engine is a new one, with the limits of its unit again.
            on_box(lab, f"echo 16M >{_GROUP}/memory.max")
            lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
        killed = on_box(lab, f"journalctl --no-pager --since=-3min --grep 'oom-kill' --unit {_ENGINE} --quiet | wc -l")
        checks.add("killed for its memory", expected="once", seen=f"{killed} lines of the journal", ok=killed != "0")
        check_inspected(lab, checks, "again with memory", expected=True)
        check_told(lab, checks, "engine-down", "engine-starting", before=before)
