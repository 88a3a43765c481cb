"""What the command line prints for programs."""

from __future__ import annotations

import json
from datetime import datetime


def print_json(value: object) -> None:
    """Print JSON; times become ``2030-01-01T00:00:00Z``."""

    def plain(item: object) -> object:
        if isinstance(item, datetime):
            return item.strftime("%Y-%m-%dT%H:%M:%SZ")
        raise TypeError(type(item).__name__)

    print(json.dumps(value, indent=2, default=plain))
