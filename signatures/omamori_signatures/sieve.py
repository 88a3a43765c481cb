"""Leaves out what the engine refuses, and what would cost it too much: rule by rule, by the engine's own word.

The engine reads all rules and names each that it refuses with its line. Those are taken out and the rest is tried
again, because an error may hide another; after `MAX_ROUNDS` the whole set is refused. Of those it takes it says what it
looks for first, and `prefilters` which of them every box would pay for.
"""

from __future__ import annotations

import dataclasses

from .engine import Engine
from .errors import EngineError
from .prefilters import find_expensive
from .rules import Rule

MAX_ROUNDS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """A rule that is refused: the engine's own words, or what is too expensive about it."""

    sid: int
    reason: str


def sieve(engine: Engine, rules: tuple[Rule, ...]) -> tuple[tuple[Rule, ...], tuple[Refused, ...]]:
    """Return the rules that the engine takes at a bearable cost, and the others.

    Args:
        engine: Asked with nothing but these rules, so none may need a list.
        rules: All rules of one pack that come from others.

    Raises:
        EngineError: It cannot be started, or still refuses some after `MAX_ROUNDS`.
    """
    refused: list[Refused] = []
    left = list(rules)
    for _ in range(MAX_ROUNDS):
        complaints = engine.complaints([rule.text for rule in left])
        if not complaints:
            return _affordable(engine, left, refused)
        refused += [Refused(sid=left[place].sid, reason=reason) for place, reason in sorted(complaints.items())]
        left = [rule for place, rule in enumerate(left) if place not in complaints]
    raise EngineError(f"the engine still refuses rules after {MAX_ROUNDS} rounds")


def _affordable(
    engine: Engine, rules: list[Rule], refused: list[Refused]
) -> tuple[tuple[Rule, ...], tuple[Refused, ...]]:
    expensive = find_expensive(engine.prefilters([rule.text for rule in rules])) if rules else {}
    refused += [Refused(sid=sid, reason=f"too expensive: {reason}") for sid, reason in sorted(expensive.items())]
    return tuple(rule for rule in rules if rule.sid not in expensive), tuple(refused)
