"""Who the box is: its key, its certificate and how it gets them.

`store` keeps files, `tpm` the key of a board that has one, `certificate` decides about bytes, `enrolment` talks to the
server, `worker` puts them together.
"""

from __future__ import annotations

from .enrolment import EnrolmentClient, EnrolmentPendingError, EnrolmentRefusedError, EnrolmentUnreachableError
from .store import Identity, IdentityStore
from .tpm import TPM
from .worker import IdentityHolder, IdentityWorker

__all__ = [
    "TPM",
    "EnrolmentClient",
    "EnrolmentPendingError",
    "EnrolmentRefusedError",
    "EnrolmentUnreachableError",
    "Identity",
    "IdentityHolder",
    "IdentityStore",
    "IdentityWorker",
]
