"""Errors of the hardware package.

HardwareError
├── BoardError        a board description is missing, malformed or contradicts itself (an author must act)
└── SupervisorError   the supervisor cannot be spoken to
    ├── LinkLostError     the line is gone (try again later)
    ├── NoAnswerError     the line is there, the supervisor does not answer (try again later)
    ├── RefusedError      the supervisor answered no (do not repeat)
    └── BadMessageError   bytes or values that the link does not speak
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


class SupervisorError(HardwareError):
    """The supervisor cannot be spoken to, or says no."""


class LinkLostError(SupervisorError):
    """The serial line cannot be opened or is gone."""


class NoAnswerError(SupervisorError):
    """The supervisor did not answer a request, however often it was repeated."""


class RefusedError(SupervisorError):
    """The supervisor refused a request.

    Attributes:
        result: Its answer; see `omamori_hw.supervisor.messages.Result`.
    """

    def __init__(self, what: str, result: int) -> None:
        super().__init__(f"the supervisor refused {what} (result {result})")
        self.result = result


class BadMessageError(SupervisorError):
    """Not a message of the link."""
