"""Finds rules that would cost every box too much, by what the engine says it looks for first.

The engine looks for one content of each rule, its fast pattern, in all traffic at once, and reads a rule to its end
only where that was found. So what a rule costs is how often its fast pattern is found, and how many rules have the same
one. Three mistakes make that expensive, and a few such rules are enough to cost more than all others together:

* Very many rules with the same fast pattern. 2853 rules for another engine, whose fast pattern here was ``Host`` in the
  header of a request, cost 6.5 ms per connection; twenty thousand others together 0.1 ms.
* A fast pattern that ordinary bulk data is full of, a run of zeros: each byte of such data is a find. One rule with it
  made a packet of zeros cost ten times as much. Where the content must stand near the beginning it costs nothing.
* A rule without any, which reads the data of every port: it is read to its end with each packet.

Pure. A bound says nothing about the rest; what all rules together cost is measured (`omamori-lab bench wire`).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .errors import EngineError

# The most that one pattern has in ET Open, which holds 20 000 rules, is 64.
MAX_SHARED = 100
# Buffers through which files and streams run; the others hold a line or a name.
_BULK = {"payload", "file_data", "http_client_body", "http_server_body"}
# What bulk data is padded with.
_PADDING = {b"\x00", b"\x20", b"\xff"}
# So near the beginning, in bytes, a run costs nothing: with a depth of 5 nothing was seen, with 80 nearly all of it.
_NEAR = 32
_FEW_PORTS = re.compile(r"\[?[0-9]+(?:,[0-9]+)*\]?")
_HEX = re.compile(r"\|([0-9A-Fa-f ]*)\|")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefilter:
    """What the engine looks for before it reads a rule.

    Attributes:
        sid: Of the rule.
        buffer: Where, in the engine's words; empty if it has no fast pattern.
        pattern: What, as the engine writes it (bytes in hexadecimal between bars); empty if it has none.
        depth: In how many bytes from the beginning the pattern must stand; None for anywhere.
        is_broad: The rule is for more than a few ports of TCP or UDP.
        reads_payload: It reads the data of packets or streams.
    """

    sid: int
    buffer: str
    pattern: str
    depth: int | None
    is_broad: bool
    reads_payload: bool


def parse_prefilter(body: Any) -> Prefilter:
    """Return what one entry of the engine's analysis says.

    Raises:
        EngineError: It is not as expected.
    """
    try:
        found = body.get("mpm") or {}
        engines = {str(item["name"]) for item in body.get("pkt_engines", ())}
        protocol, _, source_port, _, _, target_port = str(body["raw"]).split(None, 7)[1:7]
        return Prefilter(
            sid=int(body["id"]),
            buffer=str(found.get("buffer", "")),
            pattern=str(found.get("pattern", "")),
            depth=int(found["depth"]) if "depth" in found else None,
            is_broad=not protocol.startswith("icmp") and not any(map(_FEW_PORTS.fullmatch, (source_port, target_port))),
            reads_payload="payload" in engines,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise EngineError(f"cannot read the engine's analysis of its rules: {err}") from err


def find_expensive(prefilters: Iterable[Prefilter]) -> dict[int, str]:
    """Return the ids of rules that cost too much, each with the reason."""
    every = list(prefilters)
    shared = Counter((item.buffer, item.pattern) for item in every if item.pattern)
    return {item.sid: reason for item in every if (reason := _reason(item, shared[item.buffer, item.pattern]))}


def _reason(item: Prefilter, sharing: int) -> str:
    if not item.pattern:
        return "no fast pattern, for every port" if item.is_broad and item.reads_payload else ""
    if sharing > MAX_SHARED:
        return f"the fast pattern of more than {MAX_SHARED} rules"
    is_near = item.depth is not None and item.depth <= _NEAR
    if item.is_broad and item.buffer in _BULK and not is_near and _is_padding(item.pattern):
        return "a fast pattern of padding"
    return ""


def _is_padding(pattern: str) -> bool:
    data = _bytes(pattern)
    return data[:1] in _PADDING and not data.strip(data[:1])


def _bytes(pattern: str) -> bytes:
    """Return the bytes of a pattern; a bar itself is always written in hexadecimal."""
    parts = _HEX.split(pattern)
    return b"".join(
        bytes.fromhex(part) if number % 2 else part.encode("latin-1", "replace") for number, part in enumerate(parts)
    )
