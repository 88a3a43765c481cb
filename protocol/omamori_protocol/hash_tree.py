"""The hash tree of dm-verity, computed: half of a bundle's incompressible bytes need not travel.

Format 1 of the kernel's device-mapper target: SHA-256 over salt and block, blocks of 4096 bytes for data and hashes,
the level next to the root first. The same layout is what `veritysetup` writes behind its superblock and what RAUC
appends to a bundle. Pure: somebody else reads the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator

from .errors import MalformedError

BLOCK_BYTES = 4096
_DIGEST_BYTES = 32
_PER_BLOCK = BLOCK_BYTES // _DIGEST_BYTES


@dataclasses.dataclass(frozen=True)
class HashTree:
    """A tree.

    Attributes:
        root: Root hash, 32 bytes.
        data: The tree's blocks as they are stored.
    """

    root: bytes
    data: bytes


def tree_bytes(length: int) -> int:
    """Return how many bytes the tree over `length` bytes of data has.

    Raises:
        MalformedError: `length` is not a positive multiple of 4096.
    """
    if length <= 0 or length % BLOCK_BYTES:
        raise MalformedError(f"{length} bytes are no whole blocks")
    blocks, total = length // BLOCK_BYTES, 0
    while blocks > 1:
        blocks = -(-blocks // _PER_BLOCK)
        total += blocks
    return total * BLOCK_BYTES


def hash_tree(chunks: Iterable[bytes | bytearray | memoryview], salt: bytes) -> HashTree:
    """Compute the tree over data that comes in chunks of whole blocks.

    Args:
        chunks: The data, in order; each chunk a multiple of 4096 bytes.
        salt: What every hash begins with.

    Raises:
        MalformedError: A chunk is not, or there is nothing.
    """
    start = hashlib.sha256(salt)
    level = b"".join(_hashes(chunks, start))
    if not level:
        raise MalformedError("no data")
    levels: list[bytes] = []
    while len(level) > _DIGEST_BYTES:
        level += bytes(-len(level) % BLOCK_BYTES)
        levels.append(level)
        level = b"".join(_hashes([level], start))
    return HashTree(level, b"".join(reversed(levels)))


def _hashes(chunks: Iterable[bytes | bytearray | memoryview], start: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        if len(chunk) % BLOCK_BYTES:
            raise MalformedError(f"a chunk of {len(chunk)} bytes is not made of whole blocks")
        view = memoryview(chunk)
        for offset in range(0, len(view), BLOCK_BYTES):
            block = start.copy()
            block.update(view[offset : offset + BLOCK_BYTES])
            yield block.digest()
