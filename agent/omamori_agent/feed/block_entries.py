"""The gate's block list as a stream: the address lists of a feed merged in order, and what differs between two feeds.

A line that is in several lists belongs to the first of them. Nothing here holds a list: a hundred thousand addresses
are a few blocks of lines at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from omamori_protocol.feed_lines import read_list_blocks
from omamori_protocol.feed_manifest import FeedManifest, ListKind, PackList
from omamori_protocol.vocabulary import Action

from .stored import StoredFeed

Entry = tuple[bytes, int]


def blocked_lists(manifest: FeedManifest) -> dict[int, PackList]:
    """Return the address lists that the gate enforces, by the number it knows them under."""
    lists = sorted((item for item in manifest.lists if item.kind is ListKind.IP), key=lambda item: item.name)
    return {number: item for number, item in enumerate(lists, start=1) if item.action is Action.BLOCKED}


def entries(feed: StoredFeed) -> Iterator[Entry]:
    """Yield every line of a feed's blocked lists once, in order, with the number of its list."""
    streams = [_lines(feed, number, item) for number, item in blocked_lists(feed.manifest).items()]
    last = b""
    for entry in heapq.merge(*streams):
        if entry[0] != last:
            last = entry[0]
            yield entry


def entry_changes(old: StoredFeed, new: StoredFeed) -> Iterator[tuple[bytes, int | None]]:
    """Yield what leads from one feed's block list to another's: a line with its list, or with None when it goes."""
    before, after = entries(old), entries(new)
    gone, come = next(before, None), next(after, None)
    while gone is not None or come is not None:
        if come is None or (gone is not None and gone[0] < come[0]):
            assert gone is not None
            yield gone[0], None
            gone = next(before, None)
        elif gone is None or come[0] < gone[0]:
            yield come
            come = next(after, None)
        else:
            if gone[1] != come[1]:
                yield come
            gone, come = next(before, None), next(after, None)


def _lines(feed: StoredFeed, number: int, item: PackList) -> Iterator[Entry]:
    for lines in read_list_blocks(feed.directory / item.path):
        for line in lines:
            yield line, number
