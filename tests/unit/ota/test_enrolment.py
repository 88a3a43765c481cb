"""Who is enrolled and who is not: one test per refusal."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from omamori_ota.boxes import ClaimState, new_claim
from omamori_ota.enrolment import Enrolment, Outcome
from omamori_ota.errors import EnrolmentRefusedError
from omamori_ota.keys import DEVICE_CA, KeyDirectory
from omamori_ota.registry import Registry

from .conftest import START, ManualClock

SERIAL = "ZA35-000001"
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def request(key: Key, *names: str, extensions: tuple[x509.ExtensionType, ...] = ()) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    signed = builder.sign(key, algorithm)
    return base64.encodebytes(signed.public_bytes(serialization.Encoding.DER))


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def claim(registry: Registry) -> str:
    claim = new_claim()
    with registry.changing() as change:
        change.add(SERIAL, claim, START)
        change.add("ZA35-000002", new_claim(), START)
    return claim


@pytest.fixture
def enrolment(registry: Registry, key_directory: KeyDirectory, clock: ManualClock) -> Enrolment:
    return Enrolment(registry, *key_directory.authority(DEVICE_CA), clock)


def refused(enrolment: Enrolment, serial: str, claim: str, body: bytes) -> EnrolmentRefusedError:
    with pytest.raises(EnrolmentRefusedError) as caught:
        enrolment.enrol(serial, claim, body)
    return caught.value


def state(registry: Registry) -> ClaimState:
    box = registry.find(SERIAL)
    assert box is not None
    return box.state


def test_right_claim_gets_a_certificate_and_is_used(
    enrolment: Enrolment, registry: Registry, claim: str, key: ec.EllipticCurvePrivateKey
) -> None:
    enrolled = enrolment.enrol(SERIAL, claim, request(key, SERIAL))
    assert enrolled.outcome is Outcome.ISSUED
    assert enrolled.certificate.public_key() == key.public_key()
    enrolled.certificate.verify_directly_issued_by(enrolment.authority)
    assert state(registry) is ClaimState.USED


def test_ed25519_is_accepted(enrolment: Enrolment, claim: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    assert enrolment.enrol(SERIAL, claim, request(key, SERIAL)).certificate.public_key() == key.public_key()


def test_same_key_again_gets_the_same_certificate(
    enrolment: Enrolment, claim: str, key: ec.EllipticCurvePrivateKey, clock: ManualClock
) -> None:
    first = enrolment.enrol(SERIAL, claim, request(key, SERIAL))
    clock.advance(days=59)
    again = enrolment.enrol(SERIAL, claim, request(key, SERIAL))
    assert again.outcome is Outcome.REPEATED
    assert again.certificate == first.certificate


def test_same_key_after_two_thirds_gets_a_new_certificate(
    enrolment: Enrolment, claim: str, key: ec.EllipticCurvePrivateKey, clock: ManualClock
) -> None:
    first = enrolment.enrol(SERIAL, claim, request(key, SERIAL))
    clock.advance(days=61)
    again = enrolment.enrol(SERIAL, claim, request(key, SERIAL))
    assert again.outcome is Outcome.RENEWED
    assert again.certificate.not_valid_after_utc > first.certificate.not_valid_after_utc


def test_claim_used_by_another_key_is_a_conflict(
    enrolment: Enrolment, claim: str, key: ec.EllipticCurvePrivateKey
) -> None:
    first = enrolment.enrol(SERIAL, claim, request(key, SERIAL))
    other = ec.generate_private_key(ec.SECP256R1())
    assert refused(enrolment, SERIAL, claim, request(other, SERIAL)).status == 409
    assert enrolment.enrol(SERIAL, claim, request(key, SERIAL)).certificate == first.certificate


def test_wrong_claim_and_unknown_serial_read_the_same(
    enrolment: Enrolment, registry: Registry, claim: str, key: ec.EllipticCurvePrivateKey
) -> None:
    answers = [
        refused(enrolment, SERIAL, new_claim(), request(key, SERIAL)),
        refused(enrolment, "ZA35-999999", claim, request(key, "ZA35-999999")),
        refused(enrolment, SERIAL, "", request(key, SERIAL)),
    ]
    assert {(answer.status, str(answer), answer.hint) for answer in answers} == {
        (401, str(answers[0]), answers[0].hint)
    }
    assert state(registry) is ClaimState.ISSUED


def test_claim_of_another_serial_is_refused(enrolment: Enrolment, claim: str, key: ec.EllipticCurvePrivateKey) -> None:
    assert refused(enrolment, "ZA35-000002", claim, request(key, "ZA35-000002")).status == 401


def test_request_for_another_serial_is_refused(
    enrolment: Enrolment, registry: Registry, claim: str, key: ec.EllipticCurvePrivateKey
) -> None:
    answer = refused(enrolment, SERIAL, claim, request(key, "ZA35-000002"))
    assert answer.status == 400
    assert "another serial" in str(answer)
    assert state(registry) is ClaimState.ISSUED


@pytest.mark.parametrize("names", [(), (SERIAL, SERIAL)])
def test_request_without_exactly_one_name_is_refused(
    enrolment: Enrolment, claim: str, key: ec.EllipticCurvePrivateKey, names: tuple[str, ...]
) -> None:
    assert "exactly one common name" in str(refused(enrolment, SERIAL, claim, request(key, *names)))


@pytest.mark.parametrize(
    "body",
    [b"", b"!!!", b"AAAA", base64.b64encode(b"\x30\x82\xff\xff" + bytes(100)), base64.b64encode(bytes(6000))],
)
def test_malformed_request_is_refused(enrolment: Enrolment, registry: Registry, claim: str, body: bytes) -> None:
    assert refused(enrolment, SERIAL, claim, body).status == 400
    assert state(registry) is ClaimState.ISSUED


def test_request_not_signed_by_its_key_is_refused(
    enrolment: Enrolment, claim: str, key: ec.EllipticCurvePrivateKey
) -> None:
    der = bytearray(base64.b64decode(request(key, SERIAL)))
    der[-1] ^= 1
    assert refused(enrolment, SERIAL, claim, base64.b64encode(der)).status == 400


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["rsa", "p384"],
)
def test_other_kinds_of_key_are_refused(enrolment: Enrolment, claim: str, key: Key) -> None:
    answer = refused(enrolment, SERIAL, claim, request(key, SERIAL))
    assert answer.status == 400
    assert "neither EC P-256 nor Ed25519" in str(answer)


def test_nothing_of_the_request_reaches_the_certificate(
    enrolment: Enrolment, claim: str, key: ec.EllipticCurvePrivateKey
) -> None:
    wishes = (
        x509.BasicConstraints(ca=True, path_length=9),
        x509.SubjectAlternativeName([x509.DNSName("broker.example.com")]),
    )
    certificate = enrolment.enrol(SERIAL, claim, request(key, SERIAL, extensions=wishes)).certificate
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_request_is_not_parsed_before_the_claim_is_right(enrolment: Enrolment, claim: str) -> None:
    assert refused(enrolment, SERIAL, new_claim(), b"!!!").status == 401
