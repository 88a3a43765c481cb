"""Errors of the image builder.

ImageError
├── SetupError       this machine, a key, a recipe or an option is not as needed (an operator must act)
├── ToolError        an outside program failed or took too long (its last lines are attached)
├── LockDriftError   the mirror no longer offers what the lock file names
└── MachineError     a virtual machine did not start, ended early, or does not answer
"""

from collections.abc import Sequence


class ImageError(Exception):
    """Root of everything this package raises.

    Attributes:
        hint: What a person can do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class SetupError(ImageError):
    """Something the build needs is missing or wrong."""


class ToolError(ImageError):
    """An outside program failed.

    Attributes:
        program: Its name.
        exit_code: Its status; negative for a signal, None when it ran out of time.
        output: The last part of what it printed.
    """

    def __init__(self, program: str, exit_code: int | None, output: str, *, hint: str | None = None) -> None:
        how = "took too long" if exit_code is None else f"failed with status {exit_code}"
        last = "\n".join(output.strip().splitlines()[-12:])
        super().__init__(f"{program} {how}" + (f":\n{last}" if last else ""), hint=hint)
        self.program = program
        self.exit_code = exit_code
        self.output = output


class LockDriftError(ImageError):
    """The packages that came are not the locked ones.

    Attributes:
        differences: One line per package that differs.
    """

    def __init__(self, lock_name: str, differences: Sequence[str], *, hint: str) -> None:
        shown = [*differences[:8], *([f"... and {len(differences) - 8} more"] if len(differences) > 8 else [])]
        super().__init__(f"packages differ from {lock_name}:\n  " + "\n  ".join(shown), hint=hint)
        self.differences = tuple(differences)


class MachineError(ImageError):
    """The virtual machine failed."""
