"""The file that omamori-herald writes, for tests of who reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def herald_body(**changes: Any) -> dict[str, Any]:
    """Return what stands in the file of a box that protects; `power` is a tuple of number, kind and milliseconds."""
    serial, kind, outage_ms = changes.pop("power", (1, "cold", 0))
    body: dict[str, Any] = {
        "version": 1,
        "is_up": True,
        "said": "forwarding",
        "chip": "1.4.0",
        "lease_ms": 150,
        "power": {"serial": serial, "kind": kind, "outage_ms": outage_ms},
        "state": 2,
        "through": 1,
        "cause": 1,
        "moves": 1,
        "resets": 0,
        "code": 2111,
        "good": 900,
        "damaged": 0,
        "lost": 0,
        "unknown": 0,
        "uptime_s": 40,
        "slowest_ms": 3,
        "chip_restarts": 0,
        "celsius": 41,
        "millivolts": 3300,
        "past_s": 12,
        "line_good": 950,
        "line_damaged": 0,
        "line_unknown": 0,
    }
    assert set(changes) <= set(body)
    return body | changes


def write_herald_file(path: Path, **changes: Any) -> None:
    """Put it at its place as the herald does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(herald_body(**changes)) + "\n")
    fresh.replace(path)
