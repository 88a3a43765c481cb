"""Errors of the gate package.

TransientError
└── GateUnavailableError    the maps are not there or the kernel refused; traffic passes all the same
RejectedError
├── BlockListFullError      more prefixes than the map holds; nothing was changed
├── BadPrefixError          a line of a list is no address or prefix
├── ExemptionsFullError     more exemptions than the maps hold; nothing was changed
└── PrefixTooWideError      a prefix would change the whole box; nothing was changed
"""

from __future__ import annotations

from omamori_agent.errors import RejectedError, TransientError


class GateUnavailableError(TransientError):
    """A map of the gate cannot be used.

    Attributes:
        map_name: Which one.
    """

    def __init__(self, map_name: str, reason: str, *, hint: str = "is omamori-wire.service active?") -> None:
        super().__init__(f"gate map {map_name}: {reason}", hint=hint)
        self.map_name = map_name


class BlockListFullError(RejectedError):
    """The block list has more prefixes than the gate can hold.

    Attributes:
        capacity: How many it can hold.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(f"the block list has more than {capacity} prefixes")
        self.capacity = capacity


class BadPrefixError(RejectedError):
    """A line of a list is neither an address nor a prefix.

    Attributes:
        line: The line, or its beginning.
    """

    def __init__(self, line: bytes) -> None:
        self.line = line[:64]
        super().__init__(f"not an address or a prefix: {self.line!r}")


class ExemptionsFullError(RejectedError):
    """There are more exemptions than the gate can hold.

    Attributes:
        capacity: How many it can hold.
    """

    def __init__(self, what: str, capacity: int) -> None:
        super().__init__(f"there are more than {capacity} exempt {what}")
        self.capacity = capacity


class PrefixTooWideError(RejectedError):
    """A prefix covers so much that blocking it would be an outage, and exempting it no protection.

    Attributes:
        prefix: The prefix.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__(f"{prefix} covers too many addresses for one entry")
        self.prefix = prefix
