"""The table of contents of a feed pack: what lists and rules it holds and what they mean.

The manifest is the first member of the pack and names every other one with size and SHA-256. This module decides
from bytes only; reading archives is `feed_pack`'s part.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from .errors import MalformedError, OversizeError, PackRejectedError, UnknownVersionError
from .topics import check_channel
from .vocabulary import Action, Function, Severity

FORMAT = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 256 * 1024
MAX_FILES = 256
MAX_LISTS = 64
MAX_FILE_BYTES = 128 * 1024 * 1024
MAX_TOTAL_BYTES = 256 * 1024 * 1024
MAX_ENTRIES = 4_000_000
MAX_TEXT_BYTES = 1024

_PATH = re.compile(r"(rules|lists)/[a-z0-9][a-z0-9._-]{0,63}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_VERSION = re.compile(r"\d{1,3}(\.\d{1,5}){1,3}")


class ListKind(StrEnum):
    """What the lines of a list are, and thereby which part of the box matches them.

    `TEXT` is text that one of the pack's own rules compares with something else than a name, for example with the
    paths of URLs: 1 to `MAX_TEXT_BYTES` printable ASCII characters without spaces.
    """

    DOMAIN = "domain"
    IP = "ip"
    SHA256 = "sha256"
    TEXT = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackFile:
    """One member of the pack; `size` in bytes, `sha256` in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackList:
    """A list of indicators and what a match means."""

    name: str
    kind: ListKind
    path: str
    count: int
    function: Function
    severity: Severity
    action: Action
    category: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackRules:
    """A file of rules and how many active rules it holds."""

    path: str
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedManifest:
    """Content of ``manifest.json``; `created` is RFC 3339 in UTC, whole seconds."""

    serial: int
    created: str
    channel: str
    engine_min: str
    files: tuple[PackFile, ...]
    lists: tuple[PackList, ...]
    rules: tuple[PackRules, ...]

    def to_json(self) -> bytes:
        """Return the canonical bytes: sorted keys, no superfluous white space, a final newline."""
        body = {
            "format": FORMAT,
            "serial": self.serial,
            "created": self.created,
            "channel": self.channel,
            "engine_min": self.engine_min,
            "files": [dataclasses.asdict(item) for item in sorted(self.files, key=lambda item: item.path)],
            "lists": [
                {
                    "name": item.name,
                    "kind": item.kind.value,
                    "path": item.path,
                    "count": item.count,
                    "function": item.function.word,
                    "severity": int(item.severity),
                    "action": item.action.word,
                    "category": item.category,
                }
                for item in sorted(self.lists, key=lambda item: item.name)
            ],
            "rules": [dataclasses.asdict(item) for item in sorted(self.rules, key=lambda item: item.path)],
        }
        return (json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n").encode()


def _keys(body: Any, expected: set[str], what: str) -> Mapping[str, Any]:
    if not isinstance(body, dict) or set(body) != expected:
        found = sorted(map(str, body)) if isinstance(body, dict) else type(body).__name__
        raise PackRejectedError(f"{what}: expected the keys {sorted(expected)}, found {str(found)[:200]}")
    return body


def _text(value: Any, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise PackRejectedError(f"{what}: {str(value)[:80]!r} is not allowed")
    return value


def _number(value: Any, low: int, high: int, what: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise PackRejectedError(f"{what}: {str(value)[:40]} is outside {low}..{high}")
    return value


def _items(value: Any, maximum: int, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise PackRejectedError(f"{what}: expected a list")
    if len(value) > maximum:
        raise OversizeError(f"{what}: {len(value)} items, allowed {maximum}", limit=maximum)
    return value


def _file(body: Any) -> PackFile:
    item = _keys(body, {"path", "size", "sha256"}, "file")
    return PackFile(
        path=_text(item["path"], _PATH, "path"),
        size=_number(item["size"], 0, MAX_FILE_BYTES, "size"),
        sha256=_text(item["sha256"], _DIGEST, "sha256"),
    )


def _list(body: Any) -> PackList:
    item = _keys(body, {"name", "kind", "path", "count", "function", "severity", "action", "category"}, "list")
    category = item["category"]
    try:
        return PackList(
            name=_text(item["name"], _NAME, "list name"),
            kind=ListKind(item["kind"]),
            path=_text(item["path"], _PATH, "path"),
            count=_number(item["count"], 0, MAX_ENTRIES, "count"),
            function=Function(Function.from_word(str(item["function"]))),
            severity=Severity(_number(item["severity"], 1, 3, "severity")),
            action=Action(Action.from_word(str(item["action"]))),
            category=None if category is None else _text(category, _NAME, "category"),
        )
    except ValueError as err:
        raise PackRejectedError(f"list {item['name']}: {err}") from err


def _rules(body: Any) -> PackRules:
    item = _keys(body, {"path", "count"}, "rules")
    return PackRules(path=_text(item["path"], _PATH, "path"), count=_number(item["count"], 0, MAX_ENTRIES, "count"))


def parse_manifest(data: bytes) -> FeedManifest:
    """Read and check ``manifest.json``.

    Raises:
        OversizeError: Too many bytes or items.
        UnknownVersionError: Another format of pack.
        PackRejectedError: Anything else that is not as it must be; also a name or path twice, a list or rule file
            that is not among the files, or more than `MAX_TOTAL_BYTES` in all.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise OversizeError(f"manifest of {len(data)} bytes, allowed {MAX_MANIFEST_BYTES}", limit=MAX_MANIFEST_BYTES)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise PackRejectedError(f"manifest is not JSON: {str(err)[:80]}") from err
    if isinstance(body, dict) and body.get("format") != FORMAT:
        raise UnknownVersionError("feed pack", body.get("format"))
    top = _keys(body, {"format", "serial", "created", "channel", "engine_min", "files", "lists", "rules"}, "manifest")
    try:
        channel = check_channel(str(top["channel"]))
    except MalformedError as err:
        raise PackRejectedError(str(err)) from err
    manifest = FeedManifest(
        serial=_number(top["serial"], 0, 2**31 - 1, "serial"),
        created=_text(top["created"], _TIME, "created"),
        channel=channel,
        engine_min=_text(top["engine_min"], _VERSION, "engine_min"),
        files=tuple(_file(item) for item in _items(top["files"], MAX_FILES, "files")),
        lists=tuple(_list(item) for item in _items(top["lists"], MAX_LISTS, "lists")),
        rules=tuple(_rules(item) for item in _items(top["rules"], MAX_FILES, "rules")),
    )
    _check_references(manifest)
    return manifest


def _check_references(manifest: FeedManifest) -> None:
    paths = [item.path for item in manifest.files]
    used = [item.path for item in manifest.lists] + [item.path for item in manifest.rules]
    names = [item.name for item in manifest.lists]
    for what, values in (("file", paths), ("use of a file", used), ("list", names)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise PackRejectedError(f"{what} twice: {', '.join(twice)[:120]}")
    if set(paths) != set(used):
        raise PackRejectedError(f"files and their uses differ: {', '.join(sorted(set(paths) ^ set(used)))[:120]}")
    total = sum(item.size for item in manifest.files)
    if total > MAX_TOTAL_BYTES:
        raise OversizeError(f"pack holds {total} bytes, allowed {MAX_TOTAL_BYTES}", limit=MAX_TOTAL_BYTES)
