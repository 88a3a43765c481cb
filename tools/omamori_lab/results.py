"""Results of scenes: checks with what was expected and what was seen. Pure values and their JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

FORMAT = 1
_MAX_SEEN = 500


@dataclasses.dataclass(frozen=True)
class Check:
    """One fact of a scene."""

    name: str
    expected: str
    seen: str
    ok: bool


class Checklist:
    """Collects the checks of a scene while it is played."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def add(self, name: str, *, expected: object, seen: object, ok: bool) -> bool:
        """Note a fact; return whether it is as expected."""
        self.checks.append(Check(name, str(expected), str(seen)[:_MAX_SEEN], ok))
        return ok

    def equal(self, name: str, expected: object, seen: object) -> bool:
        """Note a fact that must equal what is expected."""
        return self.add(name, expected=expected, seen=seen, ok=expected == seen)


@dataclasses.dataclass(frozen=True)
class SceneResult:
    """How a scene went.

    Attributes:
        scene: Its name.
        title: Its English title.
        checks: Its checks, in order.
        seconds: How long it took.
        error: Why it could not be played to its end, or None.
    """

    scene: str
    title: str
    checks: tuple[Check, ...]
    seconds: float
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it was played to its end and everything was as expected."""
        return self.error is None and bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def summary(self) -> str:
        """What was seen, in one line."""
        if self.error is not None:
            return self.error.splitlines()[0]
        wrong = [check for check in self.checks if not check.ok]
        if wrong:
            return "; ".join(f"{check.name}: expected {check.expected}, seen {check.seen}" for check in wrong)
        return f"{len(self.checks)} checks as expected"

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {
            "scene": self.scene,
            "title": self.title,
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "error": self.error,
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }


def report(
    results: Sequence[SceneResult],
    *,
    durations_s: Mapping[str, float],
    versions: Mapping[str, str],
    machine: Mapping[str, str],
) -> bytes:
    """Return the JSON of a whole run.

    Args:
        results: All scenes that were to be played, in order.
        durations_s: How long the stages took, in seconds.
        versions: Of image, feed and tools.
        machine: What it ran on.
    """
    body = {
        "format": FORMAT,
        "ok": bool(results) and all(result.ok for result in results),
        "scenes": [result.to_dict() for result in results],
        "durations_s": {name: round(seconds, 2) for name, seconds in durations_s.items()},
        "versions": dict(versions),
        "machine": dict(machine),
    }
    return (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode()
