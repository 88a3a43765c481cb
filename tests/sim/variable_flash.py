"""Flash memory with UEFI variables, written as EDK II writes it: byte by byte, bits only from 1 to 0."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable

from omamori_lab.power_cut.variables import GLOBAL, StoreLayout

SECTOR = 512
_HEADER_LENGTH = 0x48
_STORE_LENGTH = 28
Written = Callable[[int, bytes], None]


class VariableFlash:
    """The memory; `written` is told each write as the emulator logs it, a sector at a time."""

    def __init__(self, written: Written = lambda _offset, _data: None) -> None:
        layout = StoreLayout()
        self.layout = layout
        self.written = written
        self.data = bytearray(b"\xff" * (layout.spare + 0x42000))
        kind = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le
        header = struct.pack(
            "<16s16sQ4sIHHHBBIIQ", bytes(16), kind, len(self.data), b"_FVH", 0, _HEADER_LENGTH, 0, 0, 0, 2, 132, 4096, 0
        )
        total = -sum(struct.unpack(f"<{_HEADER_LENGTH // 2}H", header)) & 0xFFFF
        self.data[:_HEADER_LENGTH] = header[:50] + struct.pack("<H", total) + header[52:]
        store = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
        size = layout.store - _HEADER_LENGTH
        self.data[_HEADER_LENGTH : _HEADER_LENGTH + _STORE_LENGTH] = struct.pack(
            "<16sIBBHI", store, size, 0x5A, 0xFE, 0, 0
        )
        work = uuid.UUID("9e58292b-7c68-497d-a0ce-6500fd9f1b95").bytes_le
        self.data[layout.work : layout.work + 32] = struct.pack("<16sIB3xQ", work, 0, 0xFE, layout.work_size - 32)
        self._end = _HEADER_LENGTH + _STORE_LENGTH
        self._places: dict[str, int] = {}

    def put(self, at: int, data: bytes) -> None:
        """Write bytes, one after the other."""
        for number, byte in enumerate(data):
            self.data[at + number] &= byte
            sector = (at + number) // SECTOR * SECTOR
            self.written(sector, bytes(self.data[sector : sector + SECTOR]))

    def set(self, name: str, value: bytes) -> None:
        """Write a variable: header, content, valid, and only then the one before goes."""
        text = name.encode("utf-16-le") + b"\0\0"
        at, before = self._end, self._places.get(name)
        header = struct.pack("<HBBIQ16sIII", 0x55AA, 0xFF, 0, 7, 0, bytes(16), 0, len(text), len(value))
        if before is not None:
            self.put(before + 2, b"\xfe")
        self.put(at, header + GLOBAL.bytes_le)
        self.put(at + 2, b"\x7f")
        self.put(at + 60, text + value)
        self.put(at + 2, b"\x3f")
        if before is not None:
            self.put(before + 2, b"\xfc")
        self._places[name] = at
        self._end = -(-(at + 60 + len(text) + len(value)) // 4) * 4

    def remove(self, name: str) -> None:
        """Mark a variable as deleted."""
        self.put(self._places.pop(name) + 2, b"\xfd")

    def begin_rewrite(self) -> None:
        """Begin a fault-tolerant write of the whole store: what it is about stands in the queue."""
        at = self.layout.work + 32
        self.put(at, b"\xfe")
        self.put(at + 24, struct.pack("<QQ", 1, 0))
        self.put(at + 40 + 8, struct.pack("<QQQq", 0, _HEADER_LENGTH, self.layout.store - _HEADER_LENGTH, 0))
        self.put(at, b"\xfc")

    def fill_spare(self, content: bytes) -> None:
        """Let the spare block hold the new store."""
        self.data[self.layout.spare : self.layout.spare + len(content)] = content

    def mark_spare(self) -> None:
        """Say that the spare block is whole."""
        self.put(self.layout.work + 32 + 40, b"\xfd")

    def mark_arrived(self) -> None:
        """Say that the store is what the spare block was."""
        self.put(self.layout.work + 32 + 40, b"\xf9")
