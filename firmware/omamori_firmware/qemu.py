"""An image in a virtual machine: UEFI with Secure Boot, two serial consoles, network ports by file descriptor.

The machine is as near to the box as emulation gets, and runs without KVM. Nothing of the host's network is
touched: whoever wants ports makes tap devices where they belong and hands over open descriptors.

Rules:
- `pid` is QEMU's own, so that its memory and processor time can be read; killing it is a power cut.
- The two consoles are pseudo-terminals that are open before the first instruction runs, and the first one is also
  written to `console.log`, so that no line is lost.
- Ports sit at fixed PCI addresses in the order they are given: the first is `wan`.
"""

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from omamori_firmware.architecture import X86_64, MachineModel
from omamori_firmware.emulator import Emulator
from omamori_firmware.errors import SetupError
from omamori_firmware.files import copy_sparse
from omamori_firmware.tools import ToolsTree

_FIRST_PORT_SLOT = 0x10
MAX_PORTS = 8
_NAMESPACE = uuid.UUID("6F6D616D-6F72-4900-8000-000000000020")


@dataclass(frozen=True)
class PortFd:
    """A network port.

    Attributes:
        fd: Open, inheritable-by-us descriptor of a tap device (with IFF_VNET_HDR).
        mac: Address the guest sees.
    """

    fd: int
    mac: str


@dataclass(frozen=True)
class MachineConfig:
    """What the machine consists of.

    Attributes:
        disk: Raw disk; written to.
        vars: The firmware's variables; written to.
        workdir: Directory for sockets and logs; made if absent.
        ports: Network ports, `wan` first.
        memory_mib: Memory.
        cpus: Processors.
        cpu: Processor; by default the model's own.
        identity: Hardware identifier; by default made from the first port's address.
        watchdog: What the hardware watchdog does when it is not fed: QEMU's `-action watchdog=`.
        disk_log: Where to log every write to the disk, in the format of dm-log-writes; None: nowhere.
        vars_log: The same for the firmware's variables.
        supervisor: Unix socket of the line to a supervisor, on the third serial port; None: there is no such port.
        tpm: Unix socket of the board's TPM, which has its power already; None: it has none.
        extra: More QEMU arguments.
        extra_paths: More directories that QEMU has to see.
        model: The kind of machine, from the board's processor.
    """

    disk: Path
    vars: Path
    workdir: Path
    ports: Sequence[PortFd] = ()
    memory_mib: int = 1024
    cpus: int = 2
    cpu: str | None = None
    identity: uuid.UUID | None = None
    watchdog: str = "reset"
    disk_log: Path | None = None
    vars_log: Path | None = None
    supervisor: Path | None = None
    tpm: Path | None = None
    extra: Sequence[str] = ()
    extra_paths: Sequence[Path] = ()
    model: MachineModel = X86_64.model

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if len(self.ports) > MAX_PORTS:
            raise SetupError(f"a machine has at most {MAX_PORTS} ports")
        if self.supervisor is not None and self.model.supervisor_port is None:
            raise SetupError(f"{self.model.program} imitates no board with a supervisor")
        if self.tpm is not None and self.model.tpm is None:
            raise SetupError(f"{self.model.program} imitates no board with a TPM")


def arguments(config: MachineConfig) -> list[str]:
    """Return QEMU's arguments for a machine."""
    identity = config.identity or uuid.uuid5(_NAMESPACE, config.ports[0].mac if config.ports else str(config.workdir))
    work = config.workdir
    model = config.model
    line = [model.program, "-name", f"omamori-{identity}", "-nodefaults", "-no-user-config", "-display", "none"]
    line += [
        "-machine",
        f"{model.machine},pflash0=code,pflash1=vars",
        "-accel",
        "tcg,thread=multi,tb-size=256",
        "-cpu",
        config.cpu or model.cpu,
    ]
    line += ["-m", str(config.memory_mib), "-smp", str(config.cpus), "-uuid", str(identity)]
    line += model.settings
    line += ["-blockdev", f"driver=file,node-name=code,read-only=on,filename={model.firmware}"]
    line += _block("vars", config.vars, config.vars_log)
    line += _block("disk", config.disk, config.disk_log)
    # The logging driver adds two parts to a request, and the host takes 1024: QEMU may not join the guest's requests
    # to as many as that before it logs them (it would answer them with an error of the disk).
    merging = "" if config.disk_log is None else ",request-merging=off"
    line += ["-device", f"virtio-blk-pci,drive=disk,bootindex=1,addr=0x4{merging}"]
    line += ["-device", "virtio-rng-pci,addr=0x5"]
    line += ["-device", "i6300esb,addr=0x6", "-action", f"watchdog={config.watchdog}"]
    for position, port in enumerate(config.ports):
        line += ["-netdev", f"tap,id=port{position},fd={port.fd}"]
        address = f"addr={_FIRST_PORT_SLOT + position:#x}"
        line += ["-device", f"virtio-net-pci,netdev=port{position},mac={port.mac},romfile=,{address}"]
    line += ["-chardev", f"pty,id=console,logappend=on,logfile={_plain(work / 'console.log')}"]
    line += ["-serial", "chardev:console", "-chardev", "pty,id=shell", "-serial", "chardev:shell"]
    if config.supervisor is not None:
        line += ["-chardev", f"socket,id=supervisor,path={_plain(config.supervisor)},reconnect=1"]
        line += ["-device", str(model.supervisor_port)]
    if config.tpm is not None:
        line += ["-chardev", f"socket,id=tpm-control,path={_plain(config.tpm)}"]
        line += ["-tpmdev", "emulator,id=tpm,chardev=tpm-control", "-device", str(model.tpm)]
    return [*line, *config.extra]


def _block(name: str, path: Path, log: Path | None) -> list[str]:
    """Return the arguments for a raw block device; with a log, the guest talks to the driver that writes it."""
    node = name if log is None else f"{name}-file"
    line = ["-blockdev", f"driver=file,node-name={node},discard=unmap,filename={_plain(path)}"]
    if log is not None:
        # The log need not survive the end of this machine: it is not flushed with every flush of the guest.
        line += ["-blockdev", f"driver=file,node-name={name}-log,cache.no-flush=on,filename={_plain(log)}"]
        line += ["-blockdev", f"driver=blklogwrites,node-name={name},file={node},log={name}-log,discard=unmap"]
    return line


class Machine:
    """One virtual machine; usable as a context manager that ends it."""

    def __init__(self, config: MachineConfig, tools: ToolsTree) -> None:
        """Remember what to start; nothing runs yet.

        Args:
            config: The machine.
            tools: Supplies QEMU and its firmware.
        """
        self.config = config
        self._emulator = Emulator("the machine", config.workdir, tools)

    def __enter__(self) -> Self:
        """Start the machine."""
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        """End the machine."""
        self.stop()

    def start(self) -> None:
        """Switch the machine on.

        Raises:
            MachineError: QEMU did not start; its own words are in the message.
        """
        config = self.config
        config.workdir.mkdir(parents=True, exist_ok=True)
        for record in filter(None, (config.disk_log, config.vars_log)):
            record.write_bytes(b"")  # QEMU begins it anew at each start, but it has to be there
        beside = (config.disk, config.vars, config.disk_log, config.vars_log, config.supervisor, config.tpm)
        self._emulator.start(
            arguments(config),
            binds=[path.parent for path in beside if path] + list(config.extra_paths),
            consoles=("console", "shell"),
            pass_fds=[port.fd for port in config.ports],
        )
        try:
            self._emulator.command("cont")
        except BaseException:
            self.kill()
            raise

    @property
    def console(self) -> str:
        """Path of the first serial console, where the box prints."""
        return self._emulator.console("console")

    @property
    def shell(self) -> str:
        """Path of the second serial console, a root shell on development images."""
        return self._emulator.console("shell")

    @property
    def console_log(self) -> Path:
        """File with everything the first console ever showed."""
        return self.config.workdir / "console.log"

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._emulator.pid

    @property
    def is_on(self) -> bool:
        """Say whether QEMU runs."""
        return self._emulator.is_on

    def qmp(self, name: str, /, **values: Any) -> Any:
        """Send a QMP command and return its result.

        Raises:
            MachineError: The machine is off, or QEMU refused.
        """
        return self._emulator.command(name, **values)

    def kill(self) -> None:
        """Cut the power: nothing in the machine gets to finish anything."""
        self._emulator.kill()

    def stop(self) -> None:
        """End QEMU in good order (for the box inside this is a power cut as well)."""
        self._emulator.stop()

    def wait_off(self, timeout_s: float) -> bool:
        """Wait until QEMU has ended by itself; say whether it did."""
        return self._emulator.wait_off(timeout_s)


def prepare(artifacts: Path, workdir: Path, *, disk: Path | None = None) -> tuple[Path, Path]:
    """Copy an image's disk and variables to where a machine may write to them.

    Args:
        artifacts: Artifact directory of a build.
        workdir: Directory for the copies; made if absent.
        disk: A personalised disk instead of the artifacts' own.

    Returns:
        The copies: disk, variables.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    own_disk, own_vars = workdir / "disk.raw", workdir / "vars.fd"
    for path in (own_disk, own_vars):
        path.unlink(missing_ok=True)
    copy_sparse(disk or artifacts / "disk.raw", own_disk)
    shutil.copyfile(artifacts / "vars.fd", own_vars)
    return own_disk, own_vars


def _plain(path: Path) -> str:
    text = str(path.resolve())
    return text.replace(",", ",,")
