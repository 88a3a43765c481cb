"""URLs as a box can see them: the host, and what stands behind it in a request.

A box sees the whole address of a page in plain HTTP only. So a URL becomes a host and a path, each in a list of its
own, and one rule asks for both. A path belongs to some listed host, not to one: that a listed host gets asked for the
path of another listed host is the same malware in another place.

* A URL that names nothing but a host is an indicator for the host.
* A URL of HTTPS says nothing to a box but its host name, which is not necessarily bad: it is given back as such.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from omamori_protocol.feed_manifest import MAX_TEXT_BYTES

from .indicators import DomainRules, IndicatorError, normalise_network

_DOTTED = re.compile(r"[0-9.]+")
_ALLOWED_IN_PATH = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


class SeenURL(NamedTuple):
    """A URL, taken apart.

    Attributes:
        host: Domain or IPv4 address, as in a request's Host header without the port.
        path: Path and query as they stand in a request line, or empty if the URL names only a host.
        is_address: The host is an address.
        is_visible: A box sees the path (plain HTTP).
    """

    host: str
    path: str
    is_address: bool
    is_visible: bool


def normalise_url(text: str, domains: DomainRules) -> SeenURL:
    """Take a URL apart.

    Args:
        text: With or without a scheme; without one it is HTTP.
        domains: Rules for host names.

    Raises:
        IndicatorError: It is no URL, or its host is none that a list may hold.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        name = parts.hostname or ""
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError as err:
        raise IndicatorError(f"not a URL: {str(err)[:60]}") from err
    if parts.scheme not in {"http", "https"} or not name:
        raise IndicatorError("not a URL of HTTP or HTTPS")
    if ":" in name:
        raise IndicatorError("an IPv6 address as a host")
    is_address = _DOTTED.fullmatch(name) is not None
    host = _address(name) if is_address else domains.normalise(name)
    path = quote(parts.path + (f"?{parts.query}" if parts.query else ""), safe=_ALLOWED_IN_PATH)
    if len(path) > MAX_TEXT_BYTES:
        raise IndicatorError(f"a path of more than {MAX_TEXT_BYTES} bytes")
    return SeenURL(host, "" if path in {"", "/"} else path, is_address, parts.scheme == "http")


def _address(text: str) -> str:
    try:
        return normalise_network(str(ipaddress.IPv4Address(text)))
    except ipaddress.AddressValueError as err:
        raise IndicatorError("not an address") from err
