"""CBOR as Omamori uses it: bounded on the way in, deterministic on the way out.

Why a layer above cbor2: a message from outside must cost a known amount of memory before anyone looks at it, and
must consist of plain values only. Rules:

* at most `max_bytes` bytes, `MAX_DEPTH` levels, `MAX_ITEMS` items in one container (or what the caller allows);
* definite lengths, no duplicate map keys, map keys are integers, nothing after the first item;
* only null, booleans, 64-bit integers, floats, text, bytes, arrays and maps. No tags.

It does not know any message; see `record`.
"""

from __future__ import annotations

from typing import Any

import cbor2

from .errors import MalformedError, OversizeError

MAX_DEPTH = 6
MAX_ITEMS = 64
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

type_names = (type(None), bool, int, float, str, bytes)
_SIMPLE = frozenset({type(None), bool, str, bytes})  # nothing about them is left to check


def _refuse_tag(_decoder: Any, tag: Any) -> Any:
    raise MalformedError(f"CBOR tag {getattr(tag, 'tag', '?')} is not allowed")


def _check(value: Any, depth: int, max_items: int) -> None:
    if isinstance(value, (dict, list)):
        if depth > MAX_DEPTH or (value and depth == MAX_DEPTH):
            raise OversizeError(f"CBOR nests deeper than {MAX_DEPTH} levels", limit=MAX_DEPTH)
        if len(value) > max_items:
            raise OversizeError(f"CBOR container with {len(value)} items, allowed {max_items}", limit=max_items)
        if isinstance(value, dict):
            for key, item in value.items():
                if type(key) is not int:
                    raise MalformedError(f"CBOR map key {key!r:.40} is not an integer")
                if type(item) not in _SIMPLE:
                    _check(item, depth + 1, max_items)
        else:
            for item in value:
                if type(item) not in _SIMPLE:
                    _check(item, depth + 1, max_items)
    elif type(value) not in type_names:
        raise MalformedError(f"CBOR value of type {type(value).__name__} is not allowed")
    elif type(value) is int and not _INT_MIN <= value <= _INT_MAX:
        raise MalformedError("CBOR integer outside 64 bits")


def decode(data: bytes, *, max_bytes: int, max_items: int = MAX_ITEMS) -> Any:
    """Decode one CBOR item.

    Args:
        data: The bytes of exactly one item.
        max_bytes: Largest input in bytes that is looked at.
        max_items: Most items in one container.

    Returns:
        Plain Python values as the module's rules allow.

    Raises:
        OversizeError: The input is longer, deeper or wider than allowed.
        MalformedError: It is not CBOR (RFC 8949), or holds something the rules forbid.
    """
    if len(data) > max_bytes:
        raise OversizeError(f"message of {len(data)} bytes, allowed {max_bytes}", limit=max_bytes)
    try:
        value = cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            max_depth=MAX_DEPTH + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except MalformedError:
        raise
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as err:
        raise MalformedError(f"not valid CBOR: {str(err)[:120]}") from err
    _check(value, 1, max_items)
    if encode(value) != data:
        raise MalformedError("CBOR is not in its canonical form, or something follows it")
    return value


def encode(value: Any) -> bytes:
    """Encode plain values deterministically (RFC 8949 section 4.2.1: shortest form, sorted keys)."""
    return bytes(cbor2.dumps(value, canonical=True))
