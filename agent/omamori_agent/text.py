"""Making foreign text fit for a log line or a message: one line, printable, bounded."""

from __future__ import annotations


def clean_text(text: str, maximum: int) -> str:
    """Return `text` without control characters or line breaks, at most `maximum` characters long."""
    head = text[: maximum * 2]
    line = " ".join("".join(char if char.isprintable() else " " for char in head).split())
    return line if len(line) <= maximum else line[: maximum - 1] + "…"
