"""Rules for keys, requests and certificates; bytes in, values or exceptions out.

A certificate is ours when the key matches, the subject is exactly our serial, it is for clients, and it is valid
now. The issuing CA is not in the image: the answer came over a connection that the service CA vouches for, and the
broker checks the chain. When the answer carries issuers, one of them must have signed the certificate.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import warnings

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from omamori_agent.errors import RejectedError, TransientError

from .tpm import DeviceKey, TPMKey

MAX_CERTIFICATES = 4


class CertificateRejectedError(RejectedError):
    """The certificate is not one this box may use."""


class CertificateNotYetValidError(TransientError):
    """The certificate begins in the future: the box's clock is behind."""


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def dump_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PKCS#8 PEM; whoever stores it protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a key that `dump_key` wrote.

    Raises:
        CertificateRejectedError: It is not a P-256 key.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as err:
        raise CertificateRejectedError("the key file does not hold a key") from err
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRejectedError("the key is not of the P-256 curve")
    return key


def make_request(key: DeviceKey, serial: str) -> bytes:
    """Return the certificate request (PKCS#10, DER) of a box; raises `TransientError` when its TPM cannot sign."""
    if isinstance(key, TPMKey):
        return key.make_request(serial)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.DER)


def parse_answer(body: bytes) -> list[x509.Certificate]:
    """Read an EST answer: base64 of a certs-only PKCS#7.

    Raises:
        CertificateRejectedError: It is something else, or holds no or too many certificates.
    """
    # Needed once in the life of a certificate, and brings the whole of `email` with it, which the daemon would keep.
    from cryptography.hazmat.primitives.serialization import pkcs7  # noqa: PLC0415

    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BER instead of DER is the server's business
            found = pkcs7.load_der_pkcs7_certificates(der)
    except (binascii.Error, ValueError, TypeError) as err:
        raise CertificateRejectedError("the answer is not a certificate in PKCS#7") from err
    if not 1 <= len(found) <= MAX_CERTIFICATES:
        raise CertificateRejectedError(f"the answer holds {len(found)} certificates, allowed 1 to {MAX_CERTIFICATES}")
    return found


def parse_stored(pem: bytes) -> list[x509.Certificate]:
    """Read certificates that `dump_chain` wrote.

    Raises:
        CertificateRejectedError: It is something else.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as err:
        raise CertificateRejectedError("the certificate file does not hold a certificate") from err
    if len(found) > MAX_CERTIFICATES:
        raise CertificateRejectedError("the certificate file holds too many certificates")
    return found


def dump_chain(chain: list[x509.Certificate]) -> bytes:
    """Return certificates as PEM, in the given order."""
    return b"".join(item.public_bytes(Encoding.PEM) for item in chain)


def select_chain(
    certificates: list[x509.Certificate], key: DeviceKey, serial: str, now_s: float
) -> list[x509.Certificate]:
    """Return our certificate followed by its issuer (if it is there), after checking it.

    Args:
        certificates: What the server sent or the store holds, in any order.
        key: Our key.
        serial: Our serial.
        now_s: Unix time in seconds.

    Raises:
        CertificateRejectedError: None is for our key, or that one is not as it must be.
        CertificateNotYetValidError: It begins after `now_s`.
    """
    ours = [item for item in certificates if _public_bytes(item) == _key_bytes(key)]
    if len(ours) != 1:
        raise CertificateRejectedError(f"{len(ours)} certificates are for this box's key, expected one")
    leaf = ours[0]
    _check_leaf(leaf, serial)
    others = [item for item in certificates if item is not leaf]
    issuers = [item for item in others if _has_signed(item, leaf)]
    if others and not issuers:
        raise CertificateRejectedError("none of the issuers in the answer signed the certificate")
    now = dt.datetime.fromtimestamp(now_s, dt.UTC)
    if now >= leaf.not_valid_after_utc:
        raise CertificateRejectedError(f"the certificate expired at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%MZ}")
    if now < leaf.not_valid_before_utc:
        raise CertificateNotYetValidError(
            f"the certificate begins at {leaf.not_valid_before_utc:%Y-%m-%dT%H:%MZ}, it is {now:%Y-%m-%dT%H:%MZ} here",
            hint="the box's clock is behind",
        )
    return [leaf, *issuers[:1]]


def _check_leaf(leaf: x509.Certificate, serial: str) -> None:
    subject = [(item.oid, item.value) for item in leaf.subject]
    if subject != [(NameOID.COMMON_NAME, serial)]:
        raise CertificateRejectedError(
            f"the certificate is for {leaf.subject.rfc4514_string()[:80]!r}, not CN={serial}"
        )
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        constraints = _constraints(leaf)
    except (x509.ExtensionNotFound, ValueError) as err:
        raise CertificateRejectedError(f"the certificate lacks an extension: {err}") from err
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise CertificateRejectedError("the certificate is not for clients")
    if constraints is not None and constraints.ca:
        raise CertificateRejectedError("the certificate is a CA's")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def _has_signed(issuer: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        constraints = _constraints(issuer)
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return constraints is not None and constraints.ca


def _public_bytes(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as err:  # the library has many ways to say that it does not know a key
        raise CertificateRejectedError("a certificate's key is of an unknown kind") from err


def _key_bytes(key: DeviceKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
