"""Files of the build: hashes of trees, atomic writes, sparse copies, bounded reads."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(paths: Iterable[Path], *, skip: tuple[str, ...] = ("__pycache__",)) -> str:
    """Hash the names, modes and contents of files and directories.

    Args:
        paths: Files or directories; an absent one counts as absent.
        skip: Names of directories that do not count.
    """
    digest = hashlib.sha256()
    for top in paths:
        entries = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in entries:
            if any(part in skip for part in path.relative_to(top).parts):
                continue
            name = f"{top.name}/{path.relative_to(top)}"
            if path.is_symlink():
                digest.update(f"{name}\0link\0{path.readlink()}\0".encode())
            elif path.is_file():
                executable = bool(path.stat().st_mode & 0o100)
                digest.update(f"{name}\0{executable}\0{sha256_file(path)}\0".encode())
            elif not path.is_dir():
                digest.update(f"{name}\0absent\0".encode())
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file with mode 0644, or 0755 if its owner may execute it; return the target."""
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
    return target


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory's content with the same modes on every machine; nothing happens if it is absent.

    Args:
        source: Directory of sources; compiled Python in it is left out.
        target: Directory to fill; made if absent, other files in it stay.
    """
    for path in [source, *sorted(source.rglob("*"))] if source.is_dir() else []:
        relative = path.relative_to(source)
        if "__pycache__" in relative.parts:
            continue
        if path.is_symlink():
            (target / relative).unlink(missing_ok=True)
            (target / relative).symlink_to(path.readlink())
        elif path.is_dir():
            (target / relative).mkdir(parents=True, exist_ok=True)
            (target / relative).chmod(0o755)
        else:
            copy_file(path, target / relative)


def copy_sparse(source: Path, target: Path, *, offset: int = 0, part: tuple[int, int] | None = None) -> None:
    """Copy a file's data into another at an offset, and leave its holes holes.

    Args:
        source: File to read.
        target: File to write; made if absent, other bytes in it stay.
        offset: Where the first byte goes.
        part: First byte and length of what is copied; by default all of it.
    """
    first, length = part or (0, source.stat().st_size)
    size = first + length
    offset -= first
    target_flags = os.O_WRONLY | os.O_CREAT
    with source.open("rb") as reader, os.fdopen(os.open(target, target_flags, 0o644), "wb", 0) as writer:
        position = first
        while position < size:
            try:
                start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:
                break  # only a hole is left
            end = min(os.lseek(reader.fileno(), start, os.SEEK_HOLE), size)
            _copy_range(reader.fileno(), writer.fileno(), start, end, offset)
            position = end
        if os.fstat(writer.fileno()).st_size < offset + size:
            writer.truncate(offset + size)


def _copy_range(reader: int, writer: int, start: int, end: int, offset: int) -> None:
    while start < end:
        block = os.pread(reader, min(_CHUNK, end - start), start)
        if not block:
            return
        if block.strip(b"\0"):
            view = memoryview(block)
            while view:
                view = view[os.pwrite(writer, view, start + len(block) - len(view) + offset) :]
        start += len(block)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, made if absent, among processes of this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
