"""What people read, in Japanese and in English, complete in both: the type checker counts the fields.

The Japanese is for owners of small offices, not for engineers; the English says the same.
"""

from __future__ import annotations

from .catalogue import Wording
from .english import ENGLISH
from .japanese import JAPANESE

__all__ = ["ENGLISH", "JAPANESE", "Wording", "wording_for"]


def wording_for(language: str) -> Wording:
    """Return the words of ``en``, or Japanese for anything else."""
    return ENGLISH if language == "en" else JAPANESE
