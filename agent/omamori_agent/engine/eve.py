"""Follows the engine's EVE file, line by line, across rotation, restarts and reboots.

It knows bytes, lines and files; what a line means is `alert`'s part, and where the position is kept is the caller's.

* A position is ``boot:inode:offset`` of the byte behind the last line that was handed out. The file lives in memory,
  so a position of another boot says nothing and reading starts at the beginning.
* A line is handed out when its newline is there. A longer line than allowed is skipped and counted.
* `rotate` renames the file to ``….1``. The engine goes on writing into it until it has reopened its logs; so the
  renamed file is read until the new one exists *and* no byte is left, and only then removed.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

_CHUNK = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Batch:
    """Complete lines without their newline, and the position behind them."""

    lines: list[bytes]
    position: str


class EveTail:
    """Reader of one EVE file; one thread uses it.

    Args:
        path: The file; it need not exist.
        boot_id: Identifies this boot of the machine.
        position: Where an earlier reader stopped, or None.
        max_line_bytes: Longest line that is handed out.
        max_batch_bytes: About how much one `read` looks at.
    """

    def __init__(
        self,
        path: Path,
        *,
        boot_id: str,
        position: str | None,
        max_line_bytes: int = 64 * 1024,
        max_batch_bytes: int = 256 * 1024,
    ) -> None:
        self._path = path
        self._old_path = path.with_name(path.name + ".1")
        self._boot_id = boot_id
        self._max_line = max_line_bytes
        self._max_batch = max_batch_bytes
        self._descriptor = -1
        self._is_old = False
        self._inode = 0
        self._offset = 0  # of the first byte that was not handed out as a line
        self._partial = bytearray()
        self._skipping = False
        self._resume = self._parse(position)
        self.oversize_lines = 0
        self.cut_lines = 0  # without an end when their file was given up (the engine died, the file system was full)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def position(self) -> str:
        """Where reading goes on."""
        if self._resume is not None:
            return f"{self._boot_id}:{self._resume[0]}:{self._resume[1]}"
        return f"{self._boot_id}:{self._inode}:{self._offset}"

    @property
    def wants_reopen(self) -> bool:
        """Whether the engine still has to be asked to reopen its logs."""
        return self._old_path.exists() and not self._path.exists()

    def read(self) -> Batch:
        """Return the next lines; none if there is nothing new.

        Calling again means that the lines of the previous call are safe: a file read to its end may be removed now.
        """
        if self._descriptor < 0 and not self._open():
            return Batch([], self.position)
        lines, is_end = self._read_lines()
        if is_end and not lines:
            self._follow()
        return Batch(lines, self.position)

    def rotate(self, max_bytes: int) -> bool:
        """Rename the file if it is larger than `max_bytes`; returns whether the engine must reopen its logs."""
        if self._descriptor < 0 or self._is_old or self._offset <= max_bytes or self._old_path.exists():
            return False
        try:
            self._path.rename(self._old_path)
        except FileNotFoundError:
            return False
        self._is_old = True
        return True

    def _parse(self, position: str | None) -> tuple[int, int] | None:
        boot, _, rest = (position or "").rpartition(":")[0].partition(":")
        offset = (position or "").rpartition(":")[2]
        if boot != self._boot_id or not rest.isdecimal() or not offset.isdecimal():
            return None
        return int(rest), int(offset)

    def _open(self) -> bool:
        """Open the file to go on with: the one the position names, else the older one."""
        old, new = _inode(self._old_path), _inode(self._path)
        resume = self._resume
        if old is not None and resume is not None and resume[0] == new:
            self._old_path.unlink()  # read to its end before the position moved on to the new file
            old = None
        wanted = self._old_path if old is not None else self._path
        try:
            self._descriptor = os.open(wanted, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        status = os.fstat(self._descriptor)
        self._is_old = wanted == self._old_path
        self._inode = status.st_ino
        self._start_at(resume[1] if resume and resume[0] == status.st_ino and resume[1] <= status.st_size else 0)
        self._resume = None
        return True

    def _start_at(self, offset: int) -> None:
        self._offset = offset
        self._partial.clear()
        self._skipping = False

    def _read_lines(self) -> tuple[list[bytes], bool]:
        lines: list[bytes] = []
        seen = 0
        while seen < self._max_batch:
            chunk = os.pread(self._descriptor, _CHUNK, self._offset + len(self._partial))
            if not chunk:
                return lines, True
            seen += len(chunk)
            self._take(chunk, lines)
        return lines, False

    def _take(self, chunk: bytes, lines: list[bytes]) -> None:
        self._partial += chunk
        *complete, rest = bytes(self._partial).split(b"\n")
        for line in complete:
            if self._skipping:
                self._skipping = False
            elif len(line) > self._max_line:
                self.oversize_lines += 1
            elif line:
                lines.append(line)
            self._offset += len(line) + 1
        if self._skipping or len(rest) > self._max_line:
            self.oversize_lines += not self._skipping
            self._skipping = True
            self._offset += len(rest)
            rest = b""
        self._partial[:] = rest

    def _follow(self) -> None:
        """At the end of the file: go over to the one that took its place, or start again if it was cut."""
        status = os.fstat(self._descriptor)
        if status.st_size < self._offset:
            self._start_at(0)
            return
        replaced = self._path.exists() if self._is_old else _inode(self._path) not in {None, self._inode}
        # The engine closed the old file before it made the new one, so this end is final if it still is the end.
        if not replaced or os.fstat(self._descriptor).st_size > self._offset + len(self._partial):
            return
        self.cut_lines += bool(self._partial)
        self.close()
        if self._is_old:
            self._old_path.unlink(missing_ok=True)
        self._open()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
