"""Files that hold the old bytes or the new bytes after a power cut, never half of either.

Every part that keeps state on disk or hands a file to another part writes it through here: temporary file in the same
directory, fsync, rename, fsync of the directory. A temporary file that a cut leaves behind has a fixed name and is
replaced by the next write, so rubbish cannot pile up.

One file has one writer at a time; who needs more holds a lock of its own.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path) -> Path:
    """Return the name under which the next content of `path` is prepared."""
    return path.with_name(f".{path.name}.tmp")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the content of `path` by `data`, all or nothing.

    Args:
        path: File to write; its directory must exist.
        data: The new content.
        mode: Permissions of the new file, independent of the umask; it has them before the first byte is written.

    Raises:
        OSError: Nothing changed at `path` (disk full, read-only, no such directory).
    """
    temporary = temporary_beside(path)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(descriptor, mode)  # the umask must not decide
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_directory(path.parent)


def make_private_file(path: Path) -> None:
    """Make an empty file for its owner alone, unless there is one: a database's, before its library opens it.

    An existing file is not even opened. SQLite's locks are POSIX locks, and closing *any* descriptor of a file drops
    all locks that the process holds on it ("How To Corrupt An SQLite Database File", 2.2): another process could then
    write amid a transaction of ours.

    Args:
        path: The file; its directory must exist.

    Raises:
        OSError: It cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
