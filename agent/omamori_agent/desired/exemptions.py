"""The exemptions part: terminals and destinations that are not inspected, rules that are not used.

Addresses and MACs go to the gate, which counts what passes because of them; rules go to the feed, which leaves them out
of what the engine loads. An exemption with an end leaves both when its time has come, by itself: the document stays as
it was signed, only what is made of it changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from omamori_agent.gate import ExemptAddress, ExemptKind, ExemptMac
from omamori_agent.ports import Clock
from omamori_protocol.desired import Exemption, ExemptionKind
from omamori_protocol.reported import PartName

from .errors import PendingError
from .gate_port import SteeringPort

logger = logging.getLogger(__name__)

_SIDES = {
    ExemptionKind.TERMINAL_IP: ExemptKind.TERMINAL,
    ExemptionKind.DESTINATION: ExemptKind.DESTINATION,
}


class RulePort(Protocol):
    """Leaves rules out of the engine."""

    def want(self, rule_ids: frozenset[int]) -> None:
        """Ask for exactly these rules to be left out; returns at once."""

    @property
    def applied(self) -> frozenset[int] | None:
        """Which are left out now; None while that is not known."""


def active(exemptions: Iterable[Exemption], now_s: float) -> tuple[Exemption, ...]:
    """Return those that have not ended."""
    return tuple(item for item in exemptions if item.until_s is None or item.until_s > now_s)


class ExemptionsPart:
    """`part.Part` of the exemptions.

    Args:
        gate: Takes addresses and MACs.
        rules: Takes rules.
        clock: Unix time, for ends.
    """

    name = PartName.EXEMPTIONS

    def __init__(self, gate: SteeringPort, rules: RulePort, clock: Clock) -> None:
        self._gate = gate
        self._rules = rules
        self._clock = clock
        self._ends: tuple[int, ...] = ()

    def is_due(self) -> bool:
        """Tell whether an exemption has ended since the last time."""
        now_s = self._clock.now()
        return any(end_s <= now_s for end_s in self._ends)

    def apply(self, settings: tuple[Exemption, ...] | None) -> None:
        """Make exactly the exemptions that have not ended effective.

        A change ends every bypass: what was learned under the old exemptions is judged under the new ones.

        Raises:
            TransientError: There is no gate, or the engine has not taken its rules yet.
        """
        now = active(settings or (), self._clock.now())
        rule_ids = frozenset(item.rule_id() for item in now if item.kind is ExemptionKind.RULE)
        self._rules.want(rule_ids)
        changed = self._gate.sync_exemptions(
            [ExemptAddress(item.network(), _SIDES[item.kind], item.id) for item in now if item.kind in _SIDES],
            [ExemptMac(item.value, item.id) for item in now if item.kind is ExemptionKind.TERMINAL_MAC],
        )
        self._ends = tuple(item.until_s for item in now if item.until_s is not None)
        if changed:
            self._gate.raise_epoch()
            logger.info("%d exemptions, %d entries changed", len(now), changed)
        if self._rules.applied != rule_ids:
            raise PendingError("the engine has not taken its rules yet")
