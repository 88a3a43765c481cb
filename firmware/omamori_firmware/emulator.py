"""One QEMU: started halted, spoken to over QMP, its consoles open before the first instruction runs.

What is emulated is somebody else's matter; whoever starts it gives the arguments for that, and lets it go by `cont`.
"""

import contextlib
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omamori_firmware import run
from omamori_firmware.errors import MachineError
from omamori_firmware.qmp import QMP
from omamori_firmware.tools import ToolsTree

_START_TIMEOUT_S = 60.0
_QUIT_TIMEOUT_S = 10.0


class Emulator:
    """A QEMU process.

    Args:
        name: What it emulates, with an article, for messages.
        workdir: Directory for its socket and logs; made if absent.
        tools: Supplies QEMU.
    """

    def __init__(self, name: str, workdir: Path, tools: ToolsTree) -> None:
        self._name = name
        self._work = workdir
        self._tools = tools
        self._process: run.Process | None = None
        self._qmp: QMP | None = None
        self._consoles: dict[str, str] = {}
        self._held: list[int] = []

    def start(
        self,
        arguments: Sequence[str],
        *,
        binds: Collection[Path] = (),
        consoles: Collection[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it, halted before its first instruction.

        Args:
            arguments: QEMU's program and arguments, besides those for QMP.
            binds: Directories that it has to see, besides `workdir`.
            consoles: Labels of its character devices that are pseudo-terminals.
            pass_fds: Descriptors that it inherits.

        Raises:
            MachineError: It is on already, or did not start; its own words are in the message.
        """
        if self._process is not None:
            raise MachineError(f"{self._name} is on already")
        self._work.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        socket = str(self._socket.resolve()).replace(",", ",,")
        line = [*arguments, "-qmp", f"unix:{socket},server=on,wait=off", "-S"]
        directories = sorted({path.resolve() for path in (*binds, self._work)})
        with self._log.open("ab") as log:
            self._process = run.spawn(self._tools.command(line, binds=directories), output=log, pass_fds=pass_fds)
        try:
            self._qmp = self._connect()
            for entry in self._qmp.command("query-chardev"):
                if entry["label"] in consoles:
                    self._consoles[entry["label"]] = entry["filename"].removeprefix("pty:")
            # A pseudo-terminal that nobody has open throws away what is written to it.
            self._held = [os.open(path, os.O_RDWR | os.O_NOCTTY) for path in self._consoles.values()]
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """QEMU's process id.

        Raises:
            MachineError: It is off.
        """
        return self._running().pid

    @property
    def is_on(self) -> bool:
        """Say whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    def console(self, label: str) -> str:
        """Return the path of a console.

        Raises:
            MachineError: It was never started.
        """
        if label not in self._consoles:
            raise MachineError(f"{self._name} has not been started")
        return self._consoles[label]

    def command(self, name: str, /, **values: Any) -> Any:
        """Send a QMP command and return its result.

        Raises:
            MachineError: It is off, or QEMU refused.
        """
        self._running()
        assert self._qmp is not None
        return self._qmp.command(name, **values)

    def kill(self) -> None:
        """End QEMU at once, as if its power was cut."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        self._forget()

    def stop(self) -> None:
        """End QEMU in good order."""
        if self._process is not None:
            if self._qmp is not None:
                with contextlib.suppress(MachineError):
                    self._qmp.command("quit")
            if self._qmp is None or run.wait_exit(self._process, _QUIT_TIMEOUT_S) is None:
                run.end(self._process)
        self._forget()

    def wait_off(self, timeout_s: float) -> bool:
        """Wait until QEMU has ended by itself; say whether it did."""
        return self._process is None or run.wait_exit(self._process, timeout_s) is not None

    @property
    def _socket(self) -> Path:
        return self._work / "qmp"

    @property
    def _log(self) -> Path:
        return self._work / "qemu.log"

    def _connect(self) -> QMP:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            self._running()
            if self._socket.exists():
                with contextlib.suppress(MachineError):
                    return QMP(self._socket)
            time.sleep(0.05)
        raise MachineError(f"QEMU for {self._name} did not start in {_START_TIMEOUT_S:.0f} s: {self._last_words()}")

    def _running(self) -> run.Process:
        if self._process is None:
            raise MachineError(f"{self._name} is off")
        if self._process.poll() is not None:
            status = self._process.returncode
            raise MachineError(f"QEMU for {self._name} ended with status {status}: {self._last_words()}")
        return self._process

    def _last_words(self) -> str:
        return self._log.read_bytes()[-2000:].decode(errors="replace").strip() if self._log.exists() else "no output"

    def _forget(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)
        self._held = []
        if self._qmp is not None:
            self._qmp.close()
        self._qmp = None
        self._process = None
