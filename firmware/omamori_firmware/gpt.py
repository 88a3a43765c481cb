"""Partition tables, written as bytes: no loop device, no kernel, no tool, and the same bytes every time."""

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

SECTOR = 512
MIB = 1 << 20
_ENTRY_COUNT = 128
_ENTRY_SIZE = 128
_TABLE_SECTORS = _ENTRY_COUNT * _ENTRY_SIZE // SECTOR


@dataclass(frozen=True)
class Partition:
    """One partition.

    Attributes:
        name: Its name in the table (up to 36 characters).
        kind: Type identifier.
        guid: Its own identifier.
        start: First byte.
        size: Bytes.
    """

    name: str
    kind: uuid.UUID
    guid: uuid.UUID
    start: int
    size: int


def lay_out(sizes: Sequence[tuple[str, uuid.UUID, uuid.UUID, int]]) -> list[Partition]:
    """Place partitions one after the other from 1 MiB on.

    Args:
        sizes: Name, type, identifier and size in MiB of each.
    """
    partitions = []
    start = MIB
    for name, kind, guid, size_mib in sizes:
        partitions.append(Partition(name, kind, guid, start, size_mib * MIB))
        start += size_mib * MIB
    return partitions


def tables(partitions: Sequence[Partition], disk_guid: uuid.UUID, disk_size: int) -> tuple[bytes, bytes]:
    """Return the bytes of the table at the disk's beginning (with protective MBR) and of its copy at the end.

    Args:
        partitions: In the order of their numbers.
        disk_guid: Identifier of the disk.
        disk_size: Bytes, a multiple of the sector size.

    Raises:
        ValueError: A partition overlaps another or the tables, or a name is too long.
    """
    sectors = disk_size // SECTOR
    first, last = 2 + _TABLE_SECTORS, sectors - 2 - _TABLE_SECTORS
    position = first * SECTOR
    for partition in partitions:
        if partition.start < position or partition.start % SECTOR or partition.size % SECTOR:
            raise ValueError(f"partition {partition.name} overlaps or is not aligned")
        position = partition.start + partition.size
    if position > (last + 1) * SECTOR or len(partitions) > _ENTRY_COUNT:
        raise ValueError("the partitions do not fit on the disk")
    table = b"".join(_entry(partition) for partition in partitions).ljust(_ENTRY_COUNT * _ENTRY_SIZE, b"\0")

    def header(own: int, other: int, table_at: int) -> bytes:
        def pack(crc: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII",
                b"EFI PART",
                0x00010000,
                92,
                crc,
                0,
                own,
                other,
                first,
                last,
                disk_guid.bytes_le,
                table_at,
                _ENTRY_COUNT,
                _ENTRY_SIZE,
                zlib.crc32(table),
            )

        return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")

    head = _protective_mbr(sectors) + header(1, sectors - 1, 2) + table
    tail = table + header(sectors - 1, 1, sectors - 1 - _TABLE_SECTORS)
    return head, tail


def _entry(partition: Partition) -> bytes:
    name = partition.name.encode("utf-16-le")
    if len(name) > 72:
        raise ValueError(f"partition name {partition.name} is too long")
    first = partition.start // SECTOR
    last = first + partition.size // SECTOR - 1
    return partition.kind.bytes_le + partition.guid.bytes_le + struct.pack("<QQQ72s", first, last, 0, name)


def _protective_mbr(sectors: int) -> bytes:
    record = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    return (b"\0" * 446 + record).ljust(510, b"\0") + b"\x55\xaa"
