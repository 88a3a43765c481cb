"""Errors of the access point.

WifiRefusedError       (Rejected)  these settings cannot be used here; the previous ones are in force
HostapdError           (Transient) hostapd cannot be asked, or its answer cannot be understood
└── HostapdGoneError   the process that was asked has ended
"""

from __future__ import annotations

from omamori_agent.errors import RejectedError, TransientError


class WifiRefusedError(RejectedError):
    """Settings that this box cannot put into force; the message is for the operator and holds no secret."""


class HostapdError(TransientError):
    """No answer from hostapd, or none that can be understood."""


class HostapdGoneError(HostapdError):
    """Nobody is at the other end of the control socket."""
