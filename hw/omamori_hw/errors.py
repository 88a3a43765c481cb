"""Errors of the hardware package.

HardwareError
└── BoardError      a board description is missing, malformed or contradicts itself (an author must act)
"""


class HardwareError(Exception):
    """Root of everything this package raises."""


class BoardError(HardwareError):
    """A board description cannot be used.

    Attributes:
        where: Which file and key is wrong.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
