"""A certificate authority in memory, and the files that servers and boxes want of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = dt.timedelta(days=1)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclasses.dataclass(frozen=True)
class Issued:
    """A key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def write(self, key_path: Path, certificate_path: Path) -> None:
        key_path.write_bytes(key_pem(self.key))
        key_path.chmod(0o600)
        certificate_path.write_bytes(self.certificate.public_bytes(Encoding.PEM))


class Authority:
    """A self-signed CA that signs whatever a test wants, the wrong things too."""

    def __init__(self, common_name: str) -> None:
        self.name = name(common_name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(_usage(ca=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @classmethod
    def of(cls, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Authority:
        """An operator's authority, so that what is tested and the simulators share it."""
        found = cls.__new__(cls)
        found.name, found.key, found.certificate = certificate.subject, key, certificate
        return found

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        common_name: str,
        *,
        public_key: ec.EllipticCurvePublicKey | None = None,
        client: bool = True,
        names: tuple[str, ...] = (),
        begins: dt.datetime | None = None,
        life: dt.timedelta = 90 * DAY,
        ca: bool = False,
        subject: x509.Name | None = None,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        begins = begins or dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or name(common_name))
            .issuer_name(self.name)
            .public_key(public_key or key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + life)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_usage(ca=ca), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(item) for item in names]), False)
        return Issued(key, builder.sign(self.key, hashes.SHA256()))

    def revocation_list(self, *serials: int) -> bytes:
        """Return a list of revoked certificates as PEM, valid for a week."""
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(now - DAY)
        builder = builder.next_update(now + 7 * DAY)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue_for_request(self, request_der: bytes, **options: object) -> x509.Certificate:
        """Sign a PKCS#10 request as an enrolment server would."""
        request = x509.load_der_x509_csr(request_der)
        assert request.is_signature_valid
        common_name = str(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        return self.issue(common_name, public_key=request.public_key(), **options).certificate  # type: ignore[arg-type]


def _alternative(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
