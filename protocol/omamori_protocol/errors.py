"""Errors of values that cross a process or a machine.

    ProtocolError
    ├── MalformedError        the bytes or the text are not what the format says
    ├── OversizeError         a bound (bytes, count, depth) is exceeded; nothing beyond it was read
    ├── UnknownVersionError   well formed, but of a version this program does not know
    └── PackRejectedError     a feed pack breaks its own rules (paths, digests, counts)

All of them mean: refuse this input for good. Nothing here is worth a retry.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Root of everything this package raises on bad input.

    Attributes:
        hint: What a person can do about it; empty when there is nothing to add.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class MalformedError(ProtocolError):
    """The input does not have the form that its format prescribes."""


class OversizeError(ProtocolError):
    """The input exceeds a bound.

    Attributes:
        limit: The bound that was exceeded.
    """

    def __init__(self, message: str, *, limit: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class UnknownVersionError(ProtocolError):
    """The input states a schema version that this program does not know.

    Attributes:
        version: The version it states.
    """

    def __init__(self, what: str, version: object) -> None:
        super().__init__(f"{what}: unknown schema version {version!r}", hint="update the receiving side first")
        self.version = version


class PackRejectedError(ProtocolError):
    """A feed pack breaks a rule of its format; nothing of it may be used."""
