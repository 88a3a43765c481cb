"""Tries to reach the servers of the service, and finds out who routes behind the router.

Only hosts that the box is declared to contact are ever addressed (requirement R12): nothing is pinged, no other name is
looked up, no resolver but the office's is asked.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import ssl
import struct
import time
from urllib.parse import urlsplit

from omamori_agent.link.road import Road
from omamori_protocol.provision import Provision

from .facts import Contact

logger = logging.getLogger(__name__)

TRY_TIMEOUT_S = 8.0
_HOP_TIMEOUT_S = 2.0
_HOP_TRIES = 2
# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (x509_vfy.h).
_ABOUT_TIME = (9, 10)
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
# Of linux/in.h and linux/errqueue.h, which Python does not name.
_IP_RECVERR = 11
_ORIGIN_ICMP = 2
_TIME_EXCEEDED = 11
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err; the offender's address follows


def servers(provision: Provision, *, is_enrolled: bool) -> dict[str, Road]:
    """Return which servers to try, by role, and how."""
    repository, enrolment = urlsplit(provision.repository_url), urlsplit(provision.enrolment_url)
    roads = {
        "repository": Road(str(repository.hostname), repository.port or 443, proxy=provision.proxy),
        "broker": Road(provision.broker_host, provision.broker_port, proxy=provision.proxy),
    }
    if not is_enrolled:
        roads["enrolment"] = Road(str(enrolment.hostname), enrolment.port or 443, proxy=provision.proxy)
    return roads


def try_contact(road: Road, service_ca: str, *, timeout_s: float = TRY_TIMEOUT_S) -> Contact:
    """Make a connection to a server of the service, look at its certificate, and hang up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(service_ca)
        road.open(context, timeout_s).close()
    except ssl.SSLCertVerificationError as err:
        return Contact.OTHER_TIME if err.verify_code in _ABOUT_TIME else Contact.FOREIGN
    except OSError as err:
        return contact_of(err)
    return Contact.REACHED


def contact_of(err: OSError) -> Contact:
    """Return what an error says about the way."""
    if isinstance(err, socket.gaierror):
        return Contact.NO_ANSWER_ABOUT_NAME if err.errno == socket.EAI_AGAIN else Contact.NO_NAME
    if isinstance(err, ssl.SSLError):
        # Cut off in the middle of the handshake is what filters do; anything else is somebody else's TLS, or none.
        return Contact.REFUSED if isinstance(err, ssl.SSLEOFError | ssl.SSLZeroReturnError) else Contact.FOREIGN
    if isinstance(err, TimeoutError) or err.errno == errno.ETIMEDOUT:
        return Contact.SILENT
    return Contact.NO_WAY if err.errno in _NO_WAY else Contact.REFUSED


def second_hop(host: str, port: int, *, timeout_s: float = _HOP_TIMEOUT_S) -> str:
    """Return the address of the second router on the way to a declared host; empty if none says so.

    A datagram to the host is allowed two hops; the router at which it ends says who it is. No right is needed for that.

    Args:
        host: A declared host.
        port: Any port of it; nothing is expected to answer there.
        timeout_s: How long to wait for each try.
    """
    try:
        target = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
    except OSError:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
        sock.settimeout(0)
        for _ in range(_HOP_TRIES):
            with contextlib.suppress(OSError):
                sock.sendto(b"", target)
            if (found := _offender(sock, time.monotonic() + timeout_s)) is not None:
                return found
    return ""


def _offender(sock: socket.socket, deadline_s: float) -> str | None:
    """Return who says that the hops were used up; empty if somebody says something else, None if nobody does."""
    poll = select.poll()
    poll.register(sock, select.POLLERR)
    while (left_s := deadline_s - time.monotonic()) > 0:
        if not poll.poll(left_s * 1000):
            return None
        try:
            _data, ancillary, _flags, _target = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return None
        for level, kind, data in ancillary:
            if level == socket.IPPROTO_IP and kind == _IP_RECVERR:
                return offender_of(data)
    return None


def offender_of(data: bytes) -> str:
    """Return whose address stands in an extended error that says "time exceeded"; empty for any other."""
    if len(data) < _ERROR.size + 8:
        return ""
    _number, origin, kind, _code, _pad, _info, _more = _ERROR.unpack_from(data)
    family = struct.unpack_from("=H", data, _ERROR.size)[0]
    if origin != _ORIGIN_ICMP or kind != _TIME_EXCEEDED or family != socket.AF_INET:
        return ""
    return socket.inet_ntoa(data[_ERROR.size + 4 : _ERROR.size + 8])
