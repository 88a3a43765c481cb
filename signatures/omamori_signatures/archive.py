"""Opens a source, whatever it is packed in, as named streams of bytes.

A source is a file, a directory, or an archive (tar, gzip, zstd, zip, and tar in gzip or zstd); what it is, its first
bytes say, never its name. Only plain files come out. Everything unpacked is counted: an archive cannot grow without
end, and cannot hold more members than a source may have. Zstandard is unpacked by the program `zstd`.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from .errors import SourceError
from .run import output_of

MAX_MEMBERS = 20_000
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
_ZSTD_MEMORY = "--memory=256MB"
_TAR_MAGIC_AT, _HEAD = 257, 512


class Member(NamedTuple):
    """One plain file of a source; `stream` is valid until the next member is asked for."""

    name: str
    stream: BinaryIO


class _Counted(io.RawIOBase):
    """A stream that ends with an error when more comes out of it than allowed."""

    def __init__(self, source: BinaryIO, what: str, limit: int) -> None:
        super().__init__()
        self._source, self._what, self._limit, self._left = source, what, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read(min(len(buffer), self._left + 1))
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as err:
            raise SourceError(f"{self._what} is not intact: {str(err)[:80]}") from err
        self._left -= len(data)
        if self._left < 0:
            raise SourceError(f"{self._what} unpacks to more than {self._limit} bytes")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_members(path: Path, *, max_unpacked: int = MAX_UNPACKED_BYTES) -> Iterator[Iterator[Member]]:
    """Open a source.

    Args:
        path: File, directory or archive.
        max_unpacked: Bytes that may come out of it in all.

    Raises:
        SourceError: It cannot be read, is not intact, or holds too much; also while it is iterated.
    """
    with ExitStack() as stack:
        if path.is_dir():
            yield _of_directory(path, max_unpacked)
            return
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError as err:
            raise SourceError(f"cannot read {path}: {err.strerror}") from err
        if file.peek(4)[:4] == b"PK\x03\x04":
            yield _of_zip(file, path, max_unpacked)
            return
        stream = _decompressed(file, path, max_unpacked, stack)
        if _is_tar(stream):
            yield _of_tar(stream, path)
        else:
            yield iter([Member(path.name, cast("BinaryIO", stream))])


def _decompressed(file: io.BufferedReader, path: Path, limit: int, stack: ExitStack) -> io.BufferedReader:
    magic = file.peek(4)[:4]
    source: BinaryIO = file
    if magic[:2] == b"\x1f\x8b":
        source = cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=file)))
    elif magic == b"\x28\xb5\x2f\xfd":
        source = stack.enter_context(output_of(["zstd", "-dcq", _ZSTD_MEMORY, str(path)]))
    return io.BufferedReader(_Counted(source, str(path), limit), 256 * 1024)


def _is_tar(stream: io.BufferedReader) -> bool:
    return stream.peek(_HEAD)[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"


def _counting_members(what: str) -> Callable[[], None]:
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen > MAX_MEMBERS:
            raise SourceError(f"{what} holds more than {MAX_MEMBERS} files")

    return count


def _of_tar(stream: BinaryIO, path: Path) -> Iterator[Member]:
    count = _counting_members(str(path))
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for item in archive:
                count()
                if item.isreg() and (member := archive.extractfile(item)) is not None:
                    yield Member(item.name, cast("BinaryIO", member))
    except tarfile.TarError as err:
        raise SourceError(f"{path} is not an intact archive: {str(err)[:80]}") from err


def _of_zip(file: BinaryIO, path: Path, limit: int) -> Iterator[Member]:
    count = _counting_members(str(path))
    left = limit
    try:
        with zipfile.ZipFile(file) as archive:
            for item in archive.infolist():
                count()
                left -= item.file_size  # `ZipExtFile` never gives more than this
                if left < 0:
                    raise SourceError(f"{path} unpacks to more than {limit} bytes")
                if not item.is_dir():
                    with archive.open(item) as member:
                        counted = _Counted(cast("BinaryIO", member), str(path), item.file_size)
                        yield Member(item.filename, cast("BinaryIO", io.BufferedReader(counted)))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as err:
        raise SourceError(f"{path} is not an intact archive: {str(err)[:80]}") from err


def _of_directory(path: Path, limit: int) -> Iterator[Member]:
    count = _counting_members(str(path))
    left = limit
    for item in sorted(path.rglob("*")):
        if item.is_symlink() or not item.is_file():
            continue
        count()
        left -= item.stat().st_size
        if left < 0:
            raise SourceError(f"{path} holds more than {limit} bytes")
        with item.open("rb") as stream:
            yield Member(item.relative_to(path).as_posix(), stream)
