"""Files that survive a power cut and directories that appear whole or not at all.

Rules: a file is written to a temporary name beside it, synced, renamed, and its directory synced. A directory is
made beside its place and renamed into it. What holds secrets is made private before anything is written into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from omamori_protocol.durable import sync_directory, write_atomic

from .errors import SetupError, TransientError

__all__ = [
    "PRIVATE_DIRECTORY",
    "PRIVATE_FILE",
    "PUBLIC_FILE",
    "exclusive",
    "make_public_directory",
    "new_directory",
    "read_bounded",
    "write_atomic",
]

PRIVATE_FILE = 0o600
PUBLIC_FILE = 0o644
PRIVATE_DIRECTORY = 0o700


def make_public_directory(path: Path) -> None:
    """Make `path` and its missing parents readable for a web server, whatever the umask."""
    if not path.is_dir():
        make_public_directory(path.parent)
        path.mkdir()
        path.chmod(0o755)
        sync_directory(path.parent)


def _occupied(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir())))


@contextlib.contextmanager
def new_directory(path: Path, *, mode: int, replace: bool = False) -> Iterator[Path]:
    """Give a temporary directory that becomes `path` when the block ends without an exception.

    Args:
        path: Where the directory shall appear; free, or an empty directory.
        mode: Permission bits of the directory.
        replace: Take the place of a directory that is there instead of refusing.

    Raises:
        SetupError: `path` is occupied, or its parent is missing.
    """
    if not path.parent.is_dir():
        raise SetupError(f"{path.parent} is not a directory", hint="make it first")
    if _occupied(path) and not (replace and path.is_dir() and not path.is_symlink()):
        raise SetupError(f"{path} exists already", hint="choose another place; nothing was overwritten")
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield work
        work.chmod(mode)
        for folder in [item for item in work.rglob("*") if item.is_dir()] + [work]:
            sync_directory(folder)
        if _occupied(path):
            old = work.with_name(work.name + ".old")
            path.rename(old)
            work.rename(path)
            shutil.rmtree(old)
        else:
            work.rename(path)
        sync_directory(path.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def exclusive(path: Path, *, wait_s: float = 10.0) -> Iterator[None]:
    """Hold the lock file `path`; it stays behind, empty.

    Raises:
        TransientError: Somebody else holds it for longer than `wait_s` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TransientError(
                        f"{path.parent} is in use by another publisher",
                        hint="wait until it has finished, then try again",
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the content of `path`, at most `max_bytes` bytes.

    Raises:
        SetupError: It cannot be read, or is larger.
    """
    try:
        with path.open("rb") as source:
            data = source.read(max_bytes + 1)
    except OSError as err:
        raise SetupError(f"cannot read {path}: {err.strerror}") from err
    if len(data) > max_bytes:
        raise SetupError(f"{path} is larger than {max_bytes} bytes")
    return data
