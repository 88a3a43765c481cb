"""Which shared libraries a program asks for, read from its file: it need not be a program of this machine's processor.

Only what the initrd's few programs need: 64-bit, little-endian ELF files with a dynamic section.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from omamori_firmware.errors import SetupError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_END, _NEEDED, _STRINGS = 0, 1, 5
_MAX_LIBRARIES = 64


def needed(data: bytes, *, machine: int, where: str) -> list[str]:
    """Return the names of the libraries that a program or library asks for.

    Args:
        data: The file.
        machine: Number of the processor that it has to be for.
        where: Its name, for errors.

    Raises:
        SetupError: It is no such file, or for another processor.
    """
    try:
        return _needed(data, machine)
    except (struct.error, ValueError, OverflowError) as err:
        raise SetupError(f"{where} is not a program of the board's processor ({err})") from err


def libraries(tree: Path, programs: Iterable[str], *, machine: int, triplet: str) -> set[str]:
    """Return the paths, below `/usr`, of all libraries that programs of a tree need, directly or not.

    Args:
        tree: The tree.
        programs: Paths in it.
        machine: Number of the processor.
        triplet: Name of the processor's directory of libraries.

    Raises:
        SetupError: A library is absent.
    """
    found: set[str] = set()
    todo = list(programs)
    while todo:
        path = todo.pop()
        for name in needed((tree / path.lstrip("/")).read_bytes(), machine=machine, where=path):
            library = f"/usr/lib/{triplet}/{name}"
            if library in found or name.startswith("ld-linux"):
                continue
            if not (tree / library.lstrip("/")).is_file():
                raise SetupError(f"{path} needs {name}, which is not in the tree")
            if len(found) >= _MAX_LIBRARIES:
                raise SetupError(f"{path} leads to more than {_MAX_LIBRARIES} libraries")
            found.add(library)
            todo.append(library)
    return found


def _needed(data: bytes, machine: int) -> list[str]:
    header = _HEADER.unpack_from(data)
    if header[0][:6] != b"\x7fELF\x02\x01" or header[2] != machine:
        raise ValueError("other format or processor")
    segments = [_SEGMENT.unpack_from(data, header[5] + number * header[9]) for number in range(header[10])]
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, size, _, _ in segments:
        if kind == _DYNAMIC_SEGMENT:
            entries = list(_DYNAMIC.iter_unpack(data[offset : offset + size - size % _DYNAMIC.size]))
    tags = [tag for tag, _ in entries]
    entries = entries[: tags.index(_END)] if _END in tags else entries
    strings = next((_place(segments, value) for tag, value in entries if tag == _STRINGS), 0)
    names = []
    for tag, value in entries:
        if tag == _NEEDED:
            start = strings + value
            names.append(data[start : data.index(b"\0", start)].decode("ascii"))
    return names


def _place(segments: Iterable[tuple[int, ...]], address: int) -> int:
    for kind, _, offset, start, _, size, _, _ in segments:
        if kind == _LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError("an address outside the file")
