"""The table of bad firmware: what was wrong, what the box did, which slot runs, why it says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One line.

    Attributes:
        case: What was wrong.
        version: The version that was attempted.
        did: How it ended.
        slot: Slot that runs after it.
        reason: What the box reports.
    """

    case: str
    version: str
    did: str
    slot: str
    reason: str


def render(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the table's lines."""
    rows = [("case", "version", "what the box did", "slot", "what it reports")]
    rows += [dataclasses.astuple(outcome) for outcome in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows]
