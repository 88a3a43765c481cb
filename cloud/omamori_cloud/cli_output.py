"""How the command line prints: JSON for scripts, a line each for pipes, a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from .clock import JAPAN, to_datetime
from .harmless import harmless


def local_time(at_ms: int | None) -> str:
    """Return a moment in Japanese time."""
    return "never" if at_ms is None else f"{to_datetime(at_ms).astimezone(JAPAN):%Y-%m-%d %H:%M:%S}"


def print_json(value: Any) -> None:
    """Print an object for scripts."""
    print(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows, harmless whatever stands in them."""
    if not sys.stdout.isatty():  # one line each, for grep
        for row in rows:
            print("\t".join(harmless(cell) for cell in row))
        return
    table = Table(*header, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(harmless(cell).replace("[", r"\[") for cell in row))
    Console().print(table)
