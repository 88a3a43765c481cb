"""Diagnostics: what a box tells about itself when the operator asks for it, in one message on its `job` topic.

The content is an object in JSON, compressed with zlib. It is for people: its parts may come and go with any version, so
nothing may depend on them. What may be in it is decided where it is collected (`omamori_agent.diagnostics`): never
anything of what passes through the box, nor a secret.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

from .command import COMMAND_ID_BYTES
from .errors import MalformedError, OversizeError
from .record import Blob, Octets, Record, UInt, wire

MAX_COMPRESSED_BYTES = 24 * 1024  # a packet of the broker has 32 KiB
MAX_CONTENT_BYTES = 256 * 1024
_U64 = 2**63 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnostics(Record):
    """An answer to the command `command_id`, collected `at_s` (Unix time)."""

    MAX_BYTES: ClassVar[int] = MAX_COMPRESSED_BYTES + 64

    command_id: bytes = wire(1, Octets(COMMAND_ID_BYTES))
    at_s: int = wire(2, UInt(_U64))
    content: bytes = wire(3, Blob(MAX_COMPRESSED_BYTES))


def compress(content: Mapping[str, Any]) -> bytes:
    """Return an object as it travels.

    Raises:
        OversizeError: It is too long.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    packed = zlib.compress(text, 9)
    if len(text) > MAX_CONTENT_BYTES or len(packed) > MAX_COMPRESSED_BYTES:
        raise OversizeError(f"diagnostics of {len(text)} bytes, {len(packed)} compressed", limit=MAX_COMPRESSED_BYTES)
    return packed


def decompress(packed: bytes) -> dict[str, Any]:
    """Return the object that `compress` made.

    Raises:
        OversizeError: It would become too long.
        MalformedError: It is not such an object.
    """
    opener = zlib.decompressobj()
    try:
        text = opener.decompress(packed, MAX_CONTENT_BYTES + 1)
        if len(text) > MAX_CONTENT_BYTES:
            raise OversizeError(f"diagnostics of more than {MAX_CONTENT_BYTES} bytes", limit=MAX_CONTENT_BYTES)
        if not opener.eof or opener.unused_data:
            raise MalformedError("diagnostics that end too early, or too late")
        content = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as err:
        raise MalformedError("diagnostics that cannot be read") from err
    if not isinstance(content, dict):
        raise MalformedError("diagnostics that are no object")
    return content
