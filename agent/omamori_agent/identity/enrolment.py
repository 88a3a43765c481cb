"""Asking the enrolment server for a certificate (RFC 7030 `simpleenroll` and `simplereenroll`).

The first one is for the claim, a renewal for the present certificate, which the handshake shows. One request, one
answer, both bounded in bytes and time. Only the service CA is trusted; redirects are not followed. The claim travels in
one header and appears in no message, log line or exception.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from typing import Protocol
from urllib.parse import urlsplit

from cryptography import x509

from omamori_agent.config import EnrolmentLimits
from omamori_agent.errors import RejectedError, SetupError, TransientError
from omamori_agent.proxy import connect
from omamori_agent.text import clean_text
from omamori_protocol.provision import Provision

from .certificate import parse_answer
from .store import Identity

PATH = "/.well-known/est/simpleenroll"
RENEW_PATH = "/.well-known/est/simplereenroll"
_CHUNK_BYTES = 8192
_MAX_REASON_LENGTH = 120
MAX_RETRY_AFTER_S = 86400
# Answers that another try with the same request may turn into a certificate.
_TRY_LATER = {408, 425, 429, 500, 502, 503, 504}


class EnrolmentUnreachableError(TransientError):
    """No usable answer from the server; it may be better later.

    Attributes:
        retry_after_s: Seconds that the server asks us to wait; 0 when it did not.
    """

    def __init__(self, message: str, *, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EnrolmentPendingError(EnrolmentUnreachableError):
    """The server knows us, and a person has to approve us first."""


class EnrolmentRefusedError(RejectedError):
    """The server refuses this box; somebody has to act.

    Attributes:
        status: The HTTP status; 0 when the handshake failed over our certificate.
        cause: The server's word for the reason, if it has one.
    """

    def __init__(self, message: str, *, status: int, hint: str = "", cause: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.cause = cause


class Enroller(Protocol):
    """Whoever turns certificate requests into certificates."""

    def enroll(self, request: bytes) -> list[x509.Certificate]:
        """Return the certificates of the answer to `request` (PKCS#10 DER).

        Raises:
            TransientError: Try again later.
            RejectedError: Refused.
        """

    def renew(self, request: bytes, identity: Identity) -> list[x509.Certificate]:
        """Do the same with the present certificate in place of the claim."""


class EnrolmentClient:
    """`Enroller` over HTTPS.

    Args:
        provision: Address, serial and claim.
        service_ca: PEM file of the only CA that is trusted.
        limits: Bounds.
    """

    def __init__(self, provision: Provision, service_ca: str, limits: EnrolmentLimits) -> None:
        self._provision = provision
        self._service_ca = service_ca
        self._limits = limits

    def enroll(self, request: bytes) -> list[x509.Certificate]:
        """Send the request with the claim and read the answer.

        Raises:
            EnrolmentUnreachableError: No connection, too slow, too large, or the server is in trouble.
            EnrolmentPendingError: Somebody has to approve us first.
            EnrolmentRefusedError: It answered and refused.
            CertificateRejectedError: It answered with something that is no certificate.
            SetupError: The image's service CA cannot be read.
        """
        pair = f"{self._provision.serial}:{self._provision.claim}"
        secret = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        return self._ask(PATH, request, secret, self._context())

    def renew(self, request: bytes, identity: Identity) -> list[x509.Certificate]:
        """Send the request with the present certificate; raises as `enroll`, and when its files cannot be read."""
        context = self._context()
        try:
            context.load_cert_chain(identity.certificate_path, identity.key_path)
        except OSError as err:
            raise SetupError(f"renewal: the present certificate cannot be loaded: {err}") from err
        return self._ask(RENEW_PATH, request, {}, context)

    def _ask(
        self, path: str, request: bytes, headers: dict[str, str], context: ssl.SSLContext
    ) -> list[x509.Certificate]:
        status, retry_after_s, body = self._exchange(path, base64.b64encode(request), headers, context)
        if status == http.HTTPStatus.OK:
            return parse_answer(body)
        reason, hint, cause = self._read_error(body)
        if status == http.HTTPStatus.ACCEPTED:
            raise EnrolmentPendingError(f"enrolment waits: {reason}", retry_after_s=retry_after_s)
        if status in _TRY_LATER:
            raise EnrolmentUnreachableError(
                f"enrolment server answered {status}: {reason}", retry_after_s=retry_after_s
            )
        raise EnrolmentRefusedError(f"enrolment refused with {status}: {reason}", status=status, hint=hint, cause=cause)

    def _exchange(
        self, path: str, body: bytes, headers: dict[str, str], context: ssl.SSLContext
    ) -> tuple[int, int, bytes]:
        url = urlsplit(self._provision.enrolment_url)
        deadline = time.monotonic() + self._limits.deadline_s
        host, port = str(url.hostname), url.port or 443
        connection = http.client.HTTPSConnection(host, port, timeout=self._limits.timeout_s, context=context)
        try:
            plain = connect(host, port, self._provision.proxy, self._limits.timeout_s)
            try:
                connection.sock = context.wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise
            connection.request("POST", url.path + path, body, headers | _headers())
            response = connection.getresponse()
            wait = _retry_after_s(response.headers.get("Retry-After", ""))
            return response.status, wait, self._read(response, deadline)
        except (OSError, http.client.HTTPException) as err:
            what = clean_text(str(err), 160) or type(err).__name__
            if _is_our_certificate_refused(err):
                raise EnrolmentRefusedError(f"enrolment server {host}:{port}: {what}", status=0) from err
            raise EnrolmentUnreachableError(f"enrolment server {host}:{port}: {what}") from err
        finally:
            connection.close()

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # 1.3 is taken when the server has it
        try:
            context.load_verify_locations(self._service_ca)
        except OSError as err:
            raise SetupError(f"{self._service_ca}: {err.strerror or 'not a CA in PEM'}") from err
        return context

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        """Read a bounded body, however slowly it comes, before the deadline."""
        body = b""
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._limits.max_response_bytes:
                raise EnrolmentUnreachableError(
                    f"enrolment answer is larger than {self._limits.max_response_bytes} bytes"
                )
            if time.monotonic() > deadline:
                raise EnrolmentUnreachableError("enrolment answer takes too long")
        return body

    def _read_error(self, body: bytes) -> tuple[str, str, str]:
        """Return reason, hint and cause of an error answer, safe to show."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            return "no reason given", "", ""
        keys = ("error", "hint", "cause")
        texts = [str(answer.get(key) or "").replace(self._provision.claim, "…") for key in keys]
        reason, hint, cause = (clean_text(text, _MAX_REASON_LENGTH) for text in texts)
        return reason or "no reason given", hint, cause


def _headers() -> dict[str, str]:
    return {
        "Content-Type": "application/pkcs10",
        "Content-Transfer-Encoding": "base64",
        "Accept": "application/pkcs7-mime",
        # So that the operator sees a box that cannot use its certificate because its clock is off.
        "Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        "Connection": "close",
    }


def _retry_after_s(text: str) -> int:
    """Return the seconds of a Retry-After; 0 for a date or anything else."""
    return min(int(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _is_our_certificate_refused(err: Exception) -> bool:
    """Tell whether the server ended the handshake over our certificate, not we over the server's."""
    is_ours = isinstance(err, ssl.SSLError) and not isinstance(err, ssl.SSLCertVerificationError)
    return is_ours and "ALERT" in (getattr(err, "reason", None) or "")
