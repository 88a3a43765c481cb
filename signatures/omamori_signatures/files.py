"""Bounded reading."""

from __future__ import annotations

from pathlib import Path

from .errors import SourceError


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes` bytes.

    Raises:
        SourceError: It cannot be read, is not a regular file, or is larger.
    """
    if path.is_symlink() or not path.is_file():
        raise SourceError(f"{path} is not a regular file")
    try:
        with path.open("rb") as source:
            data = source.read(max_bytes + 1)
    except OSError as err:
        raise SourceError(f"cannot read {path}: {err.strerror}") from err
    if len(data) > max_bytes:
        raise SourceError(f"{path} is larger than {max_bytes} bytes")
    return data
