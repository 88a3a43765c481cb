"""Writes the history of a pack that was made of one directory of own lists: it can be explained like any other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from .compiler import CompiledFeed
from .feed_source import GENERATED_RULES, ListSource, read_feed_source
from .history import ALLOWED_NAME, RULES_NAME, AllowedRow, History, RuleRow
from .rules import parse_rule, rule_words


def record_own_feed(directory: Path, feed: CompiledFeed, history: History) -> None:
    """Write down what each entry of a compiled source directory comes from and since when it is in.

    Args:
        directory: The source directory.
        feed: What was compiled from it.
        history: Where serials are kept.

    Raises:
        SourceError: The directory is no longer what it was.
    """
    source = read_feed_source(directory)
    manifest = feed.manifest
    paths = {item.name: item.path for item in manifest.lists}
    writer = history.write(manifest.serial, manifest.created)
    for item in source.lists:
        lines = sorted(feed.files[paths[item.name]].decode().splitlines())
        writer.write_list(item.name, ((line, (item.name,)) for line in lines))
    nothing: list[AllowedRow] = []
    writer.write_dated(ALLOWED_NAME, nothing, keys=2)
    writer.write_dated(RULES_NAME, sorted(_rules(feed)), keys=1)
    origins = {rules.file: (rules.licence, rules.origin) for rules in source.rules}
    sources = [_source(item.name, item.licence, item.origin, feed, paths[item.name]) for item in source.lists]
    sources += [_source(file, *about, feed, file) for file, about in origins.items()]
    writer.finish(
        manifest,
        {
            "serial": manifest.serial,
            "created": manifest.created,
            "channel": manifest.channel,
            "sources": sources,
            "lists": {item.name: _meaning(item) for item in source.lists},
            "entries": {item.name: item.count for item in manifest.lists},
            "rules": {item.path: item.count for item in manifest.rules},
            "allowed": 0,
        },
    )


def _rules(feed: CompiledFeed) -> list[RuleRow]:
    rows = []
    for item in feed.manifest.rules:
        for number, line in enumerate(feed.files[item.path].decode().splitlines(), start=1):
            rule = parse_rule(line, f"{item.path}, line {number}")
            words = rule_words(rule)
            message = rule.text.partition('msg:"')[2].partition('";')[0]
            function, severity = words.get("omamori_function", ""), words.get("omamori_severity", "0")
            source = "lists" if item.path == GENERATED_RULES else item.path
            rows.append(RuleRow(f"{rule.sid:010d}", source, rule.action, message, function, severity))
    return rows


def _source(name: str, licence: str, origin: str, feed: CompiledFeed, path: str) -> dict[str, Any]:
    return {
        "source": name,
        "licence": licence,
        "attribution": "",
        "origin": origin,
        "fetched": feed.manifest.created,
        "sha256": hashlib.sha256(feed.files[path]).hexdigest(),
    }


def _meaning(item: ListSource) -> dict[str, Any]:
    return {"function": item.function.word, "severity": int(item.severity), "action": item.action.word}
