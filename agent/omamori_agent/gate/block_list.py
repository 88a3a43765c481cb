"""The block list written as a stream: no list is ever held in memory, whatever its length.

Rules:
- A whole list is read once before anything changes: a bad line or one too many changes nothing.
- Entries of the new list are written first, those of older ones removed after. What is in both is never open.
- Every entry says which writing of the whole list it belongs to (its generation), so a writing that was cut off
  leaves nothing that the next one would not remove.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Callable, Iterable

from omamori_agent.gate import layout
from omamori_agent.gate.bpf import BpfMap
from omamori_agent.gate.errors import BadPrefixError, BlockListFullError, PrefixTooWideError
from omamori_agent.gate.values import MIN_IPV4_BITS, MIN_IPV6_BITS

BATCH = 1024
_MAX_LINE = 64
_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96, where IPv4 is
_FULL = (errno.ENOSPC, errno.E2BIG)


def parse_prefix(line: bytes) -> bytes:
    """Return the key of a line like ``203.0.113.7`` or ``2001:db8::/32``; bits after the prefix are ignored.

    Raises:
        BadPrefixError: It is neither an address nor a prefix.
        PrefixTooWideError: It covers so much that one entry would change the whole box.
    """
    address, slash, digits = line[:_MAX_LINE].partition(b"/")
    try:
        is_v6 = b":" in address
        raw = socket.inet_pton(socket.AF_INET6 if is_v6 else socket.AF_INET, address.decode("ascii"))
    except (OSError, ValueError):
        raise BadPrefixError(line) from None
    size = 128 if is_v6 else 32
    if (slash and not (digits.isdigit() and len(digits) <= 3 and int(digits) <= size)) or len(line) > _MAX_LINE:
        raise BadPrefixError(line)
    bits = int(digits) if slash else size
    number = int.from_bytes(raw, "big")
    if not is_v6:
        bits, number = bits + 96, number | _MAPPED
    shift = 128 - min(bits, 96)
    is_ipv4 = number >> shift == _MAPPED >> shift  # a wide IPv6 prefix may cover all of IPv4
    if bits < (MIN_IPV4_BITS + 96 if is_ipv4 else MIN_IPV6_BITS):
        raise PrefixTooWideError(line.decode("ascii"))
    return layout.BLOCK_KEY.pack(bits, (number >> (128 - bits) << (128 - bits)).to_bytes(16, "big"))


def change(block: BpfMap, changes: Iterable[tuple[bytes, int | None]]) -> tuple[int, int]:
    """Write and remove single entries; see `Gate.change_block`."""
    written = removed = 0
    stream = iter(changes)
    while part := list(itertools.islice(stream, BATCH)):
        wanted = {parse_prefix(line): list_id for line, list_id in part}  # of one line said twice, the later counts
        adds = {key: layout.BLOCK.pack(0, list_id) for key, list_id in wanted.items() if list_id is not None}
        gone = [key for key, list_id in wanted.items() if list_id is None]
        block.delete_many(gone)
        _write(block, adds)
        written, removed = written + len(adds), removed + len(gone)
    return written, removed


def replace(block: BpfMap, entries: Callable[[], Iterable[tuple[bytes, int]]]) -> tuple[int, int]:
    """Write a whole list; see `Gate.replace_block`."""
    for count, (line, _) in enumerate(entries(), 1):
        parse_prefix(line)
        if count > layout.MAX_BLOCK:
            raise BlockListFullError(layout.MAX_BLOCK)
    generation = _free_generation(block)
    written = removed = 0
    stream = iter(entries())
    while part := list(itertools.islice(stream, BATCH)):
        batch = {parse_prefix(line): layout.BLOCK.pack(generation, list_id) for line, list_id in part}
        try:
            _write(block, batch)
        except BlockListFullError:
            # Old and new together do not fit. What is old goes now; what is also new comes back with its own batch.
            removed += _remove_others(block, generation)
            _write(block, batch)
        written += len(batch)
    return written, removed + _remove_others(block, generation)


def _write(block: BpfMap, entries: dict[bytes, bytes]) -> None:
    try:
        block.update_many(list(entries), list(entries.values()))
    except OSError as err:
        if err.errno in _FULL:
            raise BlockListFullError(layout.MAX_BLOCK) from err
        raise


def _free_generation(block: BpfMap) -> int:
    used = {layout.BLOCK.unpack(value)[0] for _, value in block.items()}
    return next(number for number in itertools.count(1) if number not in used)


def _remove_others(block: BpfMap, generation: int) -> int:
    removed = 0
    while True:
        # Keys are collected before they are removed: a walk does not bear changes under its feet.
        others = (key for key, value in block.items() if layout.BLOCK.unpack(value)[0] != generation)
        stale = list(itertools.islice(others, 16 * BATCH))
        block.delete_many(stale)
        removed += len(stale)
        if len(stale) < 16 * BATCH:
            return removed
