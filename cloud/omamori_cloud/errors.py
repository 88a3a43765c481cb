"""Errors of the cloud.

CloudError
├── SetupError            an operator must act: configuration, certificates, database URL, listening address
│   ├── ConfigError       the configuration file is missing, malformed or contradicts itself
│   ├── ListenError       the page cannot, or may not, listen there
│   └── SchemaError       the database is not at the schema this program works with
├── QueryError            somebody asked the page, the API or the command line for something that makes no sense
├── BackupError           a backup cannot be written or restored
├── StoreUnavailableError the database does not answer now; worth a retry
├── BookUnavailableError  there is no feed book, or it is not intact
├── ReportError           a report of a false alarm cannot be kept or decided
└── WorkerError           a part of the daemon ended although nobody asked it to
"""

from __future__ import annotations


class CloudError(Exception):
    """Root of everything this package raises.

    Attributes:
        hint: What a person can do about it; empty when there is nothing to add.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SetupError(CloudError):
    """The installation must be changed by a person before this can work."""


class ConfigError(SetupError):
    """The configuration cannot be used.

    Attributes:
        where: The key (dotted) or the file that is wrong.
    """

    def __init__(self, where: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.where = where


class ListenError(SetupError):
    """The page cannot, or may not, listen at the address given."""


class SchemaError(SetupError):
    """The database is not at the schema this program works with."""


class QueryError(CloudError):
    """A question to the store is out of its bounds or names something that does not exist.

    Attributes:
        parameter: Name of the offending parameter.
    """

    def __init__(self, parameter: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{parameter}: {problem}", hint=hint)
        self.parameter = parameter


class BackupError(CloudError):
    """A backup cannot be written or restored; nothing changed."""


class StoreUnavailableError(CloudError):
    """The database does not answer now; nothing was stored, and trying again may help."""


class BookUnavailableError(CloudError):
    """There is no feed book, or it is not intact; what it would tell is not known."""


class ReportError(CloudError):
    """A report of a false alarm cannot be kept or decided; nothing changed."""


class WorkerError(CloudError):
    """A part of the daemon ended although nobody asked it to.

    Attributes:
        worker: Its name.
    """

    def __init__(self, worker: str, problem: str) -> None:
        super().__init__(f"{worker}: {problem}")
        self.worker = worker
