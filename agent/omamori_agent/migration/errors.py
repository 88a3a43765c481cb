"""What can go wrong with carrying data over.

MigrationError (a SetupError)
├── StepFailedError    a step did not work; the data are as they were before
└── NoWayBackError     the data are of a newer version, and no copy from before is there
"""

from __future__ import annotations

from omamori_agent.errors import SetupError


class MigrationError(SetupError):
    """The data are not of the version that this image reads."""


class StepFailedError(MigrationError):
    """A step did not work; everything is as before."""


class NoWayBackError(MigrationError):
    """The data come from a newer version, and there is no copy of what they were."""
