"""Writes what the engine loads beside an unpacked pack: rules in one file, lists in its own form, their declaration.

What a feed shares with the one it was made from by increments is linked, not written again.
"""

from __future__ import annotations

import os
from pathlib import Path

from omamori_protocol.feed_manifest import FeedManifest, ListKind, PackList

from .canary import CANARY_NAME, CANARY_RULES_NAME, write_canary
from .exclusion import RULES_NAME, LeftOut, save_left_out, write_rules
from .lists import DATASETS, check_networks, write_dataset, write_digests
from .stored import StoredFeed

DATASETS_NAME = "datasets.yaml"
ENGINE_DIRECTORY = "engine"
_MIB = 1024 * 1024
_ENTRY_BYTES = 512  # generous: the engine needs 110 to 200 bytes for an entry
_MAX_BUCKETS = 65536  # the engine's own limit for one dataset
_MIN_BUCKETS = 1024
_SUFFIXES = {**dict.fromkeys(DATASETS, "lst"), ListKind.SHA256: "sha256"}


def write_engine_files(
    manifest: FeedManifest, directory: Path, rule_ids: frozenset[int], base: StoredFeed | None = None
) -> LeftOut:
    """Check every list of a pack and write the engine's form of it.

    Args:
        manifest: Of the pack.
        directory: The unpacked pack; ``engine`` is made in it.
        rule_ids: Rules that are left out.
        base: A stored feed on the same file system whose files may be linked.

    Returns:
        What was left out of the rules.

    Raises:
        PackRefusedError: A list is not as it must be.
    """
    engine = directory / ENGINE_DIRECTORY
    engine.mkdir()
    left_out = _write_rules(manifest, directory, rule_ids, base)
    save_left_out(engine, left_out)
    declarations = []
    for item in manifest.lists:
        suffix = _SUFFIXES.get(item.kind)
        target = engine / f"{item.name}.{suffix}" if suffix else None
        if not _reuse(manifest, item, target, base):
            _write_list(item, directory / item.path, target)
        if item.kind in DATASETS:
            declarations.append(_declaration(item.name, item.count))
    text = "%YAML 1.1\n---\n" + ("datasets:\n" + "".join(declarations) if declarations else "datasets: {}\n")
    (engine / DATASETS_NAME).write_text(text, encoding="ascii")
    return left_out


def _write_rules(manifest: FeedManifest, directory: Path, rule_ids: frozenset[int], base: StoredFeed | None) -> LeftOut:
    engine = directory / ENGINE_DIRECTORY
    if base is not None and base.left_out.is_just(rule_ids) and _digests(base.manifest) == _digests(manifest):
        for name in (RULES_NAME, CANARY_NAME, CANARY_RULES_NAME):
            if (base.directory / ENGINE_DIRECTORY / name).exists():  # feeds of older versions have no canary
                os.link(base.directory / ENGINE_DIRECTORY / name, engine / name)
        return base.left_out
    write_canary(engine)
    return write_rules(engine, rule_sources(manifest, directory), rule_ids)


def rule_sources(manifest: FeedManifest, directory: Path) -> list[Path]:
    """Return the files that the engine's rules are made of: the pack's, in order, and the one about the canary."""
    canary = directory / ENGINE_DIRECTORY / CANARY_RULES_NAME
    sources = [directory / rules.path for rules in sorted(manifest.rules, key=lambda item: item.path)]
    return [*sources, canary] if canary.exists() else sources


def _digests(manifest: FeedManifest) -> list[str]:
    digests = {item.path: item.sha256 for item in manifest.files}
    return [digests[item.path] for item in sorted(manifest.rules, key=lambda item: item.path)]


def _reuse(manifest: FeedManifest, item: PackList, target: Path | None, base: StoredFeed | None) -> bool:
    """Link the engine's form of a list if `base` has the same list, and so has checked it; return whether it has."""
    if base is None:
        return False
    same = {old.name: old for old in base.manifest.lists}.get(item.name)
    if same is None or (same.kind, same.path, same.count) != (item.kind, item.path, item.count):
        return False
    if next(file for file in manifest.files if file.path == item.path) not in base.manifest.files:
        return False
    if target is not None:
        os.link(base.directory / ENGINE_DIRECTORY / target.name, target)
    return True


def _write_list(item: PackList, source: Path, target: Path | None) -> None:
    match item.kind:
        case ListKind.DOMAIN | ListKind.TEXT:
            assert target is not None
            write_dataset(source, target, name=item.name, count=item.count, kind=item.kind)
        case ListKind.SHA256:
            assert target is not None
            write_digests(source, target, name=item.name, count=item.count)
        case ListKind.IP:
            check_networks(source, name=item.name, count=item.count)


def _declaration(name: str, count: int) -> str:
    """Return the engine's declaration of a dataset (`name` has passed the manifest's own check)."""
    buckets = min(max(1 << max(count - 1, 1).bit_length(), _MIN_BUCKETS), _MAX_BUCKETS)
    memory_mib = max(64, count * _ENTRY_BYTES // _MIB + 1)
    return f"  {name}:\n    type: string\n    load: {name}.lst\n    memcap: {memory_mib} MiB\n    hashsize: {buckets}\n"
