"""Sorts more lines than memory should hold.

Lines are collected, sorted in portions, written to files, and merged when they are read back. A sorter is filled once
and read once. Lines are text without line ends; the order is that of code points, which for UTF-8 is that of bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

# Lines in memory at once: about 20 MB of indicators.
PORTION = 200_000
_BUFFER = 256 * 1024


class LineSorter:
    """Sorts lines, equal ones included.

    Args:
        directory: For temporary files; they are named after `name` and removed at the end.
        name: Unique in the directory.
        portion: Lines held in memory.
    """

    def __init__(self, directory: Path, name: str, *, portion: int = PORTION) -> None:
        self._directory, self._name, self._portion = directory, name, portion
        self._lines: list[str] = []
        self._files: list[Path] = []
        self._open: list[TextIO] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open:
            file.close()
        for path in self._files:
            path.unlink(missing_ok=True)
        self._lines.clear()

    def add(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)
        if len(self._lines) >= self._portion:
            self._spill()

    def _spill(self) -> None:
        self._lines.sort()
        path = self._directory / f"{self._name}.{len(self._files)}"
        with path.open("w", encoding="utf-8", newline="\n", buffering=_BUFFER) as file:
            file.writelines(f"{line}\n" for line in self._lines)
        self._files.append(path)
        self._lines.clear()

    def __iter__(self) -> Iterator[str]:
        """Yield all lines in order."""
        self._lines.sort()
        if not self._files:
            yield from self._lines
            return
        runs = [self._run(path) for path in self._files]
        yield from heapq.merge(*runs, self._lines)

    def _run(self, path: Path) -> Iterator[str]:
        file = path.open(encoding="utf-8", newline="\n", buffering=_BUFFER)
        self._open.append(file)
        return (line[:-1] for line in file)
