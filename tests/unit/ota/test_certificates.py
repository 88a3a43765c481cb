"""Certificates: what each kind contains, and what is not issued."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from omamori_ota import certificates, pki
from omamori_ota.certificates import DEVICE_LIFETIME
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.keys import DEVICE_CA, SERVICE_CA, KeyDirectory

from .conftest import START, ManualClock


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def read(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes())


def test_device_certificate(key_directory: KeyDirectory) -> None:
    authority, key = key_directory.authority(DEVICE_CA)
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    certificate = certificates.device_certificate("ZA35-000001", public_key, authority, key, START)
    certificate.verify_directly_issued_by(authority)
    assert common_name(certificate) == "ZA35-000001"
    assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.not_valid_after_utc - START == DEVICE_LIFETIME == timedelta(days=90)
    assert certificate.serial_number.bit_length() <= 159
    extensions = certificate.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    subject_id = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert subject_id == x509.SubjectKeyIdentifier.from_public_key(public_key)
    authority_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == authority_id


def test_device_certificate_never_outlives_its_authority(key_directory: KeyDirectory) -> None:
    authority, key = key_directory.authority(DEVICE_CA)
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    late = authority.not_valid_after_utc - timedelta(days=1)
    certificate = certificates.device_certificate("ZA35-000001", public_key, authority, key, late)
    assert certificate.not_valid_after_utc == authority.not_valid_after_utc


def test_server_directory(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock) -> None:
    pki.issue_server(key_directory, tmp_path / "tls", ["broker.example.com", "127.0.0.1", "::1"], clock)
    certificate = read(tmp_path / "tls")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example.com"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert purposes(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "tls/tls.key").stat().st_mode) == 0o600
    service_ca = (key_directory.path / "pki/service-ca.crt").read_bytes()
    assert (tmp_path / "tls/ca.pem").read_bytes() == service_ca
    assert (tmp_path / "tls/clients.pem").read_bytes().endswith(service_ca)
    assert len(x509.load_pem_x509_certificates((tmp_path / "tls/clients.pem").read_bytes())) == 2


def test_client_directory(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock) -> None:
    pki.issue_client(key_directory, tmp_path / "tls", "ingest", clock)
    certificate = read(tmp_path / "tls")
    certificate.verify_directly_issued_by(key_directory.authority_certificate(SERVICE_CA))
    assert common_name(certificate) == "ingest"
    assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("name", ["ZA35-000001", "", "../x", "a" * 33])
def test_client_name_that_could_be_a_box_is_refused(
    tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock, name: str
) -> None:
    with pytest.raises(RejectedError, match="not a service's name"):
        pki.issue_client(key_directory, tmp_path / "tls", name, clock)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Broker", "a b", "*.example.com", "", "x" * 254])
def test_server_name_that_is_none_is_refused(
    tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock, name: str
) -> None:
    with pytest.raises(RejectedError, match="neither a host name nor an address"):
        pki.issue_server(key_directory, tmp_path / "tls", [name], clock)


def test_lifetime_beyond_a_year_is_refused(tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock) -> None:
    pki.issue_client(key_directory, tmp_path / "tls", "ingest", clock, lifetime=timedelta(days=365))
    with pytest.raises(RejectedError, match="366 days"):
        pki.issue_client(key_directory, tmp_path / "more", "ingest", clock, lifetime=timedelta(days=366))


def test_certificate_is_replaced_only_when_asked(
    tmp_path: Path, key_directory: KeyDirectory, clock: ManualClock
) -> None:
    pki.issue_client(key_directory, tmp_path / "tls", "ingest", clock)
    before = read(tmp_path / "tls")
    with pytest.raises(SetupError, match="exists already"):
        pki.issue_client(key_directory, tmp_path / "tls", "ingest", clock)
    assert read(tmp_path / "tls") == before
    pki.issue_client(key_directory, tmp_path / "tls", "ingest", clock, replace=True)
    assert read(tmp_path / "tls") != before
    assert [path.name for path in tmp_path.iterdir()] == ["tls"]
