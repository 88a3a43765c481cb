"""Downloads for TUF over HTTPS, with a bound on everything a server can do to us.

* Only https, only the service CA, no redirects, no compression. (Conformance tests talk plain http to this machine.)
* Through the office's proxy, if the provision file names one; TLS with the server itself runs inside.
* Every download has a deadline that no server can stretch, however slowly it drips: headers and body alike.
* One kept connection: a refresh is a handful of small requests.

It verifies nothing but the server's certificate: what the bytes are worth, TUF decides.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import urllib3
import urllib3.connection
from tuf.api import exceptions
from tuf.ngclient.fetcher import FetcherInterface

from omamori_agent.proxy import Proxy, connect

from .limits import FeedLimits

logger = logging.getLogger(__name__)

_CHUNK = 64 * 1024
_IN_MEMORY_BYTES = 512 * 1024
_MAX_ERROR_BODY = 4096
_LOOPBACK_URLS = ("http://127.0.0.1:", "http://localhost:")


class _Deadline:
    """Seconds left of the download that is going on; sockets ask it before every read."""

    def __init__(self, read_timeout_s: float) -> None:
        self._read_timeout_s = read_timeout_s
        self._at = 0.0

    def start(self, seconds: float) -> None:
        """Begin a download that may take so long."""
        self._at = time.monotonic() + seconds

    def read_timeout_s(self) -> float:
        """Return how long the next read may take; raises `TimeoutError` when no time is left."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        return min(left, self._read_timeout_s)


def _context(ca_file: Path | None, deadline: _Deadline) -> ssl.SSLContext:
    class DeadlineSocket(ssl.SSLSocket):
        """Socket whose every read ends at the deadline: time-outs of the library count from the last byte."""

        def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
            self.settimeout(deadline.read_timeout_s())
            return super().recv_into(buffer, nbytes, flags)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.sslsocket_class = DeadlineSocket
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _pool_through(proxy: Proxy) -> type[urllib3.HTTPSConnectionPool]:
    class Connection(urllib3.connection.HTTPSConnection):
        """Connection through the proxy; urllib3's own way reads the proxy's answer without a deadline."""

        def _new_conn(self) -> socket.socket:
            try:
                return connect(self.host, self.port or 443, proxy, float(self.timeout or 0))
            except TimeoutError as err:
                raise urllib3.exceptions.ConnectTimeoutError(self, "too slow") from err
            except OSError as err:
                raise urllib3.exceptions.NewConnectionError(self, str(err)) from err

    class Pool(urllib3.HTTPSConnectionPool):
        """Pool of such connections."""

        ConnectionCls = Connection

    return Pool


class HTTPSFetcher(FetcherInterface):
    """What the TUF client downloads with; one thread uses it.

    Args:
        ca_file: The only CA that may have signed the server's certificate; None for none at all.
        download_dir: Where larger downloads are written; exists when one begins.
        limits: Times and speeds.
        is_loopback_http_allowed: Whether this machine itself may be asked without TLS.
        proxy: Host and port of the office's proxy, or None.
    """

    def __init__(
        self,
        ca_file: Path | None,
        download_dir: Path,
        limits: FeedLimits,
        *,
        is_loopback_http_allowed: bool = False,
        proxy: Proxy | None = None,
    ) -> None:
        self._proxy = proxy
        self._ca_file = ca_file
        self._is_loopback_http_allowed = is_loopback_http_allowed
        self._download_dir = download_dir
        self._limits = limits
        self._deadline = _Deadline(limits.read_timeout_s)
        self._pool: urllib3.PoolManager | None = None

    @contextlib.contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """Download `url` into a temporary file; see `FetcherInterface`.

        Raises:
            DownloadLengthMismatchError: More than `max_length` bytes came.
            SlowRetrievalError: They came too slowly.
            DownloadHTTPError: The server says that it has no such file.
            DownloadError: Anything else.
        """
        self._deadline.start(self._limits.request_s + max_length / self._limits.min_bytes_per_s)
        with self._temporary(max_length) as file:
            try:
                received = 0
                for chunk in self.fetch(url):
                    self._deadline.read_timeout_s()  # raises when no time is left
                    received += len(chunk)
                    if received > max_length:
                        raise exceptions.DownloadLengthMismatchError(f"more than {max_length} bytes")
                    file.write(chunk)
            except (TimeoutError, urllib3.exceptions.TimeoutError) as err:
                raise exceptions.SlowRetrievalError("too slow") from err
            except (urllib3.exceptions.HTTPError, OSError) as err:
                raise exceptions.DownloadError(_cause(err)) from err
            file.seek(0)
            yield file

    @contextlib.contextmanager
    def _temporary(self, max_length: int) -> Iterator[IO[bytes]]:
        if max_length <= _IN_MEMORY_BYTES:
            yield io.BytesIO()
            return
        with tempfile.TemporaryFile(dir=self._download_dir) as file:
            yield file

    def allow(self, seconds: float) -> None:
        """Let what is read from `open` take so much longer from now on."""
        self._deadline.start(seconds)

    def open(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Ask for `url` with headers of one's own, within the time that `allow` gives; the caller closes the answer.

        Raises:
            SlowRetrievalError: No answer came in time.
            DownloadError: No answer came.
        """
        if not url.startswith("https://"):
            raise exceptions.DownloadError("only https is allowed")
        return self._request(url, headers)

    def _fetch(self, url: str) -> Iterator[bytes]:
        if not url.startswith("https://") and not (self._is_loopback_http_allowed and url.startswith(_LOOPBACK_URLS)):
            raise exceptions.DownloadError("only https is allowed")
        response = self._request(url, {})
        if response.status != 200:
            self._discard(response)
            raise exceptions.DownloadHTTPError(f"HTTP status {response.status}", response.status)
        return self._chunks(response)

    def _request(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        manager = self._manager()
        try:
            return manager.request(
                "GET", url, headers={**manager.headers, **headers}, preload_content=False, decode_content=False
            )
        except urllib3.exceptions.HTTPError as err:
            root = _root(err)
            if isinstance(root, TimeoutError | urllib3.exceptions.TimeoutError):
                raise exceptions.SlowRetrievalError("too slow") from err
            raise exceptions.DownloadError(_cause(err)) from err

    @staticmethod
    def _discard(response: urllib3.BaseHTTPResponse) -> None:
        """Read a short error body so that the connection can be used again; drop the connection otherwise."""
        try:
            if len(response.read(_MAX_ERROR_BODY + 1)) <= _MAX_ERROR_BODY:
                response.release_conn()
                return
        except (urllib3.exceptions.HTTPError, OSError) as err:
            logger.debug("error body: %s", err)
        response.close()

    @staticmethod
    def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        is_whole = False
        try:
            while chunk := response.read(_CHUNK):
                yield chunk
            is_whole = True
        finally:
            if is_whole:
                response.release_conn()
            else:
                response.close()

    def _manager(self) -> urllib3.PoolManager:
        if self._pool is None:
            self._pool = urllib3.PoolManager(
                num_pools=1,
                maxsize=1,
                ssl_context=_context(self._ca_file, self._deadline),
                headers={"User-Agent": "omamori-agent", "Accept-Encoding": "identity"},
                timeout=urllib3.Timeout(connect=self._limits.connect_timeout_s, read=self._limits.read_timeout_s),
                # Once more, because the server may have closed a kept connection just now.
                retries=urllib3.Retry(total=1, redirect=False, status=0, backoff_factor=0),
            )
            if self._proxy is not None:
                classes = self._pool.pool_classes_by_scheme
                self._pool.pool_classes_by_scheme = {**classes, "https": _pool_through(self._proxy)}
        return self._pool


def _root(err: BaseException) -> BaseException:
    """Return the innermost reason that urllib3 wrapped."""
    for _ in range(8):
        reason = getattr(err, "reason", None)
        inner = reason if isinstance(reason, BaseException) else err.__cause__ or err.__context__
        if inner is None:
            break
        err = inner
    return err


def _cause(err: BaseException) -> str:
    root = _root(err)
    if isinstance(root, ssl.SSLCertVerificationError):
        return f"server certificate: {root.verify_message}"
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return f"{type(root).__name__}"
