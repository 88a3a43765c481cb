"""What the boxes of a ring have reported, added up."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Iterable


class Outcome(enum.Enum):
    """What is known of a release on one box."""

    PENDING = "pending"  # reached, but the box has not taken it yet or was not on
    GOOD = "good"
    REFUSED = "refused"  # the box did not accept it
    FAILED = "failed"
    ROLLED_BACK = "rolled back"
    SILENT = "silent"  # took it, and was not heard of since
    REGRESSED = "regressed"  # works, but worse than before

    @property
    def is_report(self) -> bool:
        """Whether the box has had its say."""
        return self is not Outcome.PENDING

    @property
    def is_bad(self) -> bool:
        """Whether it speaks against the release."""
        return self.is_report and self is not Outcome.GOOD


@dataclasses.dataclass(frozen=True)
class Tally:
    """Numbers of boxes by outcome."""

    counts: Counter[Outcome]

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Tally:
        """Add up."""
        return cls(Counter(outcomes))

    @property
    def boxes(self) -> int:
        """Boxes that the release has reached."""
        return self.counts.total()

    @property
    def reports(self) -> int:
        """Boxes that have reported."""
        return sum(count for outcome, count in self.counts.items() if outcome.is_report)

    @property
    def bad(self) -> int:
        """Boxes that reported something bad."""
        return sum(count for outcome, count in self.counts.items() if outcome.is_bad)

    def describe_bad(self) -> str:
        """Return the bad outcomes in words, most frequent first, for example `3 rolled back, 1 silent`."""
        found = [(outcome, count) for outcome, count in self.counts.most_common() if outcome.is_bad and count]
        return ", ".join(f"{count} {outcome.value}" for outcome, count in found)
