"""Hash trees are what the kernel's dm-verity expects; `veritysetup` and RAUC agree in the tests of bundles."""

from __future__ import annotations

import hashlib

import pytest

from omamori_protocol.errors import MalformedError
from omamori_protocol.hash_tree import BLOCK_BYTES, hash_tree, tree_bytes

SALT = bytes(range(32))


def block(number: int) -> bytes:
    return number.to_bytes(4, "big") * (BLOCK_BYTES // 4)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(SALT + data).digest()


def test_a_single_block_has_a_root_and_no_tree() -> None:
    tree = hash_tree([block(7)], SALT)
    assert (tree.root, tree.data) == (digest(block(7)), b"")
    assert tree_bytes(BLOCK_BYTES) == 0


def test_two_levels_stand_with_the_upper_one_first() -> None:
    blocks = [block(number) for number in range(130)]
    lower = b"".join(map(digest, blocks))
    lower += bytes(2 * BLOCK_BYTES - len(lower))
    upper = digest(lower[:BLOCK_BYTES]) + digest(lower[BLOCK_BYTES:])
    upper += bytes(BLOCK_BYTES - len(upper))
    tree = hash_tree(blocks, SALT)
    assert tree.data == upper + lower
    assert tree.root == digest(upper)
    assert hash_tree([b"".join(blocks[:50]), memoryview(b"".join(blocks[50:]))], SALT) == tree


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1])
def test_length_is_known_beforehand(blocks: int) -> None:
    assert len(hash_tree([bytes(blocks * BLOCK_BYTES)], SALT).data) == tree_bytes(blocks * BLOCK_BYTES)


def test_what_is_not_whole_blocks_is_refused() -> None:
    for chunks in ([], [b""], [bytes(BLOCK_BYTES), b"x"], [bytes(BLOCK_BYTES - 1)]):
        with pytest.raises(MalformedError):
            hash_tree(chunks, SALT)
    for length in (0, -4096, 1, 4097):
        with pytest.raises(MalformedError):
            tree_bytes(length)
