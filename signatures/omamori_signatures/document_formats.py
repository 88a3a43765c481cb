"""Readers of the JSON documents in which indicators are shared.

* stix: bundles of STIX 2.1 (OASIS); of an indicator's pattern a box takes comparisons that each suffice by
  themselves, that is those joined by OR. A pattern that asks for several things together or several times says
  nothing to a box, and so does one that is revoked, not yet or no longer valid;
* misp: events (MISP core format), attributes that their author marks as fit for detection (`to_ids`);
* misp-feed: the same with the manifest that a feed is published with (`misp_feed`);
* warninglist: MISP's lists of what is known to be good, for allow-lists.

A document is read as a whole, up to `MAX_DOCUMENT_BYTES`. Line numbers are places of objects, counted from 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from .archive import Member
from .catalogue import Format, Source
from .line_formats import Reader
from .tokens import Bad, Saying, Skipped, Token, TokenKind, kind_of

MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
MAX_OBJECTS = 500_000
_MAX_PATTERN = 64 * 1024

_STIX_PATHS = {
    "domain-name:value": TokenKind.DOMAIN,
    "ipv4-addr:value": TokenKind.IP,
    "ipv6-addr:value": TokenKind.IP,
    "url:value": TokenKind.URL,
    "file:hashes.sha-256": TokenKind.SHA256,
    "file:hashes.sha256": TokenKind.SHA256,
    "file:hashes.md5": TokenKind.MD5,
    "file:hashes.sha-1": TokenKind.SHA1,
    "file:hashes.sha1": TokenKind.SHA1,
}
# One word of a pattern: a string, an object path, an operator, or a bracket.
_WORD = re.compile(
    r"""\s*(?:
    '(?P<string>(?:[^'\\]|\\.)*)'
    |(?P<path>[a-z0-9-]+:[A-Za-z0-9_.\[\]*-]+(?:'[^']*')?[A-Za-z0-9_.\[\]*-]*)
    |(?P<word>[A-Za-z]+)
    |(?P<sign>!=|<=|>=|[=<>\[\](),])
    |(?P<number>[0-9][0-9.]*)
    )""",
    re.VERBOSE,
)

# What asks for more than one thing, or for one several times.
_TOGETHER = {"AND", "FOLLOWEDBY", "NOT", "REPEATS"}

MANIFEST_NAME = "manifest.json"
_EVENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_MISP_TYPES = {
    "domain": TokenKind.DOMAIN,
    "hostname": TokenKind.DOMAIN,
    "ip-dst": TokenKind.IP,
    "url": TokenKind.URL,
    "uri": TokenKind.URL,
    "sha256": TokenKind.SHA256,
    "md5": TokenKind.MD5,
    "sha1": TokenKind.SHA1,
}
# Types of two values, and which of the two is the indicator.
_MISP_PAIRS = {
    "domain|ip": (TokenKind.DOMAIN, 0),
    "hostname|port": (TokenKind.DOMAIN, 0),
    "filename|sha256": (TokenKind.SHA256, 1),
    "filename|md5": (TokenKind.MD5, 1),
    "filename|sha1": (TokenKind.SHA1, 1),
    "malware-sample": (TokenKind.MD5, 1),
}


class _PatternError(ValueError):
    """A pattern is not one; the text is the reason."""


def _document(member: Member) -> Any:
    data = member.stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"larger than {MAX_DOCUMENT_BYTES} bytes")
    return json.loads(data)


def read_stix(member: Member, source: Source) -> Iterator[Saying]:
    """Read a bundle, or a single indicator."""
    try:
        body = _document(member)
    except (ValueError, RecursionError) as err:
        yield Bad(1, f"{member.name[-60:]}: {str(err)[:80]}")
        return
    objects = body.get("objects", [body]) if isinstance(body, dict) else body
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS:
        yield Bad(1, f"{member.name[-60:]}: not a bundle of at most {MAX_OBJECTS} objects")
        return
    for number, item in enumerate(objects, start=1):
        if not isinstance(item, dict) or item.get("type") != "indicator":
            continue
        if item.get("revoked") is True or item.get("pattern_type", "stix") != "stix" or not _is_valid(item, source):
            yield Skipped(number)
            continue
        try:
            found = list(_pattern(item.get("pattern")))
        except _PatternError as err:
            yield Bad(number, str(err))
            continue
        if not found:
            yield Skipped(number)
        for kind, text in found:
            yield Token(number, kind, text)


def _is_valid(item: dict[str, Any], source: Source) -> bool:
    """Tell whether the pack's time is within the indicator's; a bound that is no time is none."""
    if source.as_of is None:
        return True
    begin, end = (_time(item.get(name)) for name in ("valid_from", "valid_until"))
    return (begin is None or begin <= source.as_of) and (end is None or source.as_of < end)


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _pattern(pattern: object) -> Iterator[tuple[TokenKind, str]]:
    """Yield the comparisons of a pattern that each suffice; nothing if any two belong together."""
    if not isinstance(pattern, str) or not 0 < len(pattern) <= _MAX_PATTERN:
        raise _PatternError("no pattern, or too long")
    words = list(_words(pattern))
    if any(kind == "word" and text.upper() in _TOGETHER for kind, text in words):
        return
    for place, (kind, path) in enumerate(words):
        wanted = _STIX_PATHS.get(path.replace("'", "").lower()) if kind == "path" else None
        if wanted is not None:
            for value in _values(words, place + 1):
                yield wanted, re.sub(r"\\(.)", r"\1", value)


def _values(words: list[tuple[str, str]], place: int) -> Iterator[str]:
    """Yield what an object path may be equal to: one text, each of a set, or a part of a network."""
    match [(kind, text.upper()) for kind, text in words[place : place + 2]]:
        case [("sign", "="), ("string", _)] | [("word", "ISSUBSET"), ("string", _)]:
            yield words[place + 1][1]
        case [("word", "IN"), ("sign", "(")]:
            for kind, text in words[place + 2 :]:
                if (kind, text) == ("sign", ")"):
                    return
                if kind == "string":
                    yield text


def _words(pattern: str) -> Iterator[tuple[str, str]]:
    position = 0
    text = pattern.rstrip()
    while position < len(text):
        match = _WORD.match(text, position)
        if match is None or match.lastgroup is None:
            raise _PatternError(f"not a pattern, from its character {position + 1} on")
        yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def read_misp(member: Member, _source: Source) -> Iterator[Saying]:
    """Read an event, or a list of events."""
    if not member.name.endswith(".json") or member.name.rpartition("/")[2] == MANIFEST_NAME:
        return
    try:
        body = _document(member)
    except (ValueError, RecursionError) as err:
        yield Bad(1, f"{member.name[-60:]}: {str(err)[:80]}")
        return
    attributes = list(_attributes(body))
    if len(attributes) > MAX_OBJECTS:
        yield Bad(1, f"{member.name[-60:]}: more than {MAX_OBJECTS} attributes")
        return
    for number, item in enumerate(attributes, start=1):
        yield _attribute(number, item)


def read_misp_feed(member: Member, source: Source) -> Iterator[Saying]:
    """Read a file of a feed: an event, or the manifest, of which only what is no id of an event is told."""
    if member.name.rpartition("/")[2] != MANIFEST_NAME:
        yield from read_misp(member, source)
        return
    try:
        body = _document(member)
    except (ValueError, RecursionError) as err:
        yield Bad(1, f"{member.name[-60:]}: {str(err)[:80]}")
        return
    if not isinstance(body, dict):
        yield Bad(1, f"{member.name[-60:]}: not an object of events")
        return
    for number, name in enumerate(body, start=1):
        if not is_event_id(name):
            yield Bad(number, f"no id of an event: {name[:40]!r}")


def is_event_id(name: str) -> bool:
    """Tell whether a name is a UUID; one that is not never becomes a part of a path or a URL."""
    return _EVENT_ID.fullmatch(name) is not None


def _attributes(body: Any) -> Iterator[Any]:
    events = body.get("response", body) if isinstance(body, dict) else body
    for entry in events if isinstance(events, list) else [events]:
        event = entry.get("Event", entry) if isinstance(entry, dict) else {}
        holders = [event, *_list(event, "Object")]
        for holder in holders:
            yield from _list(holder, "Attribute")


def _list(holder: Any, name: str) -> list[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    return found if isinstance(found, list) else []


def _attribute(number: int, item: Any) -> Saying:
    if not isinstance(item, dict) or not isinstance(item.get("value"), str):
        return Bad(number, "an attribute without a value")
    name, value = str(item.get("type")), item["value"].strip()
    if item.get("to_ids") is not True or item.get("deleted") is True:
        return Skipped(number)
    if name in _MISP_TYPES:
        return Token(number, _MISP_TYPES[name], value)
    if name in _MISP_PAIRS:
        kind, place = _MISP_PAIRS[name]
        parts = value.split("|")
        return Token(number, kind, parts[place].strip()) if len(parts) > place else Bad(number, f"not a {name}")
    return Skipped(number)


def read_warninglist(member: Member, _source: Source) -> Iterator[Saying]:
    """Read a list of what is known to be good."""
    if not member.name.endswith(".json"):
        return
    try:
        body = _document(member)
        entries = body["list"]
    except (ValueError, RecursionError, KeyError, TypeError) as err:
        yield Bad(1, f"{member.name[-60:]}: {str(err)[:80]}")
        return
    if not isinstance(entries, list) or len(entries) > MAX_OBJECTS:
        yield Bad(1, f"{member.name[-60:]}: not a list of at most {MAX_OBJECTS} entries")
        return
    for number, entry in enumerate(entries, start=1):
        if isinstance(entry, str) and entry:
            # A leading dot means everything below; the name itself is what has to be kept reachable.
            text = entry.strip().lstrip(".")
            yield Token(number, kind_of(text), text)
        else:
            yield Bad(number, "not a text")


DOCUMENT_READERS: dict[Format, Reader] = {
    Format.STIX: read_stix,
    Format.MISP: read_misp,
    Format.MISP_FEED: read_misp_feed,
    Format.WARNINGLIST: read_warninglist,
}
