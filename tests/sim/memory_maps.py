"""The gate's maps in memory, with the interface of the real ones, under a real `Gate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_agent.gate import Gate, layout
from omamori_agent.gate import gate as module
from omamori_agent.gate.layout import ControlSlot, Counter, MapName, Uninspected

OWN_MAC = b"\x02\x00\x00\x00\x00\xfe"
# What the clocks of a simulated gate say: Unix time and time since boot.
NOW, SINCE_BOOT = 1_000_000.0, 500.0


class MemoryMap:
    """One map."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}
        self.writes = 0
        self.read_only = False
        self.failure: OSError | None = None

    def lookup(self, key: bytes, *, size: int | None = None) -> bytes | None:
        self._need()
        return self.content.get(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        self._need()
        yield from list(self.content.items())

    def take(self) -> Iterator[tuple[bytes, bytes]]:
        self._need()
        taken, self.content = self.content, {}
        yield from taken.items()

    def update(self, key: bytes, value: bytes) -> None:
        self.update_many([key], [value])

    def update_many(self, keys: list[bytes], values: list[bytes]) -> None:
        self._need()
        assert not self.read_only
        self.writes += len(keys)
        self.content.update(zip(keys, values, strict=True))

    def delete_many(self, keys: list[bytes]) -> None:
        self._need()
        assert not self.read_only
        self.writes += len(keys)
        for key in keys:
            self.content.pop(key, None)

    def close(self) -> None:
        pass

    def _need(self) -> None:
        if self.failure is not None:
            raise self.failure


def make_maps(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryMap]:
    """Return the maps by name, as a fresh gate has them; every `Gate` made from now on has these."""
    made = {name.value: MemoryMap() for name in MapName}
    made["config"].content[bytes(4)] = layout.CONFIG.pack(layout.ABI, 7, 3, 2, 60, 7200, 300, OWN_MAC)
    for slot in range(layout.CONTROL_SLOTS):
        made["control"].content[slot.to_bytes(4, "little")] = bytes(8)
    for number in (*Counter, *Uninspected):
        for name in ("counters", "uninspected"):
            made[name].content[number.to_bytes(4, "little")] = layout.COUNT.pack(0, 0)

    def open_map(path: Path, _key: int, _value: int, *, read_only: bool) -> MemoryMap:
        made[path.name].read_only = read_only
        return made[path.name]

    monkeypatch.setattr(module, "BpfMap", open_map)
    return made


def make_gate() -> Gate:
    """Return a gate on the simulated maps, with clocks that stand still."""
    return Gate(Path("/nowhere"), clocks=lambda: (NOW, SINCE_BOOT))


def set_slot(maps: dict[str, MemoryMap], slot: ControlSlot, number: int) -> None:
    """Write a control slot as its owner would."""
    maps["control"].content[slot.to_bytes(4, "little")] = layout.CONTROL.pack(number)
