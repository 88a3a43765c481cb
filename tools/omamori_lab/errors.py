"""Errors of the lab.

LabError
├── SetupError      the machine, an option or an artifact is not as needed (an operator must act)
├── CommandError    a program failed or took too long (its last lines are attached)
├── NotReadyError   something did not come into the awaited state in time
└── BoxError        the box in the lab died or does not answer
"""

from __future__ import annotations


class LabError(Exception):
    """Root of everything this package raises.

    Attributes:
        hint: What a person can do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SetupError(LabError):
    """Something the lab needs is missing or wrong."""


class CommandError(LabError):
    """A program failed.

    Attributes:
        program: Its name.
        exit_code: Its status, negative for a signal, None when it ran out of time.
        output: The last part of what it printed.
    """

    def __init__(self, program: str, exit_code: int | None, output: str, *, hint: str | None = None) -> None:
        how = "took too long" if exit_code is None else f"failed with status {exit_code}"
        tail = "\n".join(output.strip().splitlines()[-12:])
        super().__init__(f"{program} {how}" + (f":\n{tail}" if tail else ""), hint=hint)
        self.program = program
        self.exit_code = exit_code
        self.output = output


class NotReadyError(LabError):
    """A state was not reached in time.

    Attributes:
        timeout_s: How long it was waited for, in seconds.
    """

    def __init__(self, what: str, timeout_s: float, *, detail: str = "", hint: str | None = None) -> None:
        super().__init__(f"{what}: not within {timeout_s:g} s" + (f"\n{detail}" if detail else ""), hint=hint)
        self.timeout_s = timeout_s


class BoxError(LabError):
    """The box in the lab failed."""
