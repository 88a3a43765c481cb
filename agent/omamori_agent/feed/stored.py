"""A feed on disk, as a value."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from omamori_protocol.feed_manifest import FeedManifest

from .exclusion import NOTHING, LeftOut

EMPTY = FeedManifest(
    serial=0, created="1970-01-01T00:00:00Z", channel="empty", engine_min="8.0.0", files=(), lists=(), rules=()
)


@dataclasses.dataclass(frozen=True)
class StoredFeed:
    """A complete feed on disk."""

    manifest: FeedManifest
    directory: Path
    left_out: LeftOut = NOTHING

    @property
    def serial(self) -> int:
        """Its serial; 0 is the image's empty feed."""
        return self.manifest.serial

    @property
    def rule_count(self) -> int:
        """How many rules the engine should have of it."""
        return sum(item.count for item in self.manifest.rules) - self.left_out.count

    def list_path(self, name: str) -> Path | None:
        """Return the file of a list, or None if it has no such list."""
        for item in self.manifest.lists:
            if item.name == name:
                return self.directory / item.path
        return None
