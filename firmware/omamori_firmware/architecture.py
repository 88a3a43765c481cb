"""What differs between the processors that the image is made for, as one table.

A board names its processor; everything else that follows from it stands here, so that the stages of the build read
values and ask no questions. The developer's machine is always x86-64: for another processor there is a tree with a
compiler and an emulator (`cross_tree`), and one with that processor's own files (`target_tree`).
"""

import uuid
from dataclasses import dataclass

from omamori_firmware.errors import SetupError
from omamori_firmware.tools import STAGE


@dataclass(frozen=True)
class MachineModel:
    """How QEMU imitates a box of a processor.

    Attributes:
        program: QEMU's program for the processor.
        machine: Its machine, which takes the boot firmware from the drives `code` and `vars`.
        cpu: Processor model.
        firmware: The boot firmware's code in the tree that holds the program.
        empty_variables: The same firmware's variables with nothing enrolled.
        settings: Arguments that only this machine needs.
        supervisor_port: The serial port to a supervisor, from the character device `supervisor`; None where no board of
            this processor has one.
        tpm: The TPM behind the emulator `tpm`; None where Debian's kernel for this processor has no driver of QEMU's.
    """

    program: str
    machine: str
    cpu: str
    firmware: str
    empty_variables: str
    settings: tuple[str, ...]
    supervisor_port: str | None = None
    tpm: str | None = None


@dataclass(frozen=True)
class Architecture:
    """One kind of processor.

    Attributes:
        name: Its name, as boards and the kernel call it.
        debian: Debian's name.
        root_lock: Name of the lock of the root file system's packages.
        target_tree: Package list of the tree with files for this processor: initrd's programs, stub, libraries.
        cross_tree: Package list of the tree with compiler and emulators; None where that
            is this machine's own.
        compiler: The C compiler's program.
        emulator: Program of the cross tree that runs this processor's programs; None where it needs none.
        elf_machine: Number of the processor in its programs.
        elf_libraries: What libelf needs when it is linked statically: Debian 13's reads one more kind of compression
            than Debian 12's.
        loader: Where its programs expect the dynamic loader.
        stub: systemd's stub of the kernel image, in the target tree.
        boot_file: Name under which the boot firmware looks for a system.
        root_type: Partition type of a root file system.
        verity_type: Partition type of its hash tree.
        model: The machine in QEMU.
    """

    name: str
    debian: str
    root_lock: str
    target_tree: str
    cross_tree: str | None
    compiler: str
    emulator: str | None
    elf_machine: int
    elf_libraries: tuple[str, ...]
    loader: str
    stub: str
    boot_file: str
    root_type: uuid.UUID
    verity_type: uuid.UUID
    model: MachineModel

    @property
    def triplet(self) -> str:
        """Name of its directories of libraries."""
        return f"{self.name}-linux-gnu"

    @property
    def machine_tree(self) -> str:
        """Package list of the tree that holds QEMU for this processor and its boot firmware."""
        return self.cross_tree or STAGE


X86_64 = Architecture(
    name="x86_64",
    debian="amd64",
    root_lock="root",
    target_tree=STAGE,
    cross_tree=None,
    compiler="gcc",
    emulator=None,
    elf_machine=62,
    elf_libraries=("z",),
    loader="/usr/lib64/ld-linux-x86-64.so.2",
    stub="/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
    boot_file="BOOTX64.EFI",
    root_type=uuid.UUID("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
    verity_type=uuid.UUID("2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5"),
    model=MachineModel(
        program="qemu-system-x86_64",
        machine="q35,smm=on",
        # Five-level paging is off because emulating it costs time and gives nothing.
        cpu="max,la57=off",
        firmware="/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        empty_variables="/usr/share/OVMF/OVMF_VARS_4M.fd",
        # The firmware may write its variables only from system management mode.
        settings=(
            *("-global", "driver=cfi.pflash01,property=secure,value=on"),
            *("-global", "ICH9-LPC.disable_s3=1"),
        ),
        # An interrupt of its own: the third port's usual one is the first port's, too.
        supervisor_port="isa-serial,chardev=supervisor,index=2,iobase=0x3e8,irq=5",
        tpm="tpm-tis,tpmdev=tpm",
    ),
)
AARCH64 = Architecture(
    name="aarch64",
    debian="arm64",
    root_lock="root-aarch64",
    target_tree="target-aarch64",
    cross_tree="cross-aarch64",
    compiler="aarch64-linux-gnu-gcc",
    emulator="/usr/bin/qemu-aarch64",
    elf_machine=183,
    elf_libraries=("z", "zstd"),
    loader="/usr/lib/ld-linux-aarch64.so.1",
    stub="/usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
    boot_file="BOOTAA64.EFI",
    root_type=uuid.UUID("B921B045-1DF0-41C3-AF44-4C6F280D3FAE"),
    verity_type=uuid.UUID("DF3300CE-D69F-4C92-978C-9BFB0F38D820"),
    model=MachineModel(
        program="qemu-system-aarch64",
        machine="virt,gic-version=3",
        # Has the instructions for atomics and ciphers; pointer authentication of newer ones is slow to emulate.
        cpu="cortex-a76",
        firmware="/usr/share/AAVMF/AAVMF_CODE.secboot.fd",
        empty_variables="/usr/share/AAVMF/AAVMF_VARS.fd",
        settings=(),
    ),
)
_ALL = {item.name: item for item in (X86_64, AARCH64)}


def architecture(name: str) -> Architecture:
    """Return the processor that a board names.

    Raises:
        SetupError: Nothing is known of it.
    """
    found = _ALL.get(name)
    if found is None:
        raise SetupError(f"nothing is known of the processor {name!r}", hint=f"known are: {', '.join(sorted(_ALL))}")
    return found
