"""The policy part: what becomes of traffic that nothing has inspected."""

from __future__ import annotations

import logging

from omamori_protocol.desired import Policy
from omamori_protocol.reported import PartName

from .gate_port import SteeringPort

logger = logging.getLogger(__name__)


class PolicyPart:
    """`part.Part` of the policy.

    Args:
        gate: Keeps the switch; after it was loaded anew it is fail-open until this part is applied again.
    """

    name = PartName.POLICY

    def __init__(self, gate: SteeringPort) -> None:
        self._gate = gate

    def apply(self, settings: Policy | None) -> None:
        """Set the switch; a change ends every bypass, so that the new policy holds for running flows too.

        Raises:
            TransientError: There is no gate.
        """
        wanted = settings is not None and settings.fail_closed
        if self._gate.is_fail_closed() == wanted:
            return
        self._gate.set_fail_closed(on=wanted)
        self._gate.raise_epoch()
        logger.warning("policy: fail-%s", "closed" if wanted else "open")
