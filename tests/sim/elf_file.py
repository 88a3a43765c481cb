"""Small ELF files: as much of one as says for which processor it is and which libraries it asks for."""

import struct
from collections.abc import Sequence

_HEADER, _SEGMENT, _DYNAMIC = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), struct.Struct("<qQ")
_ADDRESS = 0x10000


def elf_file(machine: int, libraries: Sequence[str] = ()) -> bytes:
    """Return a program of a processor that needs these libraries."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    start = _HEADER.size + 2 * _SEGMENT.size
    entries, at = [(5, _ADDRESS + start)], 1
    for name in libraries:
        entries.append((1, at))
        at += len(name) + 1
    dynamic = b"".join(_DYNAMIC.pack(*entry) for entry in [*entries, (0, 0), (1, 0xFFFFFF)])
    total = start + len(strings) + len(dynamic)
    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        3,
        machine,
        1,
        0,
        _HEADER.size,
        0,
        0,
        _HEADER.size,
        _SEGMENT.size,
        2,
        0,
        0,
        0,
    )
    load = _SEGMENT.pack(1, 5, 0, _ADDRESS, _ADDRESS, total, total, 4096)
    where = start + len(strings)
    table = _SEGMENT.pack(2, 6, where, _ADDRESS + where, _ADDRESS + where, len(dynamic), len(dynamic), 8)
    return header + load + table + strings + dynamic
