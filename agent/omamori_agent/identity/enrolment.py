"""Asking the enrolment server for a certificate (RFC 7030 `simpleenroll`, the part of it that a box needs).

One request, one answer, both bounded in bytes and time. Only the service CA is trusted; redirects are not followed.
The claim travels in one header and appears in no message, log line or exception.
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

PATH = "/.well-known/est/simpleenroll"
_CHUNK_BYTES = 8192
_MAX_REASON_LENGTH = 120
# Answers that another try with the same request may turn into a certificate.
_TRY_LATER = {408, 425, 429, 500, 502, 503, 504}


class EnrolmentUnreachableError(TransientError):
    """No usable answer from the server; it may be better later."""


class EnrolmentRefusedError(RejectedError):
    """The server refuses this box; somebody has to act.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Enroller(Protocol):
    """Whoever turns certificate requests into certificates."""

    def enroll(self, request: bytes) -> list[x509.Certificate]:
        """Return the certificates of the answer to `request` (PKCS#10 DER).

        Raises:
            TransientError: Try again later.
            RejectedError: Refused.
        """


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
        """Send the request and read the answer.

        Raises:
            EnrolmentUnreachableError: No connection, too slow, too large, or the server is in trouble.
            EnrolmentRefusedError: It answered and refused.
            CertificateRejectedError: It answered with something that is no certificate.
            SetupError: The image's service CA cannot be read.
        """
        status, body = self._exchange(base64.b64encode(request))
        if status == http.HTTPStatus.OK:
            return parse_answer(body)
        reason, hint = self._read_error(body)
        if status in _TRY_LATER:
            raise EnrolmentUnreachableError(f"enrolment server answered {status}: {reason}")
        raise EnrolmentRefusedError(f"enrolment refused with {status}: {reason}", status=status, hint=hint)

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        url = urlsplit(self._provision.enrolment_url)
        deadline = time.monotonic() + self._limits.deadline_s
        host, port = str(url.hostname), url.port or 443
        context = self._context()
        connection = http.client.HTTPSConnection(host, port, timeout=self._limits.timeout_s, context=context)
        try:
            plain = connect(host, port, self._provision.proxy, self._limits.timeout_s)
            try:
                connection.sock = context.wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise
            connection.request("POST", url.path + PATH, body, self._headers())
            response = connection.getresponse()
            return response.status, self._read(response, deadline)
        except (OSError, http.client.HTTPException) as err:
            raise EnrolmentUnreachableError(
                f"enrolment server {host}:{port}: {clean_text(str(err), 160) or type(err).__name__}"
            ) from err
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        pair = f"{self._provision.serial}:{self._provision.claim}"
        return {
            "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
            "Content-Type": "application/pkcs10",
            "Content-Transfer-Encoding": "base64",
            "Accept": "application/pkcs7-mime",
            "Connection": "close",
        }

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

    def _read_error(self, body: bytes) -> tuple[str, str]:
        """Return reason and hint of an error answer, safe to show."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            return "no reason given", ""
        texts = [str(answer.get(key) or "").replace(self._provision.claim, "…") for key in ("error", "hint")]
        return clean_text(texts[0], _MAX_REASON_LENGTH) or "no reason given", clean_text(texts[1], _MAX_REASON_LENGTH)
