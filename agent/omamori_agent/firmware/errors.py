"""Errors on the way of a firmware.

    TransientError
    ├── UpdateWaitsError         not now; the same may work later
    └── UpdateInterruptedError   the agent stops, or the box shall have another firmware by now
    RejectedError
    └── UpdateRefusedError       this firmware is not taken

The first and the last carry the reason as the closed word that the cloud counts; their text says more.
"""

from __future__ import annotations

from omamori_agent.errors import RejectedError, TransientError
from omamori_protocol.vocabulary import FirmwareReason


class UpdateWaitsError(TransientError):
    """The update cannot go on at the moment.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: FirmwareReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UpdateInterruptedError(TransientError):
    """Somebody wants the work to end here; what was done so far stays."""


class UpdateRefusedError(RejectedError):
    """The firmware must not, or cannot, be installed on this box.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: FirmwareReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
