"""Reading and writing small files on the data partition so that a power cut never leaves half a file.

`write_atomic` is the only way the agent stores state outside SQLite: temporary file in the same directory, fsync,
rename, fsync of the directory. After a power cut a reader finds the old bytes or the new bytes. A temporary file
that a cut leaves behind has a fixed name and is replaced by the next write, so rubbish cannot pile up.

One file has one writer; two threads must not write the same path at the same time.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import SetupError


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the content of `path` by `data`, all or nothing.

    Args:
        path: File to write; its directory must exist.
        data: The new content.
        mode: Permissions of the new file; it has them before the first byte is written.

    Raises:
        OSError: Nothing changed at `path` (disk full, read-only, no such directory).
    """
    temporary = _temporary(path)
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


def replace_link(link: Path, target: Path) -> None:
    """Make the symbolic link `link` point at `target`, all or nothing, durably.

    Raises:
        OSError: `link` is as it was before.
    """
    temporary = _temporary(link)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_directory(link.parent)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes` bytes.

    Raises:
        FileNotFoundError: There is no such file.
        SetupError: It is not a regular file, cannot be read, or is larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as err:
        raise SetupError(f"{path}: {err.strerror or err}") from err
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SetupError(f"{path}: not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as err:
        raise SetupError(f"{path}: {err.strerror or err}") from err
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise SetupError(f"{path}: more than {max_bytes} bytes")
    return data
