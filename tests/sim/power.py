"""Virtual power cuts: the process "dies" at the n-th touch of the disk.

A `PowerCut` is no `Exception`, so no handler of the code under test may turn it into something milder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock


class PowerCut(BaseException):
    """The lights went out."""


class _Counter:
    def __init__(self, cut_at: int | None) -> None:
        self.cut_at = cut_at
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.cut_at is not None and self.steps >= self.cut_at:
            raise PowerCut


@contextlib.contextmanager
def power_cut_before(step: int | None) -> Iterator[_Counter]:
    """Let the power fail before the given file system operation (1 is the first); None only counts them."""
    counter = _Counter(step)

    def guarded(original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            counter.step()
            return original(*args, **kwargs)

        return call

    def half_write(descriptor: int, data: bytes) -> int:
        """Before a cut, half of the bytes reach the disk."""
        if counter.cut_at is not None and counter.steps + 1 >= counter.cut_at:
            os_write(descriptor, bytes(data)[: len(data) // 2])
        counter.step()
        return os_write(descriptor, data)

    os_write = os.write
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("os.write", half_write))
        for target in ("os.fsync", "os.fchmod", "os.link"):
            stack.enter_context(mock.patch(target, guarded(_resolve(target))))
        for method in ("replace", "unlink", "symlink_to", "rename", "mkdir"):
            original = getattr(Path, method)
            stack.enter_context(mock.patch.object(Path, method, guarded(original)))
        yield counter


def _resolve(target: str) -> Callable[..., object]:
    return getattr(os, target.removeprefix("os."))  # type: ignore[no-any-return]


def count_steps(action: Callable[[], object]) -> int:
    """Return how many file system operations `action` makes."""
    with power_cut_before(None) as counter:
        action()
    return counter.steps
