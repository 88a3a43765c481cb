"""The lines of a pack's lists: checked in bulk, brought into the engine's form, compared with their predecessor.

A list may have hundreds of thousands of lines and the processor may be slow, so nothing here works line by line in
Python where a block can be checked at once, and no list is ever in memory as a whole.
"""

from __future__ import annotations

import binascii
import hashlib
import socket
import string
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from omamori_protocol.errors import PackRejectedError
from omamori_protocol.feed_lines import Blocks, compare, is_ascending, read_blocks, read_list_blocks
from omamori_protocol.feed_manifest import MAX_TEXT_BYTES, ListKind

from .errors import PackRefusedError

MAX_DOMAIN_LENGTH = 253
# Kinds of lists that are datasets of strings in the engine: which bytes a line may have, and how many.
DATASETS = {
    ListKind.DOMAIN: ((string.ascii_lowercase + string.digits + "._-").encode(), MAX_DOMAIN_LENGTH),
    ListKind.TEXT: (bytes(range(0x21, 0x7F)), MAX_TEXT_BYTES),
}
_HEX_BYTES = b"0123456789abcdef"
_ADDRESS_BYTES = _HEX_BYTES + b".:/"
_DIGEST_LENGTH = hashlib.sha256().digest_size * 2
# The engine refuses a rule whose list of digests is empty; no file has this one.
_NO_DIGEST = b"0" * _DIGEST_LENGTH + b"\n"
_MAX_NETWORK_LENGTH = 64  # longer than any


def _blocks(file: BinaryIO, name: str) -> Blocks:
    try:
        yield from read_blocks(file, f"list {name}")
    except PackRejectedError as err:
        raise PackRefusedError(str(err)) from err


def _checked(path: Path, name: str, allowed: bytes, shortest: int, longest: int, count: int) -> Iterator[list[bytes]]:
    """Yield blocks of lines that consist of `allowed` bytes, have such lengths, ascend, and are `count` in all."""
    last = b""
    seen = 0
    with path.open("rb") as file:
        for lines in _blocks(file, name):
            seen += len(lines)
            if b"".join(lines).translate(None, allowed):
                raise PackRefusedError(f"list {name}: a line with characters that are not allowed")
            if not shortest <= min(map(len, lines)) <= max(map(len, lines)) <= longest:
                raise PackRefusedError(f"list {name}: a line too short or too long")
            if not is_ascending(lines, last):
                raise PackRefusedError(f"list {name}: not sorted, or a line twice")
            last = lines[-1]
            yield lines
    if seen != count:
        raise PackRefusedError(f"list {name}: {seen} lines, the manifest says {count}")


def write_dataset(source: Path, target: Path, *, name: str, count: int, kind: ListKind = ListKind.DOMAIN) -> None:
    """Check a list of domains or texts and write it as the engine loads it: base64, one entry a line.

    Raises:
        PackRefusedError: A line is none of `kind`, lines are not sorted and unique, or not `count`.
    """
    allowed, longest = DATASETS[kind]
    with target.open("xb") as out:
        for lines in _checked(source, name, allowed, 1, longest, count):
            out.write(b"".join(map(binascii.b2a_base64, lines)))


def write_digests(source: Path, target: Path, *, name: str, count: int) -> None:
    """Check a list of SHA-256 digests and write it as the engine loads it.

    Raises:
        PackRefusedError: A line is no digest, lines are not sorted and unique, or not `count`.
    """
    with target.open("xb") as out:
        for lines in _checked(source, name, _HEX_BYTES, _DIGEST_LENGTH, _DIGEST_LENGTH, count):
            out.write(b"\n".join(lines) + b"\n")
        if count == 0:
            out.write(_NO_DIGEST)


def check_networks(path: Path, *, name: str, count: int) -> None:
    """Check a list of addresses and prefixes.

    Raises:
        PackRefusedError: A line is neither, not in its shortest form, lines are not sorted and unique, or not `count`.
    """
    for lines in _checked(path, name, _ADDRESS_BYTES, 2, _MAX_NETWORK_LENGTH, count):
        if not all(map(_is_network, lines)):
            raise PackRefusedError(f"list {name}: a line that is no address")


def _is_network(line: bytes) -> bool:
    """Tell whether a line is an address, or a prefix without host bits, in the one form that it has.

    The C library reads and writes it: Python's own module is ten times slower, and there may be 100 000 lines.
    """
    text, slash, length = line.decode("ascii").partition("/")
    family, width = (socket.AF_INET6, 128) if ":" in text else (socket.AF_INET, 32)
    try:
        packed = socket.inet_pton(family, text)
    except OSError:
        return False
    if socket.inet_ntop(family, packed) != text:
        return False
    if not slash:
        return True
    if not length.isdecimal() or str(int(length)) != length or int(length) >= width:
        return False
    return not int.from_bytes(packed, "big") & ((1 << (width - int(length))) - 1)


def changes(old: Path | None, new: Path | None) -> Iterator[tuple[bool, bytes]]:
    """Yield what leads from one checked list to the other: whether a line was added, and the line.

    None stands for an empty list. Both lists are read side by side, some thousand lines at a time.
    """
    for difference in compare(read_list_blocks(old), read_list_blocks(new)):
        yield from ((False, line) for _place, line in difference.removed)
        yield from ((True, line) for line in difference.added)
