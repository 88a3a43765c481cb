"""The ledger as a line of JSON, and back.

What it reads was written by us, perhaps by an older version: anything unexpected means that there is none.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from omamori_agent.gate import Count, Uninspected
from omamori_protocol.vocabulary import EngineState, UninspectedReason

from .book import Book, Entry

MAX_BYTES = 4096
_VERSION = 1
_MAX_NUMBER = 2**64


class BadStateError(ValueError):
    """The text is no ledger."""


@dataclasses.dataclass(frozen=True)
class SavedBook:
    """A ledger and the boot of the machine it belongs to."""

    boot_id: str
    book: Book


def encode(saved: SavedBook) -> str:
    """Return it as text of at most `MAX_BYTES` characters."""
    book = saved.book
    body = {
        "version": _VERSION,
        "boot_id": saved.boot_id[:64],
        "at_s": round(book.at_s, 3),
        "engine": int(book.engine),
        "engine_s": round(book.engine_s, 3),
        "passed_by_s": round(book.passed_by_s, 3),
        "past_s": book.past_s,
        "counts": [[int(reason), count.packets, count.bytes] for reason, count in book.counts.items()],
        "entries": [
            [
                int(entry.reason),
                entry.began_ms,
                round(entry.began_s, 3),
                round(entry.active_s, 3),
                round(entry.seconds, 3),
                entry.packets,
                entry.size_bytes,
            ]
            for entry in book.entries
        ],
    }
    return json.dumps(body, separators=(",", ":"))


def decode(text: str) -> SavedBook:
    """Read it.

    Raises:
        BadStateError: It is too long, or not what `encode` writes.
    """
    if len(text) > MAX_BYTES:
        raise BadStateError(f"more than {MAX_BYTES} characters")
    try:
        body = _body(text)
        counts = {Uninspected(reason): Count(_whole(packets), _whole(size)) for reason, packets, size in body["counts"]}
        entries = {entry.reason: entry for entry in map(_entry, body["entries"])}
        book = Book(
            at_s=_number(body["at_s"]),
            engine=EngineState(body["engine"]),
            engine_s=_number(body["engine_s"]),
            passed_by_s=_number(body["passed_by_s"]),
            counts=counts,
            entries=tuple(entries.values()),
            past_s=None if body.get("past_s") is None else _whole(body["past_s"]),  # older versions have none
        )
    except BadStateError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise BadStateError(str(err)) from err
    return SavedBook(body["boot_id"], book)


def _body(text: str) -> dict[str, Any]:
    body = json.loads(text)
    if not isinstance(body, dict) or body.get("version") != _VERSION or not isinstance(body.get("boot_id"), str):
        raise BadStateError("not a ledger of this version")
    return body


def _entry(row: Any) -> Entry:
    reason, began_ms, began_s, active_s, seconds, packets, size_bytes = row
    return Entry(
        reason=UninspectedReason(reason),
        began_ms=_whole(began_ms),
        began_s=_number(began_s),
        active_s=_number(active_s, minimum=-_MAX_NUMBER),
        seconds=_number(seconds),
        packets=_whole(packets),
        size_bytes=_whole(size_bytes),
    )


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_NUMBER:
        raise BadStateError(f"{value!r} is no count")
    return value


def _number(value: Any, *, minimum: float = 0.0) -> float:
    if type(value) not in {int, float} or not minimum <= value < _MAX_NUMBER:
        raise BadStateError(f"{value!r} is no number of seconds")
    return float(value)
