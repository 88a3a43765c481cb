"""HTTPS in front of `enrolment`, in the shape of EST (RFC 7030): simpleenroll with HTTP Basic, and cacerts.

The one process that holds the device CA's key and talks to the world, hence the standard library alone, one request
per connection, and a bound on everything: connections, time, bytes of head and body, number of header fields,
requests per address. Each request leaves one audit line, which never holds a claim, a body or anything unchecked
that the other side sent.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import http.server
import io
import json
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from email.message import Message
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from omamori_protocol.device import check_device_id
from omamori_protocol.errors import MalformedError

from .enrolment import Enrolment
from .errors import EnrolmentRefusedError, OtaError, TransientError
from .rate_limit import RateLimit

logger = logging.getLogger(__name__)

ENROL_PATH = "/.well-known/est/simpleenroll"
CA_PATH = "/.well-known/est/cacerts"
_REQUEST_TYPE = "application/pkcs10"
_ANSWER_TYPE = "application/pkcs7-mime; smime-type=certs-only"
_LINE = 76
_CHUNK_BYTES = 4096
_DRAIN_SILENCE_S = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """Bounds of the server; `_s` are seconds."""

    body_bytes: int = 8192
    head_bytes: int = 16 * 1024
    header_fields: int = 32
    drained_bytes: int = 64 * 1024
    connections: int = 32
    silence_s: float = 5.0
    request_s: float = 15.0
    requests_per_minute: int = 30


class _BoundedReader(io.RawIOBase):
    """Gives at most `left` bytes of the connection, and remembers if more was asked for."""

    def __init__(self, source: BinaryIO, left: int) -> None:
        super().__init__()
        self._source = source
        self.left = left
        self.is_exceeded = False

    def readable(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        limit = self.left if size is None or size < 0 else min(size, self.left)
        return self._take(self._source.readline(limit), limit)

    def read(self, size: int | None = -1, /) -> bytes:
        limit = self.left if size is None or size < 0 else min(size, self.left)
        return self._take(self._source.read(limit), limit)

    def _take(self, data: bytes, limit: int) -> bytes:
        self.left -= len(data)
        if self.left == 0 and len(data) == limit:
            self.is_exceeded = True
        return data


def _serialise(certificates: list[x509.Certificate]) -> bytes:
    encoded = base64.b64encode(pkcs7.serialize_certificates(certificates, Encoding.DER))
    return b"".join(encoded[start : start + _LINE] + b"\n" for start in range(0, len(encoded), _LINE))


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # what cannot be parsed still gets a status line
    claimed_serial = "-"  # of the right form, not yet believed
    server: EnrolmentServer
    rfile: Any

    def setup(self) -> None:
        super().setup()
        self.rfile = _BoundedReader(self.rfile, self.server.limits.head_bytes)

    def do_GET(self) -> None:
        with self._answering():
            self._check_head()
            if self.path != CA_PATH:
                raise self._wrong_path("GET")
            self._answer(HTTPStatus.OK, _serialise([self.server.enrolment.authority]), _ANSWER_TYPE)
            self._audit(HTTPStatus.OK, "cacerts")

    def do_POST(self) -> None:
        with self._answering():
            self._check_head()
            if self.path != ENROL_PATH:
                raise self._wrong_path("POST")
            body = self._body()
            serial, claim = self._credentials()
            enrolled = self.server.enrolment.enrol(serial, claim, body)
            self._answer(HTTPStatus.OK, _serialise([enrolled.certificate]), _ANSWER_TYPE)
            number = f"{enrolled.certificate.serial_number:x}"
            self._audit(HTTPStatus.OK, f"{enrolled.outcome} certificate={number}")

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn refusals of the block into answers."""
        self.close_connection = True
        try:
            yield
        except EnrolmentRefusedError as err:
            self._refuse(err)
        except TransientError as err:
            logger.warning("register: %s", err)
            self._refuse(EnrolmentRefusedError(503, "the register is busy", hint="try again in a minute"))
        except OtaError as err:
            logger.error("cannot serve: %s", err)  # noqa: TRY400 - a fact for the operator, not a defect
            self._refuse(EnrolmentRefusedError(500, "the server cannot enrol at present"))

    def _check_head(self) -> None:
        limits = self.server.limits
        if not self.server.rate_limit.allows(self.client_address[0]):
            raise EnrolmentRefusedError(429, "too many requests from this address", hint="try again in a minute")
        if self.rfile.is_exceeded or len(self.headers) > limits.header_fields:
            raise EnrolmentRefusedError(431, "the request's head is too large")

    def _wrong_path(self, method: str) -> EnrolmentRefusedError:
        if self.path in (ENROL_PATH, CA_PATH):
            return EnrolmentRefusedError(405, f"{method} is not for this path")
        return EnrolmentRefusedError(404, "no such path", hint=f"{ENROL_PATH} or {CA_PATH}")

    def _body(self) -> bytes:
        limits = self.server.limits
        headers: Message = self.headers
        length_text = headers.get("Content-Length", "")
        if "Transfer-Encoding" in headers or not length_text:
            raise EnrolmentRefusedError(411, "the request needs a Content-Length")
        if len(headers.get_all("Content-Length", [])) != 1 or not (length_text.isascii() and length_text.isdigit()):
            raise EnrolmentRefusedError(400, "Content-Length is not one number")
        length = int(length_text[:10])
        if length > limits.body_bytes:
            raise EnrolmentRefusedError(413, f"a body of more than {limits.body_bytes} bytes")
        self.rfile.left = length
        body: bytes = self.rfile.read()
        if len(body) != length:
            raise EnrolmentRefusedError(400, "the body is shorter than its Content-Length")
        if headers.get_content_type() != _REQUEST_TYPE:
            raise EnrolmentRefusedError(415, f"the body must be {_REQUEST_TYPE}")
        return body

    def _credentials(self) -> tuple[str, str]:
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            encoded = ""
        try:
            serial, _, claim = base64.b64decode(encoded.strip(), validate=True).decode("ascii").partition(":")
            self.claimed_serial = check_device_id(serial)
            return serial, claim
        except (binascii.Error, UnicodeDecodeError, MalformedError):
            raise EnrolmentRefusedError(
                401,
                "serial and claim do not belong together",
                hint="check provision.json against the factory's register",
            ) from None

    def _refuse(self, err: EnrolmentRefusedError) -> None:
        body = json.dumps({"error": str(err), "hint": err.hint}).encode() + b"\n"
        self._answer(HTTPStatus(err.status), body, "application/json")
        self._audit(HTTPStatus(err.status), str(err))
        self._drain()

    def _drain(self) -> None:
        """Read what the client is still sending: closing on unread bytes would reset the answer away."""
        self.connection.settimeout(_DRAIN_SILENCE_S)
        self.rfile.left = self.server.limits.drained_bytes
        with contextlib.suppress(OSError):
            while self.rfile.read(_CHUNK_BYTES):
                pass

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if content_type == _ANSWER_TYPE:
            self.send_header("Content-Transfer-Encoding", "base64")
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="omamori enrolment"')
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST" if self.path == ENROL_PATH else "GET")
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            self.send_header("Retry-After", "60")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _audit(self, status: int, what: str) -> None:
        logger.info("address=%s status=%d serial=%s %s", self.client_address[0], status, self.claimed_serial, what)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the standard library refuses (bad request line, unknown method) in our own form."""
        del message, explain  # they quote the request
        self.close_connection = True
        self._refuse(EnrolmentRefusedError(code, HTTPStatus(code).phrase.lower()))

    def version_string(self) -> str:
        return "omamori-enrolment"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the audit line is enough."""


class EnrolmentServer(http.server.ThreadingHTTPServer):
    """The listening server.

    Args:
        address: Where to listen; port 0 takes any.
        enrolment: Who decides.
        tls: Server context.
        limits: Bounds.
    """

    daemon_threads = False
    request_queue_size = 32

    def __init__(
        self,
        address: tuple[str, int],
        enrolment: Enrolment,
        tls: ssl.SSLContext,
        limits: ServerLimits | None = None,
    ) -> None:
        self.enrolment = enrolment
        self.limits = limits or ServerLimits()
        self.rate_limit = RateLimit(self.limits.requests_per_minute)
        self._tls = tls
        self._places = threading.BoundedSemaphore(self.limits.connections)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, or close it when all places are taken."""
        if not self._places.acquire(blocking=False):
            logger.warning("address=%s refused: all %d connections in use", client_address[0], self.limits.connections)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands and serve the one request, all within the time of a request."""
        connection = cast(socket.socket, request)
        connection.settimeout(self.limits.silence_s)
        # A second descriptor of the same connection: shutting it down ends whatever the thread waits for.
        with socket.socket(fileno=os.dup(connection.fileno())) as watched:
            timer = threading.Timer(self.limits.request_s, _cut, (watched,))
            timer.daemon = True
            timer.start()
            try:
                with self._tls.wrap_socket(connection, server_side=True) as secure:
                    super().finish_request(secure, client_address)
            except OSError as err:  # TLS errors and time-outs are its children
                logger.info("address=%s status=- serial=- connection: %s", client_address[0], type(err).__name__)
            finally:
                timer.cancel()
                timer.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a defect of ours; the other connections go on."""
        del request
        # socketserver calls this while it handles the exception.
        logger.error("address=%s defect while serving", client_address[0], exc_info=True)  # noqa: LOG014


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
