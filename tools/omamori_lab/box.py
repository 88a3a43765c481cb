"""The box under test: one disk, one identity, any number of power-ons.

It moves through states that its own console tells: off, booting, forwarding, protecting. Nobody asks the guest from
inside to find out; the shell is for breaking and measuring.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from omamori_firmware.architecture import architecture
from omamori_firmware.cache import Cache, default_directory
from omamori_firmware.errors import ImageError
from omamori_firmware.files import copy_sparse
from omamori_firmware.qemu import Machine, MachineConfig, PortFd
from omamori_firmware.recipe import source_tree
from omamori_firmware.software_tpm import SoftwareTPM
from omamori_firmware.tools import find_tools
from omamori_hw.board import load_board

from . import addresses
from .console import Console
from .errors import BoxError, NotReadyError
from .journal import Journal
from .power_cut import Recorder
from .settings import BOARD
from .shell import Shell, ShellResult
from .supervised import Supervisor
from .topology import Topology

FORWARDING = r"omamori: forwarding uptime=(?P<uptime>[\d.]+)"
RELEASE = r"omamori: release version=(?P<version>\S+) flavour=(?P<flavour>\S+) slot=(?P<slot>[AB]) board=(?P<board>\S+)"
ENROLLED = r"omamori: enrolled device=(?P<device>\S+)"
PROTECTING = r"omamori: protecting feed=(?P<feed>\d+) uptime=(?P<uptime>[\d.]+)"
# Seen without hardware virtualisation: a double fault, and a virtual processor whose timer never fires again.
_EMULATOR_FAULT = re.compile(
    r"double fault|Kernel panic - not syncing|Oops:|detected stalls on CPUs|timer handling issue", re.IGNORECASE
)
_BOOT_TIMEOUT_S = 300.0  # a processor that is imitated on a busy machine takes its time


class BoxState(StrEnum):
    """Where the box is in its life."""

    OFF = "off"
    BOOTING = "booting"
    FORWARDING = "forwarding"
    PROTECTING = "protecting"


@dataclasses.dataclass(frozen=True)
class BootReport:
    """How a boot went; times in seconds since power-on.

    Attributes:
        forwarding_s: When the bridge forwarded.
        protecting_s: When the engine inspected with a feed loaded.
        feed_serial: The feed it protects with.
        version: Firmware version.
        flavour: Of the image.
        slot: Slot it runs from.
        retried: Whether an emulator fault made a second attempt necessary.
    """

    forwarding_s: float
    protecting_s: float
    feed_serial: int
    version: str
    flavour: str
    slot: str
    retried: bool = False


class Box:
    """A virtual appliance between the two taps.

    Args:
        disk: Its disk image; changed while it runs.
        variables: Its firmware variables; changed too.
        topology: Whose taps it sits on.
        journal: Where the virtual machine's id is noted.
        workdir: For logs and sockets.
        memory_mib: Memory of the guest.
        on_line: Told every line of the console.
        recorder: Records every write of it; None: nothing is recorded.
        supervisor: Who sees its plug and speaks with it; None: the board has none.
        tpm: The board's TPM; None: the board has none.
        board: What its image is for, which says which machine is imitated.

    Attributes:
        boots: How often it was switched on.
        engine_ended_s: When somebody last ended its engine on purpose, monotonic time.
    """

    def __init__(
        self,
        *,
        disk: Path,
        variables: Path,
        topology: Topology,
        journal: Journal,
        workdir: Path,
        memory_mib: int = 1024,
        on_line: Callable[[str], None] = lambda _: None,
        recorder: Recorder | None = None,
        supervisor: Supervisor | None = None,
        tpm: SoftwareTPM | None = None,
        board: str = BOARD,
    ) -> None:
        self._disk = disk
        self._variables = variables
        self._topology = topology
        self._journal = journal
        self._workdir = workdir
        self._memory_mib = memory_mib
        self._recorder = recorder
        self._supervisor = supervisor
        self._tpm = tpm
        self._arch = architecture(load_board(source_tree().boards / board).platform.arch)
        self._machine: Machine | None = None
        self._shell: Shell | None = None
        self._pid: int | None = None
        self._powered_s = 0.0
        self._mark = 0
        self.boots = 0
        self.engine_ended_s = float("-inf")
        workdir.mkdir(parents=True, exist_ok=True)
        self.console = Console(workdir / "console.txt", on_line)

    @property
    def state(self) -> BoxState:
        """The state that the console last told."""
        if self._machine is None or not self.alive:
            return BoxState.OFF
        texts = [line.text for line in self.console.since(self._mark)]
        for state, pattern in ((BoxState.PROTECTING, PROTECTING), (BoxState.FORWARDING, FORWARDING)):
            if any(re.search(pattern, text) for text in texts):
                return state
        return BoxState.BOOTING

    @property
    def alive(self) -> bool:
        """Whether the virtual machine runs."""
        return self._machine is not None and self._machine.is_on

    @property
    def pid(self) -> int | None:
        """Process id of the virtual machine while it is on."""
        return self._pid

    def power_on(self, *, clock: str | None = None) -> None:
        """Switch it on and follow its console.

        Args:
            clock: What the board's clock says (``2020-01-01T00:00:00``); None: the right time.

        Raises:
            BoxError: It is on already.
        """
        if self._machine is not None:
            raise BoxError("the box is on already")
        config = MachineConfig(
            disk=self._disk,
            vars=self._variables,
            memory_mib=self._memory_mib,
            cpus=2,
            ports=(
                PortFd(self._topology.wan_tap, addresses.BOX_WAN_MAC),
                PortFd(self._topology.lan_tap, addresses.BOX_LAN_MAC),
            ),
            workdir=self._workdir,
            supervisor=None if self._supervisor is None else self._supervisor.line,
            tpm=None if self._tpm is None else self._tpm.socket,
            extra=() if clock is None else ("-rtc", f"base={clock}"),
            model=self._arch.model,
        )
        if self._recorder is not None:
            recording = self._recorder.prepare(self._disk, self._variables)
            config = dataclasses.replace(config, disk_log=recording.disk_log, vars_log=recording.vars_log)
        tools = find_tools(source_tree(), Cache(default_directory()), name=self._arch.machine_tree)
        machine = Machine(config, tools)
        self._mark = self.console.mark()
        self._powered_s = time.monotonic()
        self._machine = machine  # before it runs: an interrupted start is ended too
        try:
            if self._tpm is not None:
                self._tpm.start()
                self._journal.add_process(self._tpm.pid, "tpm")
            machine.start()
        except ImageError as err:
            raise BoxError(str(err), hint=err.hint) from err
        if self._supervisor is not None:
            self._supervisor.plug(present=True)
        if self._recorder is not None:
            self._recorder.begin()
        self.boots += 1
        self._pid = machine.pid
        self._journal.add_process(self._pid, "box")
        self.console.attach(machine.console)

    def insert(self, disk: Path, variables: bytes) -> None:
        """Give the box, which is off, another disk's content and other firmware variables.

        Raises:
            BoxError: It is on.
        """
        if self._machine is not None:
            raise BoxError("the box is on")
        self._disk.unlink()
        copy_sparse(disk, self._disk)
        self._variables.write_bytes(variables)

    def cut_power(self) -> None:
        """Take the power away at once; does nothing when it is off."""
        if self._machine is None:
            return
        machine, self._machine = self._machine, None
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        if self._supervisor is not None:
            self._supervisor.plug(present=False)
        machine.kill()
        if self._tpm is not None and self._tpm.is_on:
            pid = self._tpm.pid
            self._tpm.stop()
            self._journal.remove_process(pid)
        if self._recorder is not None:
            self._recorder.end()
        self.console.detach()
        if self._pid is not None:
            self._journal.remove_process(self._pid)
            self._pid = None

    def restarts_by_itself(self) -> int:
        """Say that the guest is about to restart; what was told before no longer counts. Returns a mark for waiting."""
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        self._mark = self.console.mark()
        return self._mark

    def reset(self) -> None:
        """Pull its reset line, which also ends standing still; does nothing when it is off.

        Raises:
            BoxError: The virtual machine does not take it.
        """
        self.restarts_by_itself()
        self._command("system_reset")
        self._command("cont")

    def freeze(self, *, frozen: bool) -> None:
        """Let every processor of it stand still, as a kernel that hangs, or run again.

        Raises:
            BoxError: The virtual machine does not take it.
        """
        self._command("stop" if frozen else "cont")

    def plug(self, port: int, *, is_in: bool) -> None:
        """Pull the cable out of a port, or plug it in again; a start finds all cables in.

        Args:
            port: Counted from zero in PCI order: 0 is `wan`.
            is_in: Whether the cable is in.

        Raises:
            BoxError: The virtual machine does not take it.
        """
        self._command("set_link", name=f"port{port}", up=is_in)

    def _command(self, name: str, /, **values: object) -> None:
        machine = self._machine
        if machine is None:
            return
        try:
            machine.qmp(name, **values)
        except ImageError as err:
            raise BoxError(str(err), hint=err.hint) from err

    def press_button(self) -> None:
        """Press and release the power button.

        Raises:
            BoxError: The box is off, or the virtual machine does not take it.
        """
        if self._machine is None:
            raise BoxError("the box is off")
        self._command("system_powerdown")

    def close(self) -> None:
        """Cut the power and end the console."""
        self.cut_power()
        self.console.close()

    def await_line(self, pattern: str, *, timeout_s: float, since: int | None = None) -> re.Match[str]:
        """Wait for a console line of this power-on, or after a mark."""
        mark = self._mark if since is None else since
        return self.console.wait(pattern, timeout_s=timeout_s, since=mark, alive=lambda: self.alive)[1]

    def await_protecting(self, *, timeout_s: float = _BOOT_TIMEOUT_S) -> BootReport:
        """Wait until the box, which is on, protects.

        A fault of the emulator (seen about once in twenty boots) is tried once more with a new power-on.

        Raises:
            NotReadyError: It did not get there.
            BoxError: The virtual machine ended.
        """
        try:
            return self._await_protecting(timeout_s, retried=False)
        except (BoxError, NotReadyError):
            if not self.emulator_failed():
                raise
        self.cut_power()
        self.power_on()
        return self._await_protecting(timeout_s, retried=True)

    def shell(self, command: str, *, timeout_s: float = 30.0) -> ShellResult:
        """Run a command in the guest (development image only)."""
        if self._machine is None:
            raise BoxError("the box is off")
        if self._shell is None:
            self._shell = Shell(self._machine.shell)
        return self._shell.run(command, timeout_s=timeout_s)

    def _await_protecting(self, timeout_s: float, *, retried: bool) -> BootReport:
        deadline = self._powered_s + timeout_s

        def line(pattern: str) -> tuple[float, re.Match[str]]:
            remaining = max(1.0, deadline - time.monotonic())
            found, match = self.console.wait(
                pattern, timeout_s=remaining, since=self._mark, alive=lambda: self.alive and not self.emulator_failed()
            )
            return found.at_s - self._powered_s, match

        forwarding_s, _ = line(FORWARDING)
        _, release = line(RELEASE)
        protecting_s, protecting = line(PROTECTING)
        return BootReport(
            forwarding_s=forwarding_s,
            protecting_s=protecting_s,
            feed_serial=int(protecting["feed"]),
            version=release["version"],
            flavour=release["flavour"],
            slot=release["slot"],
            retried=retried,
        )

    def emulator_failed(self) -> bool:
        """Say whether this power-on has met a fault of the emulator."""
        return any(_EMULATOR_FAULT.search(line.text) for line in self.console.since(self._mark))
