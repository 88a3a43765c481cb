"""Who the box is: its key, its certificate and how it gets them.

`store` keeps files, `certificate` decides about bytes, `enrolment` talks to the server, `worker` puts them together.
"""

from __future__ import annotations

from .enrolment import EnrolmentClient, EnrolmentPendingError, EnrolmentRefusedError, EnrolmentUnreachableError
from .store import Identity, IdentityStore
from .worker import IdentityHolder, IdentityWorker

__all__ = [
    "EnrolmentClient",
    "EnrolmentPendingError",
    "EnrolmentRefusedError",
    "EnrolmentUnreachableError",
    "Identity",
    "IdentityHolder",
    "IdentityStore",
    "IdentityWorker",
]
