"""The lines of a pack's lists: checked in bulk, brought into the engine's form, compared with their predecessor.

A list may have hundreds of thousands of lines and the processor may be slow, so nothing here works line by line in
Python where a block can be checked at once, and no list is ever in memory as a whole.
"""

from __future__ import annotations

import binascii
import bisect
import hashlib
import ipaddress
import itertools
import operator
import string
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import PackRefusedError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_DOMAIN_LENGTH = 253
_DOMAIN_BYTES = (string.ascii_lowercase + string.digits + "._-").encode()
_HEX_BYTES = b"0123456789abcdef"
_DIGEST_LENGTH = hashlib.sha256().digest_size * 2
# The engine refuses a rule whose list of digests is empty; no file has this one.
_NO_DIGEST = b"0" * _DIGEST_LENGTH + b"\n"
_MAX_NETWORK_LENGTH = 64  # longer than any
_BLOCK = 128 * 1024


def _blocks(file: BinaryIO, what: str) -> Iterator[list[bytes]]:
    """Yield the lines of a file, some thousand at a time, without their ends."""
    rest = b""
    while chunk := file.read(_BLOCK):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _BLOCK:
            raise PackRefusedError(f"{what}: line too long")
        if lines:
            yield lines
    if rest:
        raise PackRefusedError(f"{what}: the last line has no end")


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
            if not last < lines[0] or not all(map(operator.lt, lines, itertools.islice(lines, 1, None))):
                raise PackRefusedError(f"list {name}: not sorted, or a line twice")
            last = lines[-1]
            yield lines
    if seen != count:
        raise PackRefusedError(f"list {name}: {seen} lines, the manifest says {count}")


def write_dataset(source: Path, target: Path, *, name: str, count: int) -> None:
    """Check a list of domains and write it as the engine loads it: base64, one entry a line.

    Raises:
        PackRefusedError: A line is no domain, lines are not sorted and unique, or not `count`.
    """
    with target.open("xb") as out:
        for lines in _checked(source, name, _DOMAIN_BYTES, 1, MAX_DOMAIN_LENGTH, count):
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


def read_networks(path: Path, *, name: str) -> Iterator[Network]:
    """Yield the addresses and prefixes of a list.

    Raises:
        PackRefusedError: A line is neither.
    """
    with path.open("rb") as file:
        for lines in _blocks(file, name):
            for line in lines:
                try:
                    network = ipaddress.ip_network(line[:_MAX_NETWORK_LENGTH].decode("ascii"))
                except ValueError as err:
                    raise PackRefusedError(f"list {name}: a line that is no address") from err
                yield network


def check_networks(path: Path, *, name: str, count: int) -> None:
    """Check a list of addresses and prefixes.

    Raises:
        PackRefusedError: A line is neither, or they are not `count`.
    """
    seen = sum(1 for _network in read_networks(path, name=name))
    if seen != count:
        raise PackRefusedError(f"list {name}: {seen} lines, the manifest says {count}")


def changes(old: Path | None, new: Path | None) -> Iterator[tuple[bool, bytes]]:
    """Yield what leads from one checked list to the other: whether a line was added, and the line.

    None stands for an empty list. Both lists are read side by side, some thousand lines at a time.
    """
    olds = _lines_of(old)
    news = _lines_of(new)
    mine: list[bytes] = next(olds, [])
    theirs: list[bytes] = next(news, [])
    while mine or theirs:
        if not mine or not theirs:
            upto_mine, upto_theirs = len(mine), len(theirs)
        else:
            bound = min(mine[-1], theirs[-1])
            upto_mine, upto_theirs = bisect.bisect_right(mine, bound), bisect.bisect_right(theirs, bound)
        before, after = set(mine[:upto_mine]), set(theirs[:upto_theirs])
        yield from ((False, line) for line in before - after)
        yield from ((True, line) for line in after - before)
        mine = mine[upto_mine:] or next(olds, [])
        theirs = theirs[upto_theirs:] or next(news, [])


def _lines_of(path: Path | None) -> Iterator[list[bytes]]:
    if path is None:
        return
    with path.open("rb") as file:
        yield from _blocks(file, path.name)
