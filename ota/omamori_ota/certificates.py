"""X.509 certificates of Omamori: what each kind contains.

Four separate trees: Secure Boot (PK, KEK, db; RSA-2048 because UEFI firmware asks for it), devices (one CA that
issues nothing but boxes' client certificates), services (servers and the cloud's own clients), bundles (one CA whose
certificates sign firmware).
Pure: keys and names in, certificates out. Where they are stored is `keys`' and `pki`'s part.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import RejectedError

IssuerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
SubjectKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

AUTHORITY_LIFETIME = timedelta(days=20 * 365)
SECURE_BOOT_LIFETIME = timedelta(days=30 * 365)
BUNDLE_LIFETIME = timedelta(days=3 * 365)
DEVICE_LIFETIME = timedelta(days=90)
SERVICE_LIFETIME = timedelta(days=90)
SERVICE_LIFETIME_MAXIMUM = timedelta(days=365)
# A box whose clock runs a little behind must still accept what was issued a moment ago.
_BACKDATED = timedelta(hours=1)

_DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))*")
_CLIENT_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def private_pem(key: IssuerKey | ed25519.Ed25519PrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def new_service_key() -> ec.EllipticCurvePrivateKey:
    """Return a new EC P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_secure_boot_key() -> rsa.RSAPrivateKey:
    """Return a new RSA-2048 key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority_name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Omamori"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def self_signed_authority(
    common_name: str, key: IssuerKey, now: datetime, *, lifetime: timedelta = AUTHORITY_LIFETIME
) -> x509.Certificate:
    """Return the certificate of an authority that signs leaf certificates only.

    Args:
        common_name: For example ``Omamori device CA``.
        key: The authority's key.
        now: Beginning of validity.
        lifetime: How long it is valid.
    """
    name = _authority_name(common_name)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def secure_boot_certificate(common_name: str, key: rsa.RSAPrivateKey, now: datetime) -> x509.Certificate:
    """Return a self-signed certificate as firmware variables PK, KEK and db hold it."""
    name = _authority_name(common_name)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + SECURE_BOOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    subject: str,
    public_key: SubjectKey,
    authority: x509.Certificate,
    now: datetime,
    lifetime: timedelta,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    authority_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(authority.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(min(now + lifetime, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
    )


def device_certificate(
    device: str,
    public_key: SubjectKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return the client certificate of a box: common name = serial, nothing taken over from its request."""
    builder = _leaf(device, public_key, authority, now, DEVICE_LIFETIME, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(authority_key, hashes.SHA256())


def client_certificate(
    name: str,
    public_key: SubjectKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta = SERVICE_LIFETIME,
) -> x509.Certificate:
    """Return the client certificate of a service such as ``ingest``.

    Raises:
        RejectedError: `name` could be taken for a box, or the lifetime is too long.
    """
    if not _CLIENT_NAME.fullmatch(name):
        raise RejectedError(f"not a service's name: {name[:40]!r}", hint="lower case: ingest, publisher")
    _check_lifetime(lifetime)
    builder = _leaf(name, public_key, authority, now, lifetime, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(authority_key, hashes.SHA256())


def bundle_certificate(
    name: str,
    public_key: SubjectKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    """Return the certificate of a key that signs bundles: good for code signing, nothing else."""
    builder = _leaf(name, public_key, authority, now, BUNDLE_LIFETIME, ExtendedKeyUsageOID.CODE_SIGNING)
    return builder.sign(authority_key, hashes.SHA256())


def server_certificate(
    names: list[str],
    public_key: SubjectKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta = SERVICE_LIFETIME,
) -> x509.Certificate:
    """Return the certificate of a server known by `names` (DNS names and IP addresses, the first is the subject).

    Raises:
        RejectedError: A name is neither, there is none, or the lifetime is too long.
    """
    if not names:
        raise RejectedError("a server needs at least one name")
    _check_lifetime(lifetime)
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    builder = _leaf(names[0][:64], public_key, authority, now, lifetime, ExtendedKeyUsageOID.SERVER_AUTH)
    return builder.add_extension(alternatives, critical=False).sign(authority_key, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(name):
        raise RejectedError(f"neither a host name nor an address: {name[:60]!r}", hint="for example broker.example.com")
    return x509.DNSName(name)


def _check_lifetime(lifetime: timedelta) -> None:
    if not timedelta(0) < lifetime <= SERVICE_LIFETIME_MAXIMUM:
        raise RejectedError(
            f"a lifetime of {lifetime} is not allowed", hint=f"at most {SERVICE_LIFETIME_MAXIMUM.days}d"
        )
