"""Errors of the feed compiler.

    FeedError
    ├── SourceError     the source directory is not as it must be: the author corrects it
    ├── FetchError      a source could not be had this time: what was had before stays
    │   └── NotThereError   the server answered, and there is no such file
    ├── GuardError      a source was had, and is not believed: what was had before stays
    ├── CheckError      the pack is well-formed and must not be published; `findings` says why
    ├── PackError       a pack is not one, or its content breaks a rule
    └── EngineError     the engine refused the rules, or could not be started

`hint` is what a person can do about it.
"""

from __future__ import annotations


class FeedError(Exception):
    """Root of everything this package raises on purpose.

    Attributes:
        hint: What a person can do about it; empty when there is nothing to add.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SourceError(FeedError):
    """A file of the source directory is missing, too large, or breaks a rule."""


class FetchError(FeedError):
    """A source could not be had: unreachable, too slow, too large, cut short, moved elsewhere."""


class NotThereError(FetchError):
    """The server answered that there is no such file."""


class GuardError(FeedError):
    """A source was had, but it is not plausible: its size or its lines say that something went wrong upstream."""


class CheckError(FeedError):
    """A pack must not be published.

    Attributes:
        findings: What is wrong, one line each, bounded.
    """

    def __init__(self, message: str, *, findings: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.findings = findings


class PackError(FeedError):
    """A pack is not one, or what is in it breaks a rule."""


class EngineError(FeedError):
    """The engine refused the rules, or could not be started.

    Attributes:
        reasons: The engine's own words, bounded.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reasons = reasons
