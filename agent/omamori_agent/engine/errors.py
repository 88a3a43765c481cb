"""Errors of talking to the inspection engine.

EngineUnavailableError   (Transient) nobody listens, no answer in time, or an answer nobody understands
EngineRefusedError       (Rejected)  the engine understood and said no
"""

from __future__ import annotations

from omamori_agent.errors import RejectedError, TransientError


class EngineUnavailableError(TransientError):
    """The engine cannot be asked right now; what it has loaded is not known."""


class EngineRefusedError(RejectedError):
    """The engine answered NOK.

    Attributes:
        command: What it was asked.
        answer: Its own words.
    """

    def __init__(self, command: str, answer: str) -> None:
        super().__init__(f"engine refused {command}: {answer}")
        self.command = command
        self.answer = answer
