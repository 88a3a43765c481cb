"""Errors of desired state and commands.

    TransientError
    └── PendingError             a part is on its way; it is asked again soon with the same settings
    RejectedError
    ├── DocumentRefusedError     a document must not be used; nothing changed
    └── CommandRefusedError      a command must not be done; nothing changed

Parts raise `RejectedError` for settings they cannot use, and `TransientError` for what may work later.
"""

from __future__ import annotations

from omamori_agent.errors import RejectedError, TransientError


class PendingError(TransientError):
    """A part has begun and is not there yet."""


class DocumentRefusedError(RejectedError):
    """A document is refused as a whole.

    Attributes:
        version: What it calls itself, if its signature was right.
    """

    def __init__(self, message: str, *, version: int | None = None) -> None:
        super().__init__(message)
        self.version = version


class CommandRefusedError(RejectedError):
    """A command is refused.

    Attributes:
        command_id: Its id, if its signature was right.
    """

    def __init__(self, message: str, *, command_id: bytes | None = None) -> None:
        super().__init__(message)
        self.command_id = command_id
