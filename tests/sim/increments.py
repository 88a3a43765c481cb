"""Increments between packs for tests, good ones and bad ones. Not the product's writer, but its frames."""

from __future__ import annotations

import hashlib
import io

from omamori_protocol.feed_increment import IncrementHead, IncrementWriter
from omamori_protocol.feed_manifest import FeedManifest, ListKind

from .packs import PackSource


def make_increment(old: PackSource, new: PackSource, *, kinds: tuple[ListKind, ...] = tuple(ListKind)) -> bytes:
    """Return the increment between two packs; lists of other kinds than `kinds` travel whole."""
    out = io.BytesIO()
    manifest = new.manifest()
    writer = IncrementWriter(out, make_head(old.manifest(), manifest))
    before, after = old.files(), new.files()
    lists = {item.path: item.kind for item in manifest.lists}
    for index, path in enumerate(sorted(after)):
        if path in before and lists.get(path) in kinds:
            lines, wanted = before[path].splitlines(), set(after[path].splitlines())
            removed = [place for place, line in enumerate(lines) if line not in wanted]
            writer.changes(index, removed, sorted(wanted - set(lines)))
        elif before.get(path) != after[path]:
            writer.whole(index, io.BytesIO(after[path]))
    writer.close()
    return out.getvalue()


def make_head(old: FeedManifest, new: FeedManifest) -> IncrementHead:
    """Return the first frame of an increment between two packs."""
    base = hashlib.sha256(old.to_json()).digest()
    return IncrementHead(start=old.serial, goal=new.serial, base_sha256=base, manifest=new.to_json())
