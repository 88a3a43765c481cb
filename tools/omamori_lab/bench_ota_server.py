"""A repository's server for one file that breaks every connection after so many bytes, and counts what it sends."""

from __future__ import annotations

import contextlib
import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

_RANGE = re.compile(r"bytes=([0-9]{1,12})-([0-9]{1,12})")
_CHUNK = 32 * 1024
_NEVER = 1 << 62


class CuttingServer:
    """HTTPS on the loopback.

    Args:
        path: The file; it is served whatever is asked for.
        tls: Directory with the server's certificate and key.
        cut_after: Bytes of a file after which a connection ends; None for never.

    Attributes:
        sent: Bytes of the file that were sent.
        cuts: Connections that were cut.
    """

    def __init__(self, path: Path, tls: Path, cut_after: int | None = None) -> None:
        self._path = path
        self._tls = tls
        self._cut_after = cut_after or _NEVER
        self._url = ""
        self.sent = 0
        self.cuts = 0

    @property
    def url(self) -> str:
        """Address of the file."""
        return self._url

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve as long as the context lasts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls / "tls.crt", self._tls / "tls.key")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self._url = f"https://localhost:{server.server_address[1]}/file"
        thread = threading.Thread(target=server.serve_forever, name="bench-server", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join(timeout=10)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Answers one range."""

            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """Send the range, or its beginning."""
                owner._answer(self)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        return Handler

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        size = self._path.stat().st_size
        match = _RANGE.fullmatch(handler.headers.get("Range", ""))
        first, last = (int(match[1]), min(int(match[2]), size - 1)) if match else (0, size - 1)
        handler.send_response(206 if match else 200)
        if match:
            handler.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        handler.send_header("Content-Length", str(last - first + 1))
        handler.end_headers()
        left = min(last - first + 1, self._cut_after)
        is_cut = left < last - first + 1
        with self._path.open("rb") as file:
            file.seek(first)
            while left:
                chunk = file.read(min(_CHUNK, left))
                handler.wfile.write(chunk)
                self.sent += len(chunk)
                left -= len(chunk)
        if is_cut:
            self.cuts += 1
            handler.close_connection = True
