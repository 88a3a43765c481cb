"""The factory disk: which partitions there are, and how their bytes get into one file.

Two slots, each with its own boot partition, root file system and hash tree, and one data partition that the box
makes at its first start. Identifiers are fixed: the initrd tells by them from which slot it was started, and the
same input gives the same disk.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from omamori_firmware import gpt
from omamori_firmware.architecture import X86_64, Architecture
from omamori_firmware.errors import SetupError
from omamori_firmware.files import copy_sparse
from omamori_firmware.tools import ToolsTree
from omamori_hw.board import Disk

_ESP = uuid.UUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
_DATA = uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
_OURS = uuid.UUID("6F6D616D-6F72-4900-8000-000000000000")
_BOOT_DIRECTORY = "::/EFI/BOOT"
_SMALLEST_FAT32_MIB = 36  # 65525 clusters of a sector each, and their tables
_FAT_OVERHEAD_MIB = 3


def guid(name: str) -> uuid.UUID:
    """Return the fixed identifier of a partition, or of the disk itself for `disk`."""
    return uuid.uuid5(_OURS, name)


def slot_guids() -> dict[str, str]:
    """Return slot letter to the identifier of its boot partition."""
    return {"A": str(guid("slot_a")), "B": str(guid("slot_b"))}


def layout(sizes: Disk, arch: Architecture = X86_64) -> list[gpt.Partition]:
    """Return the partitions of a disk with the given sizes; a processor's partitions have types of its own."""
    rows = [
        ("slot_a", _ESP, sizes.slot_mib),
        ("slot_b", _ESP, sizes.slot_mib),
        ("root_a", arch.root_type, sizes.root_mib),
        ("verity_a", arch.verity_type, sizes.verity_mib),
        ("root_b", arch.root_type, sizes.root_mib),
        ("verity_b", arch.verity_type, sizes.verity_mib),
        ("data", _DATA, sizes.data_mib),
    ]
    return gpt.lay_out([(name, kind, guid(name), size) for name, kind, size in rows])


def make_slot(
    target: Path,
    sizes: Disk,
    uki: Path | None,
    tools: ToolsTree,
    *,
    label: str,
    epoch: int,
    arch: Architecture = X86_64,
) -> None:
    """Write a slot's boot partition.

    Args:
        target: File to write.
        sizes: Names the size of its partition.
        uki: The signed kernel image to put where the firmware looks for it, or None for an empty slot.
        tools: Supplies mkfs.vfat and mtools.
        label: Volume label.
        epoch: Time stamp of everything in it (seconds).
        arch: The processor whose boot firmware looks for it.
    """
    size_mib = sizes.slot_mib
    if uki is not None:
        # Every byte of it is written by an update, so it is as small as FAT32 may be.
        size_mib = min(size_mib, max(_SMALLEST_FAT32_MIB, (uki.stat().st_size >> 20) + _FAT_OVERHEAD_MIB))
    with target.open("wb") as stream:
        stream.truncate(size_mib * gpt.MIB)
    number = f"{guid(label).int & 0xFFFFFFFF:08x}"
    binds = [target.parent]
    line: list[str | Path] = ["mkfs.vfat", "--invariant", "-F", "32", "-s", "1", "-i", number, "-n", label.upper()]
    tools.run([*line, target], binds=binds)
    if uki is None:
        return
    binds.append(uki.parent)
    frozen = ["faketime", "-f", f"@{_stamp(epoch)}"]
    tools.run([*frozen, "mmd", "-i", target, "::/EFI", _BOOT_DIRECTORY], binds=binds)
    tools.run([*frozen, "mcopy", "-i", target, uki, f"{_BOOT_DIRECTORY}/{arch.boot_file}"], binds=binds)


def write_disk(target: Path, sizes: Disk, contents: Mapping[str, Path], arch: Architecture = X86_64) -> None:
    """Write a whole disk as a sparse file.

    Args:
        target: File to write; replaced.
        sizes: Partition sizes.
        contents: Partition name to the file with its bytes; others stay empty.
        arch: The processor that starts from it.

    Raises:
        SetupError: A file is larger than its partition.
    """
    total = sizes.total_mib * gpt.MIB
    partitions = layout(sizes, arch)
    head, tail = gpt.tables(partitions, guid("disk"), total)
    target.unlink(missing_ok=True)
    with target.open("wb") as stream:
        stream.truncate(total)
        stream.write(head)
        stream.seek(total - len(tail))
        stream.write(tail)
    for partition in partitions:
        source = contents.get(partition.name)
        if source is None:
            continue
        size = source.stat().st_size
        if size > partition.size:
            raise SetupError(
                f"{source.name} has {size >> 20} MiB, the partition {partition.name} only {partition.size >> 20}",
                hint="make the partition larger in the board's [disk]",
            )
        copy_sparse(source, target, offset=partition.start)


def find(sizes: Disk, name: str) -> gpt.Partition:
    """Return a partition by name."""
    return next(partition for partition in layout(sizes) if partition.name == name)


def _stamp(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S")
