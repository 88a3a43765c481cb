"""Asking a server of the service for the time: one HTTPS request, of whose answer only the ``Date`` header counts.

The certificate must be the service CA's. When it is refused only because of the time, that may be because our own
clock is wrong: then it is asked once more with everything checked but the time, and `rules` hold what it says against
the certificate's own validity.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from cryptography import x509

from omamori_agent.errors import TransientError
from omamori_agent.link.road import Road
from omamori_agent.text import clean_text

from .rules import Testimony

_TIMEOUT_S = 10.0
MAX_HEAD_BYTES = 8192
_DATE = re.compile(rb"\r\ndate:[ \t]*([^\r\n]{1,64})\r\n", re.IGNORECASE)
# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED and X509_V_FLAG_NO_CHECK_TIME (x509_vfy.h).
_ABOUT_TIME = (9, 10)
_NO_CHECK_TIME = 0x200000


class NoTimeError(TransientError):
    """Nobody says what time it is; another try may help."""


def ask(
    url: str,
    service_ca: str,
    *,
    proxy: tuple[str, int] | None,
    boottime_s: Callable[[], float],
    timeout_s: float = _TIMEOUT_S,
) -> Testimony:
    """Ask the server of an address for the time.

    Args:
        url: An https address of the service.
        service_ca: PEM file of the only CA that is trusted.
        proxy: The office's HTTP proxy, if it wants one used.
        boottime_s: Seconds since power-on.
        timeout_s: For everything.

    Raises:
        NoTimeError: No usable answer.
    """
    try:
        return _ask(url, _context(service_ca), proxy, boottime_s, timeout_s)
    except ssl.SSLCertVerificationError as err:
        if err.verify_code not in _ABOUT_TIME:
            raise NoTimeError(f"{urlsplit(url).hostname}: {clean_text(str(err), 160)}") from err
    except (OSError, ValueError) as err:
        raise NoTimeError(f"{urlsplit(url).hostname}: {clean_text(str(err), 160)}") from err
    context = _context(service_ca)
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    try:
        return _ask(url, context, proxy, boottime_s, timeout_s)
    except (OSError, ValueError) as err:
        raise NoTimeError(f"{urlsplit(url).hostname}: {clean_text(str(err), 160)}") from err


def _context(service_ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(service_ca)
    return context


def _ask(
    url: str,
    context: ssl.SSLContext,
    proxy: tuple[str, int] | None,
    boottime_s: Callable[[], float],
    timeout_s: float,
) -> Testimony:
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or 443
    deadline_s = time.monotonic() + timeout_s
    with contextlib.closing(Road(host, port, proxy=proxy).open(context, timeout_s)) as connection:
        if not isinstance(connection, ssl.SSLSocket):
            raise TypeError("a plain way was asked for")
        certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        name = host if port == 443 else f"{host}:{port}"
        asked_s = boottime_s()
        connection.sendall(
            f"HEAD {parts.path or '/'} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: omamori-agent\r\n"
            "Connection: close\r\n\r\n".encode("ascii")
        )
        said_s = _date(_head(connection, deadline_s))
        answered_s = boottime_s()
    return Testimony(
        said_s=said_s,
        asked_s=asked_s,
        answered_s=answered_s,
        valid_from_s=certificate.not_valid_before_utc.timestamp(),
        valid_to_s=certificate.not_valid_after_utc.timestamp(),
    )


def _head(connection: ssl.SSLSocket, deadline_s: float) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("takes too long")
        connection.settimeout(left_s)
        data = connection.recv(MAX_HEAD_BYTES + 1 - len(head))
        if not data:
            raise ValueError("ends in the middle of its answer")
        head += data
        if len(head) > MAX_HEAD_BYTES:
            raise ValueError(f"an answer of more than {MAX_HEAD_BYTES} bytes")
    return head


def _date(head: bytes) -> float:
    match = _DATE.search(head.partition(b"\r\n\r\n")[0] + b"\r\n")
    if match is None or not head.startswith(b"HTTP/1."):
        raise ValueError("the answer has no date")
    moment = email.utils.parsedate_to_datetime(match[1].decode("latin-1"))
    if moment.tzinfo is None:
        raise ValueError("the answer's date has no zone")
    return moment.timestamp()
