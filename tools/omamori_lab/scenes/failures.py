"""Parts fail while the office works: engine, agent, broker. Traffic goes on, and no alert is lost or doubled."""

from __future__ import annotations

import concurrent.futures
import secrets
from collections.abc import Callable

from omamori_lab import addresses
from omamori_lab.addresses import PC1, PC2, PC3
from omamori_lab.box import PROTECTING
from omamori_lab.errors import BoxError
from omamori_lab.lab import Lab
from omamori_lab.results import Checklist
from omamori_lab.web_content import BIG_BYTES, BIG_FILE

from .engine_faults import calm_engine
from .scene import Title, check_once
from .uninspected import check_inspected, check_told, passed

_DNS = addresses.ROUTER_IPV4
_RECOVERY_TIMEOUT_S = 60.0
_DOWNLOAD_TIMEOUT_S = 60.0
_RATE = "2M"  # bytes per second: the download spans the failure


def ask_dangerous(lab: Lab, checks: Checklist, label: str, token: str) -> list[str]:
    """Ask for a dangerous name from three PCs, each name once; return the names."""
    names = []
    for number, pc in enumerate((PC1, PC2, PC3), 1):
        name = f"{label}{number}-{token}.malware.test"
        names.append(name)
        checks.equal(f"DNS {name}", None, lab.client(pc.name).resolve(name, server=_DNS, timeout_s=1))
    return names


class FailuresScene:
    """Engine killed, agent killed, broker stopped for a while."""

    name = "failures"
    title = Title("部品が落ちても通信は止まらない", "parts fail, traffic goes on, no alert is lost")
    needs_shell = True

    def play(self, lab: Lab, checks: Checklist) -> None:
        """Break one part after the other under a running download."""
        token = secrets.token_hex(3)
        names: list[str] = []
        before = passed(lab)
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            for part, act in (
                ("engine", self._kill_engine),
                ("agent", self._kill_agent),
                ("broker", self._stop_broker),
            ):
                download = pool.submit(self._download, lab)
                names += act(lab, checks, token)
                size, is_same = download.result()
                checks.add(f"download while the {part} fails", expected="bit for bit", seen=f"{size} bytes", ok=is_same)
        check_once(lab, checks, names, timeout_s=_RECOVERY_TIMEOUT_S)
        check_told(lab, checks, "engine-down", "engine-starting", before=before)

    def _download(self, lab: Lab) -> tuple[int, bool]:
        url = f"http://web.example/{BIG_FILE}"
        options = ["-4", "--limit-rate", _RATE]
        got = lab.client(PC1.name).get(url, timeout_s=_DOWNLOAD_TIMEOUT_S, options=options)
        same = got.complete and got.size == BIG_BYTES and got.sha256 == lab.surroundings.big_file_sha256
        return got.size, same

    def _kill(self, lab: Lab, unit: str) -> None:
        result = lab.box.shell(f"systemctl kill --signal=KILL {unit}")
        if result.exit_code != 0:
            raise BoxError(f"{unit} could not be killed: {result.output[-200:]}")

    def _kill_engine(self, lab: Lab, checks: Checklist, token: str) -> list[str]:
        calm_engine(lab)
        mark = lab.box.console.mark()
        self._kill(lab, "omamori-engine.service")
        fetch: Callable[[], bool] = lambda: lab.client(PC2.name).get("http://web.example/", options=["-4"]).complete  # noqa: E731
        checks.equal("HTTP while the engine is dead", expected=True, seen=fetch())
        lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
        # A busy engine that has only just begun may be passed by once more (and the ledger says so).
        check_inspected(lab, checks, "with a new engine", expected=True)
        return ask_dangerous(lab, checks, "engine", token)

    def _kill_agent(self, lab: Lab, checks: Checklist, token: str) -> list[str]:
        mark = lab.box.console.mark()
        self._kill(lab, "omamori-agent.service")
        names = ask_dangerous(lab, checks, "agent", token)
        lab.box.await_line(PROTECTING, timeout_s=_RECOVERY_TIMEOUT_S, since=mark)
        return names

    def _stop_broker(self, lab: Lab, checks: Checklist, token: str) -> list[str]:
        broker = lab.surroundings.services["mosquitto"]
        broker.stop()
        try:
            names = ask_dangerous(lab, checks, "broker", token)
        finally:
            broker.start()
        lab.await_online()
        return names
