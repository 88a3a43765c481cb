"""Where the lab tells what it is doing. `display` shows it; tests and other programs need not."""

from __future__ import annotations

import contextlib
from typing import Protocol


class Progress(Protocol):
    """Told about a running lab."""

    def step(self, text: str) -> None:
        """Something new is being done."""
        ...

    def moment(self, text: str) -> None:
        """A detail that passes, for example a line of the console."""
        ...

    def quiet(self) -> contextlib.AbstractContextManager[None]:
        """Leave the terminal to somebody else for a while."""
        ...


class Silence:
    """Tells nobody."""

    def step(self, text: str) -> None:
        """Ignore it."""

    def moment(self, text: str) -> None:
        """Ignore it."""

    def quiet(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing."""
        return contextlib.nullcontext()
