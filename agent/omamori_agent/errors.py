"""Errors of the agent.

    AgentError
    ├── TransientError     try again later (network, broker, engine busy)
    ├── RejectedError      refuse this input for good (a feed, a provision file, a message)
    └── SetupError         the box cannot work like this until somebody acts (no identity, broken image)

Parts derive their own from these three; callers catch at this level.
"""

from __future__ import annotations


class AgentError(Exception):
    """Root of the agent's errors.

    Attributes:
        hint: What a person can do about it; empty when there is nothing to add.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class TransientError(AgentError):
    """May work later without anybody's help."""


class RejectedError(AgentError):
    """The input is refused; asking again with the same input gives the same answer."""


class SetupError(AgentError):
    """The box lacks something it cannot make itself."""
