"""Which slots of a disk are whole, kept up to date write by write: only what was written is compared."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

from omamori_firmware import disk
from omamori_hw.board import Disk

_BLOCK = 4096
PARTS = {"slot": "boot.vfat", "root": "root.erofs", "verity": "root.verity"}  # of a slot, and of a release


class SlotContent:
    """Compares the slots of a disk with the releases that they shall hold.

    Every byte of a slot that a start may read is compared: the boot partition with the signed kernel image, the root
    file system, the hash tree. A slot that is equal therefore passes dm-verity, too.

    Args:
        path: The disk.
        sizes: Of its partitions.
        releases: Slot letter to the artifact directory of what it shall hold.
    """

    def __init__(self, path: Path, sizes: Disk, releases: Mapping[str, Path]) -> None:
        self._disk = path
        self._wrong: dict[str, set[tuple[str, int]]] = {letter: set() for letter in releases}
        self._parts = []
        for letter, release in releases.items():
            for part, file in PARTS.items():
                place = disk.find(sizes, f"{part}_{letter.lower()}")
                with (release / file).open("rb") as stream:
                    expected = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                self._parts.append((letter, part, place.start, expected))
                self.changed(place.start, len(expected))

    def changed(self, offset: int, length: int) -> None:
        """Take note of bytes of the disk that were written."""
        for letter, part, start, expected in self._parts:
            first = max(offset, start) - start
            last = min(offset + length, start + len(expected)) - start
            if first < last:
                self._compare(letter, part, start, expected, first // _BLOCK, -(-last // _BLOCK))

    def is_whole(self, letter: str) -> bool:
        """Say whether a slot is exactly what it shall be."""
        return not self._wrong[letter]

    def wrong_blocks(self, letter: str) -> int:
        """Return how many blocks of a slot are not what they shall be."""
        return len(self._wrong[letter])

    def _compare(self, letter: str, part: str, start: int, expected: mmap.mmap, first: int, last: int) -> None:
        wrong = self._wrong[letter]
        with self._disk.open("rb") as stream:
            stream.seek(start + first * _BLOCK)
            present = stream.read((last - first) * _BLOCK)
        if present[: len(expected) - first * _BLOCK] == expected[first * _BLOCK : last * _BLOCK]:
            wrong.difference_update((part, block) for block in range(first, last))
            return
        for block in range(first, last):
            at = (block - first) * _BLOCK
            bytes_expected = expected[block * _BLOCK : (block + 1) * _BLOCK]
            is_right = present[at : at + len(bytes_expected)] == bytes_expected
            (wrong.discard if is_right else wrong.add)((part, block))
