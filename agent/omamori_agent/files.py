"""Bounded reading and durable links on the data partition; durable writing comes from `omamori_protocol.durable`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from omamori_protocol.durable import sync_directory, temporary_beside, write_atomic

from .errors import SetupError

__all__ = ["read_bounded", "read_foreign", "replace_link", "sync_directory", "write_atomic"]


def replace_link(link: Path, target: Path) -> None:
    """Make the symbolic link `link` point at `target`, all or nothing, durably.

    Raises:
        OSError: `link` is as it was before.
    """
    temporary = temporary_beside(link)
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


def read_foreign(path: Path, max_bytes: int) -> bytes:
    """Return what another user left for a service with more rights: at most one byte more than `max_bytes`.

    No link is followed and nothing but a regular file is read, so that the other user cannot choose what is.

    Raises:
        OSError: There is no such file, it is something else, or it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        return source.read(max_bytes + 1)
