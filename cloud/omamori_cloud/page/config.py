"""What the page needs to know from the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageConfig:
    """What the page needs to know; `hosts` None accepts any host name."""

    default_language: str = "ja"
    offline_after_s: int = 180
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hosts: frozenset[str] | None = None
