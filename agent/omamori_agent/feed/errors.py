"""Errors on the way of a feed from the repository to the engine.

TransientError
├── RepositoryUnavailableError     not reachable, too slow, or without what it should have
├── FeedPostponedError             no space, no time: the same pack may be taken later
└── ActivationInterruptedError     the agent stops; the next start goes on where this one ended
RejectedError
├── FeedRefusedError               this feed is not taken; the one before stays
│   ├── MetadataExpiredError       what the repository shows is signed, but too old
│   └── PackRefusedError           the signed pack itself is bad: its serial is never tried again
└── ActivationRolledBackError      it was taken, did not work, and the one before is back; never tried again

The text of each is the reason that the operator reads: short, one line, and the same for the same cause.
"""

from __future__ import annotations

from omamori_agent.errors import RejectedError, TransientError


class RepositoryUnavailableError(TransientError):
    """The repository could not be asked to the end; nothing is known about what it would have said."""


class FeedPostponedError(TransientError):
    """The pack cannot be taken now, through no fault of its own."""


class ActivationInterruptedError(TransientError):
    """The agent is stopping in the middle of an activation."""


class FeedRefusedError(RejectedError):
    """What the repository shows is not taken."""


class MetadataExpiredError(FeedRefusedError):
    """The newest metadata that can be had is past its expiry (a freeze attack, or a repository nobody tends)."""


class PackRefusedError(FeedRefusedError):
    """The pack breaks a rule although it is signed; its serial is quarantined."""


class ActivationRolledBackError(RejectedError):
    """The pack did not work in the engine; the previous one is active again and the serial is quarantined."""
