"""Fetches files over HTTP, believing nothing that the other side says.

Every bound is ours: bytes (counted while reading), seconds in all and between two bytes, redirects (to the same host
only, never from HTTPS to HTTP). A length that was announced must be the length that came.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import SplitResult, urljoin, urlsplit

from .errors import FetchError, NotThereError

MAX_REDIRECTS = 3
_CHUNK = 64 * 1024
_MAX_VALIDATOR = 512
_MOVED = {301, 302, 303, 307, 308}
_NOT_THERE = {404, 410}
USER_AGENT = "omamori-feed/1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds: of a download or a session in all, and for a connection or a pause between two bytes."""

    total_s: float = 300.0
    pause_s: float = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validators:
    """What the other side gave to recognise its copy by; empty if it gave none."""

    etag: str = ""
    last_modified: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Download:
    """What came; `is_unchanged` means that nothing did, because our copy is the present one."""

    is_unchanged: bool
    validators: Validators


class Downloader:
    """Fetches files.

    Args:
        limits: Bounds of one download or session, redirects included.
        tls: Context for HTTPS; the system's certificates by default.
    """

    def __init__(self, limits: Limits | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._limits = limits or Limits()
        self._tls = tls

    def fetch(self, url: str, target: BinaryIO, *, max_bytes: int, known: Validators) -> Download:
        """Write the file at `url` to `target`; see `Session.fetch`.

        Raises:
            FetchError: Unreachable, too slow, too large, cut short, not there, or moved to another host.
        """
        with self.session() as session:
            return session.fetch(url, target, max_bytes=max_bytes, known=known)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Begin a session; its time runs from now."""
        session = Session(self._limits, self._tls)
        try:
            yield session
        finally:
            session.close()


class Session:
    """Files fetched one after the other, over one connection while the host is the same, all before one deadline.

    Args:
        limits: Bounds of everything together.
        tls: Context for HTTPS; the system's certificates by default.
    """

    def __init__(self, limits: Limits, tls: ssl.SSLContext | None) -> None:
        self._limits = limits
        self._tls = tls
        self._connection: http.client.HTTPConnection | None = None
        self._place: tuple[str, str | None, int | None] = ("", None, None)
        self._deadline = time.monotonic() + limits.total_s
        # A server that sends a byte now and then never runs into the time-out of the socket.
        self._alarm = threading.Timer(limits.total_s, self._cut)
        self._alarm.daemon = True
        self._alarm.start()

    def close(self) -> None:
        """End the connection."""
        self._alarm.cancel()
        self._drop()

    def fetch(self, url: str, target: BinaryIO, *, max_bytes: int, known: Validators) -> Download:
        """Write the file at `url` to `target`.

        Args:
            url: HTTPS, or HTTP to this machine (`catalogue` sees to that).
            target: Gets the bytes; after an error what is in it is undefined.
            max_bytes: More than these are an error.
            known: Of the copy that we have.

        Raises:
            NotThereError: The server says that there is no such file.
            FetchError: Unreachable, too slow, too large, cut short, or moved to another host.
        """
        here = urlsplit(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._response(here, known) as response:
                if response.status in _MOVED:
                    here = _next(here, response.getheader("Location", ""))
                    continue
                if response.status == http.client.NOT_MODIFIED:
                    return Download(is_unchanged=True, validators=known)
                if response.status != http.client.OK:
                    kind = NotThereError if response.status in _NOT_THERE else FetchError
                    raise kind(f"{here.geturl()}: status {response.status}")
                _copy(response, target, here.geturl(), max_bytes, self._deadline)
                return Download(is_unchanged=False, validators=_validators(response))
        raise FetchError(f"{url}: more than {MAX_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _response(self, url: SplitResult, known: Validators) -> Iterator[http.client.HTTPResponse]:
        is_whole = False
        try:
            response = self._ask(url, known)
            yield response
            is_whole = response.isclosed() or response.length == 0
            response.close()
        except (OSError, http.client.HTTPException) as err:
            if time.monotonic() >= self._deadline:
                raise FetchError(f"{url.geturl()}: not done within {self._limits.total_s:g} s") from err
            raise FetchError(f"{url.geturl()}: {str(err)[:120] or type(err).__name__}") from err
        finally:
            if not is_whole:  # what is left of an answer would be read as the next one
                self._drop()

    def _ask(self, url: SplitResult, known: Validators) -> http.client.HTTPResponse:
        place = (url.scheme, url.hostname, url.port)
        connection = self._connection
        is_kept = connection is not None and connection.sock is not None and place == self._place
        if connection is None or not is_kept:
            self._drop()
            self._connection = connection = self._open(url)
            self._place = place
            connection.connect()
            if time.monotonic() >= self._deadline:  # the alarm may have come while there was nothing to cut
                raise TimeoutError
        try:
            connection.request("GET", url._replace(scheme="", netloc="").geturl() or "/", headers=_headers(known))
            return connection.getresponse()
        except ConnectionError:
            if not is_kept or time.monotonic() >= self._deadline:
                raise
        self._drop()  # a server may end at any time a connection that it kept
        return self._ask(url, known)

    def _open(self, url: SplitResult) -> http.client.HTTPConnection:
        host, pause_s = url.hostname or "", min(self._limits.pause_s, self._limits.total_s)
        if url.scheme == "http":
            return http.client.HTTPConnection(host, url.port, timeout=pause_s)
        tls = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(host, url.port, timeout=pause_s, context=tls)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _cut(self) -> None:
        connection = self._connection
        if connection is not None and isinstance(connection.sock, socket.socket):
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def _headers(known: Validators) -> dict[str, str]:
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if known.etag:
        headers["If-None-Match"] = known.etag
    if known.last_modified:
        headers["If-Modified-Since"] = known.last_modified
    return headers


def _next(here: SplitResult, location: str) -> SplitResult:
    try:
        there = urlsplit(urljoin(here.geturl(), location))
        same = (there.scheme, there.hostname, there.port) == (here.scheme, here.hostname, here.port)
    except ValueError:
        same = False
    if not location or not same:
        raise FetchError(
            f"{here.geturl()}: moved to {location[:100]!r}", hint="if that is right, a person changes sources.toml"
        )
    return there


def _validators(response: http.client.HTTPResponse) -> Validators:
    def header(name: str) -> str:
        value = response.getheader(name, "")
        return value if len(value) <= _MAX_VALIDATOR and value.isprintable() else ""

    return Validators(etag=header("ETag"), last_modified=header("Last-Modified"))


def _copy(response: http.client.HTTPResponse, target: BinaryIO, url: str, max_bytes: int, deadline: float) -> None:
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{url}: encoded, though we asked for the plain file")
    length = response.length  # as announced; None if it was not
    if length is not None and length > max_bytes:
        raise FetchError(f"{url}: {length} bytes announced, allowed are {max_bytes}")
    seen = 0
    while data := response.read1(_CHUNK):
        seen += len(data)
        if seen > max_bytes:
            raise FetchError(f"{url}: more than {max_bytes} bytes")
        target.write(data)
        if time.monotonic() >= deadline:
            raise TimeoutError
    if length is not None and seen != length:
        raise FetchError(f"{url}: {seen} bytes came, {length} were announced")
    if time.monotonic() >= deadline:  # the alarm cuts the connection, which looks like its end
        raise TimeoutError
