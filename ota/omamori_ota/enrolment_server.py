"""HTTPS in front of `enrolment`, after EST (RFC 7030): cacerts, simpleenroll, simplereenroll.

A first enrolment proves itself by serial and claim (HTTP Basic), a renewal by the present certificate (mutual TLS).

The one process that holds the device CA's key and talks to the world, hence the standard library alone, one request
per connection, and a bound on everything: connections, time, bytes of head and body, number of header fields,
requests per address. Each request leaves one audit line, which never holds a claim, a body or anything unchecked
that the other side sent; `attempts` keeps the same for the operator.

Of RFC 7030 it has not: full CMC, keys made by the server, csrattrs (404: we take nothing over from a request anyway),
labels in the path. A client certificate is checked by the handshake (chain, dates) and by the register (revocation).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import http.server
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from omamori_protocol.device import check_device_id
from omamori_protocol.errors import MalformedError

from .attempts import AttemptLog, Cause
from .bounded_reader import BoundedReader
from .certificate_request import hash_key
from .enrolment import Enrolled, Enrolment
from .errors import EnrolmentRefusedError, OtaError, TransientError
from .rate_limit import RateLimit

logger = logging.getLogger(__name__)

ENROL_PATH = "/.well-known/est/simpleenroll"
RENEW_PATH = "/.well-known/est/simplereenroll"
CA_PATH = "/.well-known/est/cacerts"
_REQUEST_TYPE = "application/pkcs10"
_ANSWER_TYPE = "application/pkcs7-mime; smime-type=certs-only"
_LINE = 76
_CHUNK_BYTES = 4096
_DRAIN_SILENCE_S = 0.2
_LOOK_S = 0.1
_APPROVAL_RETRY_S = 600
_TROUBLE_RETRY_S = 60
# Certificates are dated back by an hour; a box whose clock is behind by more does not take them.
_MAX_SKEW_S = 3600
_MAX_DATE_LENGTH = 64
# What a client says when the handshake fails for it, in OpenSSL's words.
_ALERTS = {
    "SSLV3_ALERT_BAD_CERTIFICATE": Cause.CLOCK_WRONG,  # not yet valid
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": Cause.CLOCK_WRONG,
    "TLSV1_ALERT_UNKNOWN_CA": Cause.SERVER_NOT_TRUSTED,
    "CERTIFICATE_VERIFY_FAILED": Cause.CERTIFICATE_EXPIRED,  # or of another CA
}


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
        self.rfile = BoundedReader(self.rfile, self.server.limits.head_bytes)

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
            if self.path not in (ENROL_PATH, RENEW_PATH):
                raise self._wrong_path("POST")
            body = self._body()
            enrolled = self._renew(body) if self.path == RENEW_PATH else self._enrol(body)
            self._note(Cause.ENROLLED, hash_key(enrolled.certificate.public_key()))
            self._answer(HTTPStatus.OK, _serialise([enrolled.certificate]), _ANSWER_TYPE)
            number = f"{enrolled.certificate.serial_number:x}"
            self._audit(HTTPStatus.OK, f"{enrolled.outcome} certificate={number}")

    def _enrol(self, body: bytes) -> Enrolled:
        serial, claim = self._credentials()
        return self.server.enrolment.enrol(serial, claim, body)

    def _renew(self, body: bytes) -> Enrolled:
        data = cast(ssl.SSLSocket, self.connection).getpeercert(binary_form=True)
        if data is None:
            raise EnrolmentRefusedError(
                403, "a renewal needs the present certificate", hint=f"without one: {ENROL_PATH} with the claim"
            )
        certificate = x509.load_der_x509_certificate(data)  # the handshake has verified it
        with contextlib.suppress(MalformedError):
            self.claimed_serial = check_device_id(certificate.subject.rfc4514_string().removeprefix("CN="))
        return self.server.enrolment.renew(certificate, body)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn refusals of the block into answers."""
        self.close_connection = True
        try:
            yield
        except EnrolmentRefusedError as err:  # and `ApprovalPendingError`, whose status is 202
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
        if self.path in (ENROL_PATH, RENEW_PATH, CA_PATH):
            return EnrolmentRefusedError(405, f"{method} is not for this path")
        return EnrolmentRefusedError(404, "no such path", hint=f"{ENROL_PATH}, {RENEW_PATH} or {CA_PATH}")

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

    def _note(self, cause: Cause, key: bytes | None) -> None:
        """Keep it for the operator; a box whose clock is off cannot use what it gets."""
        skew_s = self._skew_s()
        self.server.note(self.claimed_serial, cause, address=self.client_address[0], key_hash=key, skew_s=skew_s)
        if cause in (Cause.ENROLLED, Cause.WAITING) and skew_s is not None and abs(skew_s) > _MAX_SKEW_S:
            address = self.client_address[0]
            self.server.note(self.claimed_serial, Cause.CLOCK_WRONG, address=address, key_hash=key, skew_s=skew_s)

    def _skew_s(self) -> int | None:
        """Return by how many seconds the other side's clock is ahead, if it says the time."""
        text = self.headers.get("Date", "")
        try:
            said = parsedate_to_datetime(text[:_MAX_DATE_LENGTH])
            skew = (said if said.tzinfo else said.replace(tzinfo=UTC)) - datetime.now(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        return round(skew.total_seconds())

    def _refuse(self, err: EnrolmentRefusedError) -> None:
        facts = {"error": str(err), "hint": err.hint}
        # Who does not know a claim is not told whether the serial exists.
        if err.cause and err.status != HTTPStatus.UNAUTHORIZED:
            facts["cause"] = err.cause
        body = json.dumps(facts).encode() + b"\n"
        if err.cause and self.claimed_serial != "-":
            self._note(Cause(err.cause), err.key)
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
            self.send_header("Allow", "GET" if self.path == CA_PATH else "POST")
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            self.send_header("Retry-After", str(_TROUBLE_RETRY_S))
        if status == HTTPStatus.ACCEPTED:
            self.send_header("Retry-After", str(_APPROVAL_RETRY_S))
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


@dataclasses.dataclass(frozen=True)
class _Running:
    """A request under way.

    Attributes:
        watched: A second descriptor of its connection: shutting it down ends whatever the thread waits for.
        until: When that is done, monotonic seconds.
    """

    watched: socket.socket
    until: float


class EnrolmentServer(http.server.ThreadingHTTPServer):
    """The listening server.

    Args:
        address: Where to listen; port 0 takes any.
        enrolment: Who decides.
        tls: Server context; asks for a client certificate without insisting on one.
        attempts: Where attempts are kept for the operator.
        limits: Bounds.
    """

    # A request that hangs for a reason of ours is cut and given up; it must not keep the server from ending.
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(
        self,
        address: tuple[str, int],
        enrolment: Enrolment,
        tls: ssl.SSLContext,
        attempts: AttemptLog,
        limits: ServerLimits | None = None,
    ) -> None:
        self.enrolment = enrolment
        self._attempts = attempts
        self.limits = limits or ServerLimits()
        self.rate_limit = RateLimit(self.limits.requests_per_minute)
        self._tls = tls
        self._running: dict[socket.socket, _Running] = {}
        self._changed = threading.Condition()  # of `_running`
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def note(
        self, who: str, cause: Cause, *, address: str, key_hash: bytes | None = None, skew_s: int | None = None
    ) -> None:
        """Keep an attempt for the operator; what cannot be kept is logged, and nobody is refused for it."""
        try:
            self._attempts.note(who, cause, self.enrolment.clock(), address=address, key_hash=key_hash, skew_s=skew_s)
        except OtaError as err:
            logger.warning("%s", err)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, or close it when all places are taken."""
        with self._changed:
            is_full = len(self._running) >= self.limits.connections
            if not is_full:
                self._running[request] = _Running(request.dup(), time.monotonic() + self.limits.request_s)
        if is_full:
            logger.warning("address=%s refused: all %d connections in use", client_address[0], self.limits.connections)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._end(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._end(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands and serve the one request."""
        connection = cast(socket.socket, request)
        connection.settimeout(self.limits.silence_s)
        try:
            with self._tls.wrap_socket(connection, server_side=True) as secure:
                super().finish_request(secure, client_address)
        except OSError as err:  # TLS errors and time-outs are its children
            cause = _ALERTS.get(err.reason or "") if isinstance(err, ssl.SSLError) else None
            if cause is not None and self.rate_limit.allows(client_address[0]):
                self.note(client_address[0], cause, address=client_address[0])
            logger.info("address=%s status=- serial=- connection: %s", client_address[0], type(err).__name__)

    def service_actions(self) -> None:
        """Cut the connections whose time is over; the base class calls this between two looks at the door."""
        now = time.monotonic()
        with self._changed:
            for running in self._running.values():
                if now >= running.until:
                    with contextlib.suppress(OSError):  # cut before, or closed by the other side
                        running.watched.shutdown(socket.SHUT_RDWR)

    def server_close(self) -> None:
        """Stop listening and let the requests that are under way end, each within its time."""
        super().server_close()
        give_up_at = time.monotonic() + self.limits.request_s + self.limits.silence_s
        with self._changed:
            while self._running and time.monotonic() < give_up_at:
                self.service_actions()
                self._changed.wait(_LOOK_S)
            if self._running:
                logger.error("requests that did not end in time and are given up: %d", len(self._running))

    def _end(self, request: socket.socket) -> None:
        with self._changed:
            self._running.pop(request).watched.close()
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a defect of ours; the other connections go on."""
        del request
        # socketserver calls this while it handles the exception.
        logger.error("address=%s defect while serving", client_address[0], exc_info=True)  # noqa: LOG014
