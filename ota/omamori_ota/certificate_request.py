"""A box's certificate request (PKCS#10): what is looked at, and what is not.

Looked at: the signature (the box has the key), the kind of key, the common name. Nothing else of a request ever
reaches a certificate: extensions and attributes in it are ignored.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from .attempts import Cause
from .errors import EnrolmentRefusedError

DeviceKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_MALFORMED = 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificateRequest:
    """A checked request.

    Attributes:
        common_name: Who it says it is.
        public_key: Key that signed the request.
        key_hash: SHA-256 of the key's SubjectPublicKeyInfo.
    """

    common_name: str
    public_key: DeviceKey
    key_hash: bytes


def decode_body(body: bytes) -> bytes:
    """Undo the base64 of RFC 7030 (line ends allowed).

    Raises:
        EnrolmentRefusedError: It is not base64 (400).
    """
    try:
        return base64.b64decode(body.replace(b"\r", b"").replace(b"\n", b""), validate=True)
    except binascii.Error as err:
        raise _malformed("the body is not base64") from err


def parse_request(der: bytes) -> CertificateRequest:
    """Check a PKCS#10 request.

    Raises:
        EnrolmentRefusedError: It is not one, is not signed by its own key, has another kind of key than EC P-256 or
            Ed25519, or has not exactly one common name (400).
    """
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        is_signed = request.is_signature_valid
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise _malformed("the body is not a PKCS#10 certificate request") from err
    if not is_signed:
        raise _malformed("the request is not signed by its own key")
    if not isinstance(key, ed25519.Ed25519PublicKey) and not (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        raise _malformed("the request's key is neither EC P-256 nor Ed25519")
    if len(names) != 1 or not isinstance(names[0].value, str):
        raise _malformed("the request needs exactly one common name")
    return CertificateRequest(common_name=names[0].value, public_key=key, key_hash=hash_key(key))


def hash_key(key: CertificatePublicKeyTypes) -> bytes:
    """Return the SHA-256 of a key's SubjectPublicKeyInfo."""
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).digest()


def _malformed(what: str) -> EnrolmentRefusedError:
    return EnrolmentRefusedError(_MALFORMED, what, cause=Cause.MALFORMED)
