"""Errors of the operator's side.

    OtaError
    ├── SetupError              the operator must act: a directory is missing, occupied, or not what it should be
    ├── RejectedError           this input is refused for good: a pack, a template, a certificate request
    │   └── EnrolmentRefusedError  … with the HTTP status that tells the box so
    │       └── ApprovalPendingError  … for now: somebody has to approve the box
    ├── ProgramError            another program failed; its last lines are in the message
    └── TransientError          try again: another publisher is at work, the broker does not answer

`hint` is what a person can do about it; the command line prints it below the error.
"""

from __future__ import annotations


class OtaError(Exception):
    """Root of everything this package raises on purpose.

    Attributes:
        hint: What a person can do about it; empty when there is nothing to add.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SetupError(OtaError):
    """Something that the operator prepares is missing, occupied or damaged."""


class RejectedError(OtaError):
    """An input breaks a rule; giving it again will not help."""


class EnrolmentRefusedError(RejectedError):
    """A box is not enrolled.

    Attributes:
        status: HTTP status of the answer.
        cause: Word for the operator, one of `attempts.Cause`; empty when there is nothing to say about the box.
        key: SHA-256 of the key of the request, if it came so far.
    """

    def __init__(self, status: int, message: str, *, hint: str = "", cause: str = "", key: bytes | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.cause = cause
        self.key = key


class ApprovalPendingError(EnrolmentRefusedError):
    """The box knows its claim, and has to wait for a person."""

    def __init__(self, message: str, *, hint: str = "", cause: str = "", key: bytes | None = None) -> None:
        super().__init__(202, message, hint=hint, cause=cause, key=key)


class ProgramError(OtaError):
    """Another program failed or took too long."""


class TransientError(OtaError):
    """Nothing is wrong with the input; it did not work this time."""
