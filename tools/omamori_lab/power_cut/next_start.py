"""What a machine does at its next start, without starting one.

The machine's firmware chooses by its variables; then the box's own boot chooser, the very program of the image, is run
on a directory that has these variables and these files of the data partition.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omamori_firmware import disk, gpt, installer
from omamori_hw.board import Disk
from omamori_lab import run
from omamori_lab.errors import LabError

from .variables import GLOBAL, Variable, VariableStore

_TIMEOUT_S = 30.0
_ACTIVE = 1
_CATEGORY, _BOOT_CATEGORY = 0x1F00, 0
_MEDIA, _PARTITION, _END = 4, 1, 0x7F
_SUPERBLOCK = 2048  # of a root file system: as much as the chooser looks at


@dataclasses.dataclass(frozen=True)
class Start:
    """A start as the box sees it.

    Attributes:
        slot: Which slot the machine's firmware has started.
        told: Content of `boot.json`.
        exit_codes: Of the chooser's `starting` and `boot`.
    """

    slot: str
    told: dict[str, Any]
    exit_codes: tuple[int | None, int | None]


def entry_partition(option: bytes) -> uuid.UUID | None:
    """Return the identifier of the partition that a firmware's entry names (EFI_LOAD_OPTION); None: it names none."""
    at = 6
    while at + 2 <= len(option) and option[at : at + 2] != b"\0\0":
        at += 2
    at += 2
    while at + 4 <= len(option):
        kind, subtype, length = struct.unpack_from("<BBH", option, at)
        if kind == _END or length < 4 or at + length > len(option):
            return None
        if (kind, subtype) == (_MEDIA, _PARTITION) and length >= 42:
            return uuid.UUID(bytes_le=option[at + 24 : at + 40])
        at += length
    return None


class Chooser:
    """Plays starts.

    Args:
        program: The boot chooser, compiled for this machine.
        sizes: Of the disk's partitions.
        work: A directory of its own.
    """

    def __init__(self, program: Path, sizes: Disk, work: Path) -> None:
        self._program = program
        self._sizes = sizes
        self._top = work / "machine"
        self._slots = {disk.guid(f"slot_{letter.lower()}"): letter for letter in "AB"}

    @classmethod
    def build(cls, source: Path, sizes: Disk, work: Path) -> Chooser:
        """Compile the program first."""
        installer.build_chooser(work, source=source)
        return cls(work / installer.CHOOSER, sizes, work)

    def firmware_choice(self, store: VariableStore) -> str:
        """Return the slot that the machine's firmware starts; without any entry, the first that has a loader."""
        once = store.boot_next()
        for number in [*([once] if once is not None else []), *store.boot_order()]:
            option = store.entry(number)
            if option is None or len(option) < 8:
                continue
            attributes = int.from_bytes(option[:4], "little")
            if not attributes & _ACTIVE or attributes & _CATEGORY != _BOOT_CATEGORY:
                continue
            partition = entry_partition(option)
            if partition in self._slots:
                return self._slots[partition]
        return "A"

    def place(self, store: VariableStore, files: Mapping[str, bytes], superblocks: Mapping[str, bytes]) -> None:
        """Make a machine that is switched off.

        Args:
            store: Its variables.
            files: Of its data partition, below ``/var/lib/omamori``.
            superblocks: Slot letter to the beginning of its root file system.
        """
        shutil.rmtree(self._top, ignore_errors=True)
        top = self._top
        for name in ("usr/lib/omamori/slots", "dev/omamori", "run/omamori", "var/lib/omamori/boot"):
            (top / name).mkdir(parents=True)
        (top / "usr/lib/omamori/slots/partitions").write_text(installer.partition_file())
        (top / "usr/lib/omamori/data-version").write_text("1\n")
        for number, partition in enumerate(disk.layout(self._sizes), start=1):
            (top / "dev/omamori" / partition.name).symlink_to(f"/dev/vda{number}")
            facts = top / f"sys/class/block/vda{number}"
            facts.mkdir(parents=True)
            values = {"partition": number, "start": partition.start // gpt.SECTOR, "size": partition.size // gpt.SECTOR}
            for name, value in values.items():
                (facts / name).write_text(f"{value}\n")
        for letter, content in superblocks.items():
            path = top / f"dev/omamori/root_{letter.lower()}"
            path.unlink()
            path.write_bytes(content)
        for name, content in files.items():
            if name.startswith(("boot/", "migration/")):
                path = top / "var/lib/omamori" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self._variables.mkdir(parents=True)
        for (vendor, name), variable in store.variables.items():
            if vendor == GLOBAL:
                content = struct.pack("<I", variable.attributes) + variable.data
                self._variable(name).write_bytes(content)

    def start(self) -> Start:
        """Switch the machine on, as far as the agent.

        Raises:
            LabError: The chooser told nothing.
        """
        store = self._store()
        slot = self.firmware_choice(store)
        self._variable("BootNext").unlink(missing_ok=True)  # the firmware takes it before it starts anything
        shutil.rmtree(self._top / "run/omamori/boot", ignore_errors=True)
        (self._top / "run/omamori/slot").write_text(f"{slot}\n")
        codes = [
            run.run([self._program, "--root", self._top, word], timeout_s=_TIMEOUT_S, check=False).exit_code
            for word in ("starting", "boot")
        ]
        try:
            told = json.loads((self._top / "run/omamori/boot/boot.json").read_text())
        except (OSError, ValueError) as err:
            raise LabError(f"the boot chooser told nothing in slot {slot}: {err}") from err
        return Start(slot, told, (codes[0], codes[1]))

    def settle(self) -> None:
        """Let the present start get somewhere."""
        run.run([self._program, "--root", self._top, "settled"], timeout_s=_TIMEOUT_S)

    def superblock(self, path: Path, letter: str) -> bytes:
        """Read from a disk what the chooser looks at."""
        with path.open("rb") as stream:
            stream.seek(disk.find(self._sizes, f"root_{letter.lower()}").start)
            return stream.read(_SUPERBLOCK)

    @property
    def _variables(self) -> Path:
        return self._top / "sys/firmware/efi/efivars"

    def _variable(self, name: str) -> Path:
        return self._variables / f"{name}-{GLOBAL}"

    def _store(self) -> VariableStore:
        found = {}
        for path in self._variables.iterdir():
            content = path.read_bytes()
            name = path.name.removesuffix(f"-{GLOBAL}")
            found[GLOBAL, name] = Variable(int.from_bytes(content[:4], "little"), content[4:])
        return VariableStore(found)
