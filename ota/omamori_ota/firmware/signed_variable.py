"""Signed changes of Secure Boot's variables, as a machine's firmware takes them (UEFI 2.10, 8.2.2 and 32.4.1).

A change that adds: lists of X.509 certificates, signed by KEK together with the variable's name and the time. Pure:
certificates in, bytes out.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from omamori_ota.errors import SetupError

MAX_BYTES = 64 * 1024  # boxes read no more
OWNER = uuid.UUID("6F6D616D-6F72-4900-8000-000000000010")
_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_PKCS7 = uuid.UUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
# Survives, for firmware and for the system, signed with a time, added to what is there.
_ATTRIBUTES = 0x07 | 0x20 | 0x40
_REVISION, _TYPE = 0x0200, 0x0EF1
# The object identifier of signed data, in front of which the firmware wants nothing.
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")


def certificate_lists(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return one list for each certificate, for certificates have different lengths."""
    lists = b""
    for certificate in certificates:
        der = certificate.public_bytes(Encoding.DER)
        entry = OWNER.bytes_le + der
        lists += _X509.bytes_le + struct.pack("<III", 28 + len(entry), 0, len(entry)) + entry
    return lists


def signed_addition(
    variable: str,
    certificates: Sequence[x509.Certificate],
    kek: x509.Certificate,
    key: rsa.RSAPrivateKey,
    now: datetime,
) -> bytes:
    """Return the change that adds certificates to ``db`` or ``dbx``.

    Args:
        variable: Name of the variable.
        certificates: What is added; what is there already does no harm.
        kek: The certificate of a key that may change it.
        key: Its private key.
        now: When it is signed.

    Raises:
        SetupError: It becomes larger than boxes read.
    """
    lists = certificate_lists(certificates)
    at = now.astimezone(UTC)
    time = struct.pack("<HBBBBBBIhBB", at.year, at.month, at.day, at.hour, at.minute, at.second, 0, 0, 0, 0, 0)
    signed = variable.encode("utf-16-le") + _SECURITY.bytes_le + struct.pack("<I", _ATTRIBUTES) + time + lists
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes]
    builder = pkcs7.PKCS7SignatureBuilder().set_data(signed).add_signer(kek, key, hashes.SHA256())
    signature = _unwrap(builder.sign(Encoding.DER, options))
    head = struct.pack("<IHH", 24 + len(signature), _REVISION, _TYPE) + _PKCS7.bytes_le
    change = time + head + signature + lists
    if len(change) > MAX_BYTES:
        raise SetupError(f"a change of {variable} of {len(change)} bytes, boxes read {MAX_BYTES}")
    return change


def _unwrap(message: bytes) -> bytes:
    """Return the signed data inside a PKCS #7 message: older firmware knows nothing else."""
    at = message.find(_SIGNED_DATA, 0, 16)
    if at < 0:
        raise SetupError("the signature is not made as expected")
    return _content(message[at + len(_SIGNED_DATA) :])


def _content(element: bytes) -> bytes:
    """Return what a DER element with a long length contains."""
    count = element[1] & 0x7F
    return element[2 + count :] if element[1] & 0x80 else element[2:]
