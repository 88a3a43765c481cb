"""A box's name and the values that identify machines on the wire."""

from __future__ import annotations

import re

from .errors import MalformedError

_DEVICE_ID = re.compile(r"[A-Z0-9][A-Z0-9-]{3,31}")


def check_device_id(text: str) -> str:
    """Return `text` if it is a device id (the serial on the label, the certificate's common name).

    Raises:
        MalformedError: It is not: 4 to 32 upper-case letters, digits and hyphens, not starting with a hyphen.
    """
    if not isinstance(text, str) or not _DEVICE_ID.fullmatch(text):
        raise MalformedError(f"not a device id: {str(text)[:40]!r}", hint="for example ZA35-000001")
    return text


def format_mac(mac: bytes) -> str:
    """Return six bytes as the customer reads them on a label, for example ``02:00:5e:10:00:01``."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Return the six bytes of a MAC address written with colons or hyphens.

    Raises:
        MalformedError: It is not a MAC address.
    """
    digits = text.replace("-", ":").split(":")
    if len(digits) != 6 or any(not re.fullmatch(r"[0-9a-fA-F]{2}", part) for part in digits):
        raise MalformedError(f"not a MAC address: {text[:40]!r}")
    return bytes(int(part, 16) for part in digits)
