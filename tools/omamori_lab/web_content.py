"""What the internet's web servers serve, and the certificate they serve it with: all made at run time.

The EICAR test file is assembled here, so that the source tree itself never upsets a virus scanner.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BIG_FILE = "big.bin"
BIG_BYTES = 20 * 1024 * 1024
EICAR_FILE = "eicar.com"
_EICAR_PARTS = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}", "$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!", "$H+H*")
_PAGE = "<!doctype html><meta charset=utf-8><title>lab</title><p>An ordinary page of the lab's internet.\n"
_LIFETIME = dt.timedelta(days=7)


def eicar() -> bytes:
    """Return the 68 bytes of the EICAR test file."""
    return "".join(_EICAR_PARTS).encode()


def write_web_root(root: Path) -> str:
    """Fill a web root; return the SHA-256 of the big file in hexadecimal."""
    root.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with (root / BIG_FILE).open("wb") as stream:
        for _ in range(BIG_BYTES >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            stream.write(block)
    (root / "index.html").write_text(_PAGE)
    (root / EICAR_FILE).write_bytes(eicar())
    return digest.hexdigest()


def write_web_certificate(out: Path, names: Sequence[str]) -> Path:
    """Make a certificate authority of the lab and one certificate for all its web servers.

    Args:
        out: Directory for ``tls.crt``, ``tls.key`` and ``ca.pem``.
        names: Host names and addresses.

    Returns:
        The authority's certificate, which the office's clients trust.
    """
    out.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Omamori lab: the internet's web")])
    authority = (
        _certificate(authority_name, authority_name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web.example")])
    certificate = (
        _certificate(subject, authority_name, key.public_key(), now)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_file = out / "tls.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    (out / "tls.crt").write_bytes(certificate.public_bytes(pem))
    (out / "ca.pem").write_bytes(authority.public_bytes(pem))
    return out / "ca.pem"


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
