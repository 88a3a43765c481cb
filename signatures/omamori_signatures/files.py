"""Bounded reading and durable writing."""

from __future__ import annotations

import os
import tempfile
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


def write_atomic(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`, or leave the previous content."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            os.fchmod(out.fileno(), 0o644)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
