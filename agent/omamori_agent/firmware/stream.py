"""The bytes of a payload from some place on: over HTTPS by Range, or from a stick.

Nothing is believed here but lengths: a server must answer exactly what was asked for. No redirects, no compression; a
stall or a trickle ends the stream, and whoever reads goes on where it ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

import urllib3
from tuf.api import exceptions
from tuf.ngclient.fetcher import FetcherInterface

from omamori_agent.feed.fetcher import HTTPSFetcher
from omamori_agent.feed.limits import FeedLimits
from omamori_agent.proxy import Proxy
from omamori_protocol.vocabulary import FirmwareReason

from .errors import UpdateInterruptedError, UpdateWaitsError
from .limits import FirmwareLimits

_CHUNK = 32 * 1024
_BURST_S = 1.0  # a pause of the network is made up for this much
_STRETCH_BYTES = 512 * 1024  # so much has its own deadline
_RANGE = re.compile(r"bytes ([0-9]{1,12})-([0-9]{1,12})/([0-9]{1,12})")
STICK_URL = "stick:"


class PayloadStream(Protocol):
    """Reads a payload."""

    def read(self, url: str, start: int, end: int, length: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end` of a file of `length` bytes, in small pieces.

        Raises:
            UpdateWaitsError: They do not come, or not as they must; those yielded so far are good to go on from.
        """


class RateCap:
    """Holds a download back to a number of bytes a second.

    Args:
        bytes_per_s: The cap; 0 for none.
        wait: Sleeps for so many seconds; raises if somebody wants the work to end.
        monotonic: Time; a parameter for tests.
    """

    def __init__(
        self, bytes_per_s: int, wait: Callable[[float], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._wait = wait
        self._monotonic = monotonic
        self._free_at_s = monotonic()

    def spend(self, count: int) -> None:
        """Account for bytes that came, and wait as long as they should have taken."""
        if not self._bytes_per_s:
            self._wait(0.0)
            return
        now_s = self._monotonic()
        self._free_at_s = max(self._free_at_s, now_s - _BURST_S) + count / self._bytes_per_s
        self._wait(self._free_at_s - now_s)


class HTTPSStream:
    """`PayloadStream` over the connection of a TUF fetcher: the same CA, no redirects, every read with a deadline.

    Args:
        fetcher: Whose connection is used.
        limits: Times and speeds.
    """

    def __init__(self, fetcher: HTTPSFetcher, limits: FirmwareLimits) -> None:
        self._fetcher = fetcher
        self._limits = limits

    def read(self, url: str, start: int, end: int, length: int) -> Iterator[bytes]:
        """See `PayloadStream.read`."""
        try:
            yield from self._read(url, start, end, length)
        except (exceptions.SlowRetrievalError, TimeoutError, urllib3.exceptions.TimeoutError) as err:
            raise _unreachable("too slow") from err
        except exceptions.DownloadError as err:
            raise _unreachable(str(err)) from err
        except (urllib3.exceptions.HTTPError, OSError) as err:
            raise _unreachable(f"cut: {type(err).__name__}") from err

    def _read(self, url: str, start: int, end: int, length: int) -> Iterator[bytes]:
        self._renew_deadline()
        response = self._fetcher.open(url, {"Range": f"bytes={start}-{end - 1}"})
        is_kept = False
        try:
            _check_answer(response, start, end, length)
            is_kept = response.status == 206
            at, stretch = start, 0
            while at < end:
                # What is there already: of a read that fails in the middle, everything would be lost.
                chunk = response.read1(min(_CHUNK, end - at))
                if not chunk:
                    raise exceptions.DownloadError(f"cut after {at} of {length} bytes")
                at += len(chunk)
                stretch += len(chunk)
                yield chunk
                if stretch >= _STRETCH_BYTES:
                    stretch = 0
                    self._renew_deadline()
            if is_kept:
                response.release_conn()
        finally:
            response.close()

    def _renew_deadline(self) -> None:
        self._fetcher.allow(self._limits.request_s + _STRETCH_BYTES / self._limits.min_bytes_per_s)


def _check_answer(response: urllib3.BaseHTTPResponse, start: int, end: int, length: int) -> None:
    if response.status == 200 and start == 0:  # a server may not know Range; from the beginning that is the same
        told = response.headers.get("Content-Length")
        if told is not None and told != str(length):
            raise exceptions.DownloadError(f"the file has {told[:20]} bytes, {length} are signed")
        return
    if response.status == 200:
        raise exceptions.DownloadError("the server ignores Range")
    if response.status != 206:
        raise exceptions.DownloadError(f"HTTP status {response.status}")
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or (int(match[1]), int(match[2]), int(match[3])) != (start, end - 1, length):
        raise exceptions.DownloadError("the server answers another range than was asked for")


class StickFetcher(FetcherInterface):
    """What the TUF client reads a stick with. Only regular files below the stick's directory, no links.

    Args:
        directory: Where the stick is mounted.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """Open a file of at most `max_length` bytes; see `FetcherInterface`."""
        with _open_on_stick(self._directory, url) as (file, size):
            if size > max_length:
                raise exceptions.DownloadLengthMismatchError(f"more than {max_length} bytes")
            yield file

    def _fetch(self, url: str) -> Iterator[bytes]:
        with _open_on_stick(self._directory, url) as (file, _size):
            while chunk := file.read(_CHUNK):
                yield chunk


class StickStream:
    """`PayloadStream` of a stick.

    Args:
        directory: Where the stick is mounted.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, url: str, start: int, end: int, length: int) -> Iterator[bytes]:
        """See `PayloadStream.read`."""
        try:
            with _open_on_stick(self._directory, url) as (file, size):
                if size != length:
                    raise _unreachable(f"the stick's file has {size} bytes, {length} are signed")
                file.seek(start)
                left = end - start
                while left:
                    chunk = file.read(min(_CHUNK, left))
                    if not chunk:
                        raise _unreachable("the stick's file ends early")
                    left -= len(chunk)
                    yield chunk
        except (exceptions.DownloadError, OSError) as err:
            raise _unreachable(f"stick: {err}") from err


@contextlib.contextmanager
def _open_on_stick(directory: Path, url: str) -> Iterator[tuple[IO[bytes], int]]:
    parts = url.removeprefix(f"{STICK_URL}/").split("/")
    if not url.startswith(f"{STICK_URL}/") or any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise exceptions.DownloadError("not a path on the stick")
    path = directory.joinpath(*parts)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as err:
        raise exceptions.DownloadHTTPError("not on the stick", 404) from err
    except OSError as err:
        raise exceptions.DownloadError(f"stick: {err.strerror}") from err
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise exceptions.DownloadError("not a regular file on the stick")
        yield file, facts.st_size


def make_fetcher(ca_file: Path, download_dir: Path, limits: FirmwareLimits, proxy: Proxy | None = None) -> HTTPSFetcher:
    """Return a fetcher with the bounds of firmware updates."""
    return HTTPSFetcher(
        ca_file,
        download_dir,
        FeedLimits(
            connect_timeout_s=limits.connect_timeout_s,
            read_timeout_s=limits.read_timeout_s,
            request_s=limits.request_s,
            min_bytes_per_s=limits.min_bytes_per_s,
        ),
        proxy=proxy,
    )


def waiter(stop: threading.Event, changed: threading.Event) -> Callable[[float], None]:
    """Return what sleeps between pieces and ends the work when the agent stops or something else is wanted."""

    def wait(seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while True:
            if stop.is_set() or changed.is_set():
                raise UpdateInterruptedError("fetching ends here for now")
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            stop.wait(min(left_s, 0.25))

    return wait


def _unreachable(text: str) -> UpdateWaitsError:
    return UpdateWaitsError(FirmwareReason.UNREACHABLE, f"payload: {text}")
