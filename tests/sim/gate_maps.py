"""The gate's maps without its programs: made and pinned by a test, empty, with the configuration of a loaded gate."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess  # noqa: TID251 - mounts the pins' file system
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omamori_agent.gate import layout
from omamori_agent.gate.bpf import BpfMap
from omamori_agent.gate.layout import MapName

_CREATE, _PIN, _SYSCALL = 0, 6, 321
_HASH, _ARRAY, _PERCPU_ARRAY, _LRU_HASH, _LPM_TRIE = 1, 2, 6, 9, 11
_NO_PREALLOC = 1
_MAPS = {
    MapName.CONFIG: (_ARRAY, 4, layout.CONFIG.size, 1),
    MapName.BLOCK: (_LPM_TRIE, layout.BLOCK_KEY.size, layout.BLOCK.size, layout.MAX_BLOCK),
    MapName.BLOCKED: (_LRU_HASH, layout.BLOCKED_KEY.size, layout.BLOCKED.size, layout.MAX_BLOCKED),
    MapName.TERMINALS: (_LRU_HASH, layout.TERMINAL_KEY.size, layout.TERMINAL.size, 64),
    MapName.FLOWS: (_LRU_HASH, layout.FLOW_KEY.size, layout.FLOW.size, 64),
    MapName.COUNTERS: (_PERCPU_ARRAY, 4, layout.COUNT.size, 32),
    MapName.CONTROL: (_ARRAY, 4, layout.CONTROL.size, layout.CONTROL_SLOTS),
    MapName.EXEMPT: (_LPM_TRIE, layout.EXEMPT_KEY.size, layout.EXEMPT.size, layout.MAX_EXEMPT),
    MapName.EXEMPT_MAC: (_HASH, layout.EXEMPT_MAC_KEY.size, layout.EXEMPT_MAC.size, layout.MAX_EXEMPT_MAC),
    MapName.STATIONS: (_LRU_HASH, layout.STATION_KEY.size, layout.STATION.size, 64),
    MapName.UNINSPECTED: (_PERCPU_ARRAY, 4, layout.COUNT.size, layout.UNINSPECTED_SLOTS),
}
_LIBC = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attribute: bytes) -> int:
    buffer = ctypes.create_string_buffer(attribute, 128)
    result = int(_LIBC.syscall(_SYSCALL, command, buffer, 128))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextmanager
def gate_maps(directory: Path) -> Iterator[Path]:
    """Make `directory` and fill it with pinned maps for as long as the block lasts; needs root."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
    try:
        for name, (kind, key_size, value_size, entries) in _MAPS.items():
            flags = _NO_PREALLOC if kind == _LPM_TRIE else 0
            descriptor = _bpf(_CREATE, struct.pack("=IIIII", kind, key_size, value_size, entries, flags))
            try:
                path = ctypes.create_string_buffer(os.fsencode(directory / name))
                _bpf(_PIN, struct.pack("=QI", ctypes.addressof(path), descriptor))
            finally:
                os.close(descriptor)
        config = BpfMap(directory / MapName.CONFIG, 4, layout.CONFIG.size)
        config.update(bytes(4), layout.CONFIG.pack(layout.ABI, 7, 0, 0, 0, 0, 0, bytes(6)))
        config.close()
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)
