"""A bound on what one side of a connection can make the other side read."""

from __future__ import annotations

import io
from typing import BinaryIO


class BoundedReader(io.RawIOBase):
    """Gives at most `left` bytes of a connection.

    Args:
        source: Where they come from.
        left: How many may still be read; the owner may set it anew.

    Attributes:
        is_exceeded: Whether as much was read as there may be, so that more was asked for.
    """

    def __init__(self, source: BinaryIO, left: int) -> None:
        super().__init__()
        self._source = source
        self.left = left
        self.is_exceeded = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line, or as much of it as there may be."""
        limit = self.left if size is None or size < 0 else min(size, self.left)
        return self._take(self._source.readline(limit), limit)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read to the end, or as much as there may be."""
        limit = self.left if size is None or size < 0 else min(size, self.left)
        return self._take(self._source.read(limit), limit)

    def _take(self, data: bytes, limit: int) -> bytes:
        self.left -= len(data)
        if self.left == 0 and len(data) == limit:
            self.is_exceeded = True
        return data
