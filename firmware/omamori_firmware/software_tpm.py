"""A TPM 2.0 in software for a virtual machine: swtpm, from a package tree that only those make who use it.

Rules:
- It is soldered to the board: it gets its power with the machine and loses it with the machine. What a real one keeps
  without power lies in its directory; another directory is another TPM.
- The machine is its only user, through a socket; when the machine goes away, it ends.
"""

import time
from collections.abc import Callable
from pathlib import Path

from omamori_firmware import run
from omamori_firmware.cache import Cache
from omamori_firmware.errors import MachineError
from omamori_firmware.recipe import SourceTree
from omamori_firmware.tools import ToolsTree, obtain_tools

_TREE = "tpm"
_START_TIMEOUT_S = 30.0
_EPOCH = 1_760_000_000


def tpm_tree(tree: SourceTree, cache: Cache, note: Callable[[str], None] = lambda _: None) -> ToolsTree:
    """Return the tree with swtpm, made if it is not in the cache (a minute, some 40 MB of packages)."""
    return obtain_tools(tree, cache, source_date_epoch=_EPOCH, note=note, name=_TREE)[0]


class SoftwareTPM:
    """The TPM of one board.

    Args:
        directory: What it keeps without power, its socket and its log; made if absent.
        tools: Supplies swtpm.

    Attributes:
        socket: Where the virtual machine finds it.
    """

    def __init__(self, directory: Path, tools: ToolsTree) -> None:
        self._directory = directory.resolve()
        self._tools = tools
        self._process: run.Process | None = None
        self.socket = self._directory / "control"

    @property
    def is_on(self) -> bool:
        """Say whether it was given power."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise MachineError("the TPM is off")
        return self._process.pid

    def start(self) -> None:
        """Give it power.

        Raises:
            MachineError: It has power already, or did not start; its own words are in the message.
        """
        if self._process is not None:
            raise MachineError("the TPM is on already")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        line = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._directory}"]
        line += ["--ctrl", f"type=unixio,path={self.socket}", "--terminate"]
        log = self._directory / "swtpm.log"
        with log.open("ab") as output:
            command = self._tools.command(line, binds=[self._directory])
            self._process = run.spawn(command, output=output)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise MachineError(f"the TPM did not start: {log.read_bytes()[-2000:].decode(errors='replace')}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Take its power; does nothing when it is off."""
        process, self._process = self._process, None
        # A machine that went away ends it, too; what it keeps is written before it answers a command.
        if process is not None:
            run.end(process)
        self.socket.unlink(missing_ok=True)
