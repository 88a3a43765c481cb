"""What one version changes in the data."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import steps
from .errors import MigrationError

# Directories below the state directory that belong to the agent. Its own bookkeeping and root's files are not in it.
_OURS = frozenset({"address", "desired", "feed", "firmware", "identity"})
_NAME = re.compile(r"step_(\d{4})")


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        number: Version of the data it leads to.
        paths: What it changes, relative to the state directory.
        apply: Changes it; given the state directory.

    Raises:
        MigrationError: It names a path that is not the agent's.
    """

    number: int
    paths: tuple[str, ...]
    apply: Callable[[Path], None]

    def __post_init__(self) -> None:
        for path in self.paths:
            parts = PurePosixPath(path).parts
            if len(parts) < 2 or parts[0] not in _OURS or ".." in parts:
                raise MigrationError(f"step {self.number} may not change {path!r}")


def load_steps() -> list[Step]:
    """Return the steps of this image in their order.

    Raises:
        MigrationError: A module is no step, or a number is missing.
    """
    found = []
    for module in pkgutil.iter_modules(steps.__path__):
        match = _NAME.fullmatch(module.name)
        if match is None:
            raise MigrationError(f"{module.name} is not a step's name")
        content = importlib.import_module(f"{steps.__name__}.{module.name}")
        found.append(Step(int(match[1]), tuple(content.PATHS), content.apply))
    found.sort(key=lambda step: step.number)
    check_order(found)
    return found


def check_order(found: Sequence[Step]) -> None:
    """Check that steps lead to the versions 2, 3, 4 and so on.

    Raises:
        MigrationError: They do not.
    """
    if [step.number for step in found] != list(range(2, len(found) + 2)):
        raise MigrationError("the steps are not numbered 2, 3, 4 and so on")
