"""Makes text from outside safe to show to a person.

Escaping for HTML is the template engine's job. This module removes what escaping leaves in place and what can still
lie to a reader: characters that reorder the line (bidirectional controls), that are invisible, that break lines, or
that pile up over the neighbouring lines.
"""

from __future__ import annotations

import unicodedata

_MAX_MARKS = 2  # combining marks kept after one another; real languages need no more

# Cc: controls, Cf: invisible formatting incl. all bidirectional controls, Zl/Zp: line and paragraph separators,
# Cs: lone surrogates, Co: private use (looks differ from machine to machine), Cn: unassigned.
_REMOVED = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"})


def harmless(text: str, *, limit: int = 300) -> str:
    """Return `text` without characters that could mislead its reader.

    Args:
        text: Anything a box, a feed or an attacker may have written.
        limit: Longest result in characters; what is longer ends in an ellipsis.
    """
    kept: list[str] = []
    marks = 0
    for char in text[: limit * 4]:
        category = unicodedata.category(char)
        if category in _REMOVED:
            continue
        if category.startswith("M"):
            marks += 1
            if marks > _MAX_MARKS:
                continue
        else:
            marks = 0
        kept.append(char)
    result = "".join(kept)
    return result if len(result) <= limit else result[: limit - 1] + "…"
