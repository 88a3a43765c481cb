"""The log of everything that a virtual machine wrote to a disk, in the order in which it asked for it.

QEMU's driver `blklogwrites` writes it in the format of the kernel's dm-log-writes (Documentation/admin-guide/
device-mapper/log-writes.rst): a superblock in the first sector, then each entry in a sector of its own, followed by
the bytes it wrote. Numbers are little-endian. The superblock's count is only renewed now and then, so the end of the
log is where the next entry makes no sense, or where the file ends: a killed QEMU leaves such a log.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from omamori_lab.errors import LabError

_MAGIC = 0x6A736677736872
_VERSION = 1
_SUPERBLOCK = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_SECTOR_SIZES = (512, 4096)
MAX_ENTRIES = 5_000_000


class Flag(enum.IntFlag):
    """What an entry is, besides a write."""

    FLUSH = 1  # what came before is on the disk
    FUA = 2  # this one is on the disk when it is done
    DISCARD = 4
    MARK = 8
    METADATA = 16


@dataclasses.dataclass(frozen=True)
class Entry:
    """One request.

    Attributes:
        number: Position in the log, from 0.
        offset: First byte on the disk.
        length: How many bytes; 0 for a flush alone.
        flags: What it is.
        data_offset: Where its bytes are in the log's file; it has none if it is a flush or a discard.
    """

    number: int
    offset: int
    length: int
    flags: Flag
    data_offset: int

    @property
    def is_barrier(self) -> bool:
        """Whether the machine was told that everything before this is on the disk; not yet what this one writes."""
        return bool(self.flags & Flag.FLUSH)

    @property
    def is_discard(self) -> bool:
        """Whether it gives its place away; the log has no bytes for it."""
        return bool(self.flags & Flag.DISCARD)

    @property
    def changes(self) -> bool:
        """Whether it changes bytes of the disk."""
        return self.length > 0 and not self.flags & Flag.MARK


class WriteLog:
    """A log in a file, read as a stream: it may be larger than memory.

    Raises:
        LabError: The file is no such log, or has more than `MAX_ENTRIES` entries.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            head = stream.read(_SUPERBLOCK.size)
        if len(head) < _SUPERBLOCK.size:
            raise LabError(f"{path.name} is no log of writes: too short")
        magic, version, self._counted, self.sector_size = _SUPERBLOCK.unpack(head)
        if magic != _MAGIC or version != _VERSION or self.sector_size not in _SECTOR_SIZES:
            raise LabError(f"{path.name} is no log of writes")

    def entries(self) -> Iterator[Entry]:
        """Walk over the requests in their order."""
        size = self.path.stat().st_size
        with self.path.open("rb") as stream:
            position, number = self.sector_size, 0
            while (entry := self._read(stream, number, position, size)) is not None:
                if number >= MAX_ENTRIES:
                    raise LabError(f"{self.path.name} has more than {MAX_ENTRIES} entries")
                yield entry
                has_data = entry.length and not entry.flags & Flag.DISCARD
                position = entry.data_offset + (_padded(entry.length, self.sector_size) if has_data else 0)
                number += 1

    def read(self, entry: Entry) -> bytes:
        """Return the bytes that are on the disk after a request: what it wrote, zeros if it gave the place away."""
        if entry.flags & Flag.DISCARD:
            return bytes(entry.length)
        with self.path.open("rb") as stream:
            stream.seek(entry.data_offset)
            return stream.read(entry.length)

    def _read(self, stream: BinaryIO, number: int, position: int, size: int) -> Entry | None:
        stream.seek(position)
        raw = stream.read(_ENTRY.size)
        if len(raw) < _ENTRY.size:
            return None
        sector, sectors, flags, data_length = _ENTRY.unpack(raw)
        if not (sector or sectors or flags or data_length) or flags >= Flag.METADATA << 1:
            return None  # never written: the log ends here
        length = sectors * self.sector_size
        data_offset = position + self.sector_size
        if not flags & Flag.DISCARD and data_offset + length > size:
            return None  # QEMU was killed while it wrote this one
        return Entry(number, sector * self.sector_size, length, Flag(flags), data_offset)


def _padded(length: int, sector_size: int) -> int:
    return -(-length // sector_size) * sector_size
