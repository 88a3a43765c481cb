"""What a UEFI firmware finds among its variables when it starts: a reader of EDK II's variable store.

The store is a piece of flash memory whose bits only go from 1 to 0 until a whole block is erased. A variable is
appended, a byte of its own says how far that has come, and the one before is marked as deleted afterwards; so a cut
leaves the old or the new one, never none. When the store is full, it is rewritten by way of a spare block (the
fault-tolerant write): once that is whole, it is what counts.

It only reads; what it takes for true is what EDK II's drivers do (MdeModulePkg, Universal/Variable and
Universal/FaultTolerantWriteDxe; UEFI PI specification, volume 3, for the volume's header).
"""

from __future__ import annotations

import dataclasses
import enum
import struct
import uuid

from omamori_lab.errors import LabError

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_VOLUME = struct.Struct("<16s16sQ4sIHHHBB")
_SYSTEM_NV_DATA = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
_STORE = struct.Struct("<16sIBBHI")
_AUTHENTICATED = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
_FORMATTED, _HEALTHY = 0x5A, 0xFE
_HEADER = struct.Struct("<HBBIQ16sIII16s")
_START = 0x55AA
_ADDED, _BEING_REPLACED = 0x3F, 0x3E
_UNSET = 0xFFFFFFFF
_WORK = struct.Struct("<16sIB3xQ")
_WORK_SIGNATURE = uuid.UUID("9e58292b-7c68-497d-a0ce-6500fd9f1b95")
_QUEUE_HEADER = 40
_RECORD = struct.Struct("<B7xQQQq")
MAX_VARIABLES = 4096


class Recovery(enum.Enum):
    """What the firmware does with a rewrite of the store that a cut has interrupted."""

    NONE = "there is none"
    ABANDONED = "the spare block is not whole: the old store counts"
    FINISHED = "the spare block is whole: it is copied once more"


@dataclasses.dataclass(frozen=True)
class Variable:
    """One variable: attributes and content."""

    attributes: int
    data: bytes


@dataclasses.dataclass(frozen=True)
class VariableStore:
    """All variables that are there, and whether a rewrite had to be recovered first."""

    variables: dict[tuple[uuid.UUID, str], Variable]
    recovery: Recovery = Recovery.NONE

    def boot_next(self) -> int | None:
        """Return the number of the entry that is started once."""
        found = self.variables.get((GLOBAL, "BootNext"))
        return int.from_bytes(found.data, "little") if found is not None and len(found.data) == 2 else None

    def boot_order(self) -> list[int]:
        """Return the numbers of the entries in their order."""
        found = self.variables.get((GLOBAL, "BootOrder"))
        data = found.data if found is not None else b""
        return [data[at] | data[at + 1] << 8 for at in range(0, len(data) - 1, 2)]

    def entry(self, number: int) -> bytes | None:
        """Return an entry as the firmware has it."""
        found = self.variables.get((GLOBAL, f"Boot{number:04X}"))
        return found.data if found is not None else None


@dataclasses.dataclass(frozen=True)
class StoreLayout:
    """Where the parts of the flash memory are; OVMF's with 4 MiB, see its `OvmfPkg/VarStore.fdf.inc`."""

    store: int = 0x40000
    work: int = 0x41000
    work_size: int = 0x1000
    spare: int = 0x42000


def read_variables(flash: bytes | bytearray, layout: StoreLayout | None = None) -> VariableStore:
    """Return what a firmware finds that starts with this flash memory.

    Raises:
        LabError: It would find no variables, or a chain of them that is broken.
    """
    layout = layout or StoreLayout()
    recovery, content = _recovered(flash, layout)
    return VariableStore(_parse(content), recovery)


def _parse(content: bytes) -> dict[tuple[uuid.UUID, str], Variable]:
    _, kind, _, mark, _, length, _, _, _, _ = _VOLUME.unpack_from(content)
    if (
        mark != b"_FVH"
        or kind != _SYSTEM_NV_DATA.bytes_le
        or sum(struct.unpack_from(f"<{length // 2}H", content)) & 0xFFFF
    ):
        raise LabError("the volume's header is not right")
    kind, size, formatted, healthy, _, _ = _STORE.unpack_from(content, length)
    if (
        kind != _AUTHENTICATED.bytes_le
        or (formatted, healthy) != (_FORMATTED, _HEALTHY)
        or length + size > len(content)
    ):
        raise LabError("the variable store's header is not right")
    found: dict[tuple[uuid.UUID, str], Variable] = {}
    replaced: dict[tuple[uuid.UUID, str], Variable] = {}
    at, end, count = length + _STORE.size, length + size, 0
    while at + _HEADER.size <= end:
        start, state, _, attributes, _, _, _, name_size, data_size, vendor = _HEADER.unpack_from(content, at)
        if start != _START:
            break
        count += 1
        body = at + _HEADER.size
        if state == 0xFF or _UNSET in (attributes, name_size, data_size):
            name_size = data_size = 0  # only begun
        if body + name_size + data_size > end or count > MAX_VARIABLES:
            raise LabError(f"the variable at {at:#x} reaches beyond the store")
        if state in {_ADDED, _BEING_REPLACED}:
            name = content[body : body + name_size].decode("utf-16-le").rstrip("\0")
            data = content[body + name_size : body + name_size + data_size]
            key = (uuid.UUID(bytes_le=vendor), name)
            if state == _ADDED and key in found:
                raise LabError(f"the variable {name} is there twice")
            (found if state == _ADDED else replaced)[key] = Variable(attributes, bytes(data))
        at = -(-(body + name_size + data_size) // 4) * 4
    return replaced | found


def _recovered(flash: bytes | bytearray, layout: StoreLayout) -> tuple[Recovery, bytes]:
    """Do what the firmware does before it reads: end a rewrite that was interrupted."""
    store = bytes(flash[: layout.store])
    kind, _, state, _ = _WORK.unpack_from(flash, layout.work)
    if kind != _WORK_SIGNATURE.bytes_le or state & 1:
        return Recovery.NONE, store  # the firmware makes it anew
    at, end = layout.work + _WORK.size, layout.work + layout.work_size
    found = None
    while at + _QUEUE_HEADER + _RECORD.size <= end:
        states = flash[at]
        if states & 1:
            break  # never begun
        writes, private = struct.unpack_from("<QQ", flash, at + 24)
        if states & 4 == 0:  # done
            found = None
        elif states & 2 == 0:
            found = at + _QUEUE_HEADER
        else:
            return Recovery.NONE, store  # only begun
        at += _QUEUE_HEADER + writes * (_RECORD.size + private)
    if found is None:
        return Recovery.NONE, store
    flags, block, offset, length, _ = _RECORD.unpack_from(flash, found)
    if flags & 4 == 0:
        return Recovery.NONE, store  # it has arrived
    if flags & 2:
        return Recovery.ABANDONED, store
    if block or offset + length > layout.store:
        raise LabError(f"the rewrite that was interrupted is not of the variables (block {block}, {length} bytes)")
    return Recovery.FINISHED, bytes(
        flash[layout.spare : layout.spare + layout.store]
    )  # whole blocks, from the first on
