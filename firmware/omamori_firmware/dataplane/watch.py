"""The watch over the engine, in a network namespace of this machine.

It is the box's own program. Only where it finds the engine's processes differs: there is no service manager here, so
they stand in a file of ours.
"""

import json
import signal
from pathlib import Path
from typing import Any

from omamori_firmware.dataplane.build import WATCH
from omamori_firmware.dataplane.plan import WirePlan
from omamori_firmware.run import Process, end, spawn


class NativeWatch:
    """One watch.

    Args:
        plan: Names the queues.
        namespace: The namespace's file.
        programs: Directory that `build_gate` filled.
        pins: Where the gate's maps are pinned.
        directory: A directory of ours.
    """

    def __init__(self, plan: WirePlan, namespace: Path, programs: Path, pins: Path, directory: Path) -> None:
        self._plan = plan
        self._namespace = namespace
        self._programs = programs
        self._pins = pins
        self._processes = directory / "engine.processes"
        self._state = directory / "watch.json"
        self._log = directory / "watch.log"
        self._process: Process | None = None

    def look_after(self, *pids: int) -> None:
        """Say which processes are the engine's."""
        self._processes.write_text("".join(f"{pid}\n" for pid in pids))

    def start(self, *options: str) -> None:
        """Start it.

        Args:
            options: What it is told besides, see its help.
        """
        self._state.unlink(missing_ok=True)
        self._processes.touch()
        plan = self._plan
        line: list[str | Path] = ["nsenter", f"--net={self._namespace}", "--", self._programs / WATCH]
        line += ["--control", self._pins / "control", "--processes", self._processes, "--state", self._state]
        line += ["--queues", f"{plan.first_queue}-{plan.last_queue}", "--queue-length", str(plan.queue_length)]
        line += options
        with self._log.open("ab") as log:
            self._process = spawn(line, output=log)

    def pause(self) -> None:
        """Tell it that the engine is about to be stopped."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)

    def state(self) -> dict[str, Any]:
        """Return what it has written; empty before it has."""
        try:
            return dict(json.loads(self._state.read_text()))
        except FileNotFoundError:
            return {}

    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text() if self._log.exists() else ""

    def kill(self) -> None:
        """End it the hard way, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            end(self._process)
            self._process = None
