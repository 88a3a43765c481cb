"""A small box, recorded: a disk with two slots and a data partition, variables, and everything written to both."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess  # noqa: TID251 - makes and changes a file system
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omamori_firmware import disk
from omamori_firmware.recipe import source_tree
from omamori_hw.board import Disk, load_board
from omamori_lab.power_cut import Clock, Recording
from omamori_lab.power_cut.judge import Judge, Update
from omamori_lab.power_cut.next_start import Chooser
from omamori_lab.power_cut.variables import GLOBAL, VariableStore
from sim.variable_flash import VariableFlash

SECTOR = 512
_FLUSH, _FORCED = 1, 2
SIZES = Disk(slot_mib=1, root_mib=1, verity_mib=1, data_mib=16)
VERSIONS = {"A": "1.0.0", "B": "1.1.0"}
RECORD = {
    "format": 1, "state": 0, "version": "", "reason": 0, "detail": "", "sha256": "", "length": 0,
    "is_important": False, "trials": 0, "installs": 0, "boot_id": "", "waited_s": 0, "was_connected": False,
    "verdict": 0, "is_told": True, "refused": [],
}  # fmt: skip


class LogFile:
    """A log as QEMU writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(struct.pack("<QQQI", 0x6A736677736872, 1, 0, SECTOR).ljust(SECTOR, b"\0"))

    def add(self, offset: int, data: bytes, flags: int = 0) -> None:
        """Add a request."""
        head = struct.pack("<QQQQ", offset // SECTOR, len(data) // SECTOR, flags, 0).ljust(SECTOR, b"\0")
        with self.path.open("ab") as stream:
            stream.write(head + data)


class World:
    """Everything that is written goes into the logs; a test says in which order.

    Args:
        top: A directory of its own.
        program: The boot chooser, compiled.
    """

    def __init__(self, top: Path, program: Path) -> None:
        self.top = top
        self.recording = Recording(top / "recording")
        self.recording.directory.mkdir()
        self.program = program
        self.releases = {letter: self._release(letter) for letter in VERSIONS}
        self._tree = top / "tree"
        self._data = top / "data.img"
        self._make_data()
        contents = {"slot_a": "boot.vfat", "root_a": "root.erofs", "verity_a": "root.verity"}
        placed = {name: self.releases["A"] / file for name, file in contents.items()}
        disk.write_disk(self.recording.disk, SIZES, {**placed, "data": self._data})
        self.disk_log = LogFile(self.recording.disk_log)
        vars_log = LogFile(self.recording.vars_log)
        self.flash = VariableFlash()
        for (_, name), variable in sorted(self._first_entries().variables.items(), key=str):
            self.flash.set(name, variable.data)
        self.recording.variables.write_bytes(self.flash.data)
        self._clock = Clock()

        def written(offset: int, data: bytes) -> None:
            vars_log.add(offset, data)
            self._clock.look(self.recording.disk_log, self.recording.vars_log)

        self.flash.written = written

    def write(self, name: str, data: bytes) -> None:
        """Write to the beginning of a partition."""
        self.disk_log.add(disk.find(SIZES, name).start, data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0"))
        self._clock.look(self.recording.disk_log, self.recording.vars_log)

    def flush(self) -> None:
        self.disk_log.add(0, b"", _FLUSH)
        self._clock.look(self.recording.disk_log, self.recording.vars_log)

    def install(self, share: float = 1.0) -> None:
        """Write the new version into slot B, or the beginning of each part of it."""
        for name, file in (("slot_b", "boot.vfat"), ("root_b", "root.erofs"), ("verity_b", "root.verity")):
            data = (self.releases["B"] / file).read_bytes()
            self.write(name, data[: int(len(data) * share)])

    def keep(self, files: Mapping[str, bytes | None]) -> None:
        """Change files below /var/lib/omamori, whole or not at all; None removes one."""
        before = self._data.read_bytes()
        lines = []
        for name, content in files.items():
            place = f"/lib/omamori/{name}"
            lines.append(f"rm {place}")
            if content is not None:
                source = self.top / f"content-{len(lines)}"
                source.write_bytes(content)
                lines.append(f"write {source} {place}")
        line = ["/usr/sbin/debugfs", "-w", "-f", "-", self._data]
        subprocess.run(line, input="\n".join(lines).encode(), check=True, capture_output=True)
        after = self._data.read_bytes()
        start = disk.find(SIZES, "data").start
        for at in range(0, len(after), 4096):
            if before[at : at + 4096] != after[at : at + 4096]:
                self.disk_log.add(start + at, after[at : at + 4096], _FORCED)

    def record(self, **changes: object) -> bytes:
        """Return the agent's record of the update to B."""
        return json.dumps(RECORD | {"version": VERSIONS["B"]} | changes).encode()

    def boot_next(self, letter: str) -> None:
        self.flash.set("BootNext", struct.pack("<H", self.numbers[letter]))

    def boot_order(self, letters: str) -> None:
        self.flash.set("BootOrder", b"".join(struct.pack("<H", self.numbers[letter]) for letter in letters))

    def judge(self) -> Judge:
        """End the recording."""
        self._clock.write(self.recording.directory)
        work = self.top / "judge"
        work.mkdir()
        board = replace(load_board(source_tree().boards / "x86_64-uefi"), disk=SIZES)
        chooser = Chooser(self.program, SIZES, work)
        return Judge(self.recording, Update(board, self.releases, VERSIONS), chooser, work)

    def _release(self, letter: str) -> Path:
        place = self.top / letter
        place.mkdir()
        for name, size in (("boot.vfat", 64 << 10), ("root.erofs", 512 << 10), ("root.verity", 16 << 10)):
            (place / name).write_bytes(os.urandom(size))
        with (place / "root.erofs").open("r+b") as stream:
            stream.seek(1024)
            stream.write(b"\xe2\xe1\xf5\xe0")
        return place

    def _make_data(self) -> None:
        state = self._tree / "lib/omamori"
        for name in ("boot", "firmware", "spool", "desired", "identity", "migration", "feed", "address"):
            (state / name).mkdir(parents=True)
        (state / "boot/committed").write_text("A\n")
        (state / "firmware/state.json").write_bytes(json.dumps(RECORD).encode())
        self._data.write_bytes(bytes(SIZES.data_mib << 20))
        line = ["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-d", self._tree, self._data]
        subprocess.run(line, check=True, capture_output=True)

    def _first_entries(self) -> VariableStore:
        """Let the box make its entries, as at its first start."""
        work = self.top / "first"
        work.mkdir()
        chooser = Chooser(self.program, SIZES, work)
        chooser.place(VariableStore({}), {"boot/committed": b"A\n"}, {"A": b"", "B": b""})
        chooser.start()
        store = chooser._store()
        names = {letter: f"omamori-{letter}".encode("utf-16-le") for letter in VERSIONS}
        self.numbers = {
            letter: int(name[4:], 16)
            for (_, name), variable in store.variables.items()
            for letter, text in names.items()
            if text in variable.data
        }
        shutil.rmtree(work)
        assert (GLOBAL, "BootOrder") in store.variables
        return store
