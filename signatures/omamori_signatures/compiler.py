"""Turns a source directory into the content of a feed pack.

Pure apart from reading the source's files: the same files, serial, channel and time give the same bytes. The pack's
lists are named after the list, whatever the source file was called; rules lose their comments.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from omamori_protocol.errors import ProtocolError
from omamori_protocol.feed_manifest import (
    MAX_FILE_BYTES,
    FeedManifest,
    ListKind,
    PackFile,
    PackList,
    PackRules,
    parse_manifest,
)

from .errors import SourceError
from .feed_source import GENERATED_RULES, FeedSource, ListSource, read_feed_source
from .files import read_bounded
from .indicators import BadLine, DomainRules, ParsedList, read_list
from .rules import Rule, read_rules
from .templates import list_rules

MAX_SERIAL = 2**31 - 1
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListReport:
    """What became of one list."""

    name: str
    kind: str
    entries: int
    folded: int
    bad: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledFeed:
    """Content of a pack, and what the author should know about it."""

    manifest: FeedManifest
    files: Mapping[str, bytes] = dataclasses.field(repr=False)
    lists: tuple[ListReport, ...]
    bad_lines: tuple[BadLine, ...]


def parse_created(text: str) -> str:
    """Return the time of a pack, given as RFC 3339 in UTC or as seconds since 1970 (as SOURCE_DATE_EPOCH is).

    Raises:
        SourceError: It is neither.
    """
    try:
        if re.fullmatch(r"[0-9]{1,11}", text):
            return datetime.fromtimestamp(int(text), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if _TIME.fullmatch(text):
            datetime.fromisoformat(text)
            return text
    except (ValueError, OverflowError, OSError):
        pass
    raise SourceError(f"not a time: {text[:40]!r}", hint="for example 2026-11-22T04:00:00Z, or seconds since 1970")


def compile_feed(directory: Path, *, serial: int, created: str, channel: str) -> CompiledFeed:
    """Compile a source directory.

    Args:
        directory: Holds ``feed.toml``, ``lists/`` and ``rules/``.
        serial: Serial of the pack, 1 or more.
        created: Time written into it, see `parse_created`.
        channel: Feed channel it is for.

    Raises:
        SourceError: Something in the source breaks a rule.
    """
    if not 1 <= serial <= MAX_SERIAL:
        raise SourceError(f"serial {serial} is outside 1..{MAX_SERIAL}")
    source = read_feed_source(directory)
    domains = DomainRules()
    files: dict[str, bytes] = {}
    parsed: list[tuple[ListSource, ParsedList]] = []
    for item in source.lists:
        data = read_bounded(directory / item.file, MAX_FILE_BYTES)
        content = read_list(
            data,
            item.kind,
            item.file,
            domains=domains,
            allow_documentation_addresses=item.allow_documentation_addresses,
        )
        parsed.append((item, content))
        files[_list_path(item)] = "".join(f"{entry}\n" for entry in content.entries).encode()
    rules = _own_rules(directory, source)
    # The engine refuses a rule whose list of hashes is empty.
    generated = [
        rule for item, found in parsed if found.entries or item.kind is not ListKind.SHA256 for rule in list_rules(item)
    ]
    if generated:
        rules[GENERATED_RULES] = tuple(generated)
    files.update({path: "".join(f"{rule.text}\n" for rule in found).encode() for path, found in rules.items()})
    manifest = FeedManifest(
        serial=serial,
        created=created,
        channel=channel,
        engine_min=source.engine_min,
        files=tuple(
            PackFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in sorted(files.items())
        ),
        lists=tuple(_pack_list(item, content) for item, content in parsed),
        rules=tuple(PackRules(path=path, count=len(found)) for path, found in rules.items()),
    )
    try:
        checked = parse_manifest(manifest.to_json())
    except ProtocolError as err:
        raise SourceError(f"the feed breaks a rule of the pack's format: {err}", hint=err.hint) from err
    return CompiledFeed(
        manifest=checked,
        files=files,
        lists=tuple(
            ListReport(
                name=item.name,
                kind=item.kind.value,
                entries=len(content.entries),
                folded=content.folded_count,
                bad=content.bad_count,
            )
            for item, content in parsed
        ),
        bad_lines=tuple(line for _, content in parsed for line in content.bad_lines),
    )


def _list_path(item: ListSource) -> str:
    return f"lists/{item.name}.txt"


def _pack_list(item: ListSource, content: ParsedList) -> PackList:
    return PackList(
        name=item.name,
        kind=item.kind,
        path=_list_path(item),
        count=len(content.entries),
        function=item.function,
        severity=item.severity,
        action=item.action,
        category=item.category,
    )


def _own_rules(directory: Path, source: FeedSource) -> dict[str, tuple[Rule, ...]]:
    return {
        item.file: read_rules(read_bounded(directory / item.file, MAX_FILE_BYTES), item.file, sids=item.sids)
        for item in source.rules
    }
