"""Asks the engine whether it holds a feed. Samples, no proof: a count of rules and one entry of each list."""

from __future__ import annotations

from pathlib import Path

from omamori_agent.engine import EngineControl, EngineRefusedError
from omamori_protocol.feed_manifest import MAX_TEXT_BYTES

from .lists import DATASETS
from .stored import StoredFeed


def find_difference(control: EngineControl, feed: StoredFeed) -> str | None:
    """Return what the engine lacks of a feed, or None if nothing is missing as far as samples tell.

    Raises:
        EngineUnavailableError: The engine cannot be asked.
    """
    stats = control.ruleset_stats()
    if stats.failed or stats.loaded < feed.rule_count:
        failed = "".join(control.failed_rules(maximum=1))
        return f"the engine loaded {stats.loaded} of {feed.rule_count} rules, {stats.failed} failed {failed}".rstrip()
    for item in feed.manifest.lists:
        if item.kind not in DATASETS:
            continue
        try:
            # Of an empty list, only that it is there can be asked.
            found = control.has_entry(item.name, _first_line(feed.directory / item.path) or b"-") or item.count == 0
        except EngineRefusedError:
            found = False
        if not found:
            return f"the engine lacks list {item.name}"
    return None


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(MAX_TEXT_BYTES + 1).rstrip(b"\n")
