"""Renewal with the present certificate, long shelves, approval and revocation, with a clock that tests move."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from omamori_ota import certificates
from omamori_ota.attempts import Cause
from omamori_ota.boxes import ClaimState, RevocationReason, new_claim
from omamori_ota.enrolment import Enrolment, Outcome
from omamori_ota.errors import ApprovalPendingError, EnrolmentRefusedError
from omamori_ota.keys import DEVICE_CA, KeyDirectory
from omamori_ota.registry import Registry
from omamori_ota.revocation import revoke

from .conftest import START, ManualClock
from .test_enrolment import SERIAL, request

OTHER = "ZA35-000002"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class Site:
    def __init__(self, registry: Registry, keys: KeyDirectory, clock: ManualClock) -> None:
        self.registry, self.keys, self.clock = registry, keys, clock
        self.enrolment = Enrolment(registry, *keys.authority(DEVICE_CA), clock)
        self.key = new_key()
        self.claim = self.register(SERIAL)

    def register(self, serial: str, *, lifetime: timedelta | None = None, is_held: bool = False) -> str:
        claim = new_claim()
        with self.registry.changing() as change:
            change.add(serial, claim, self.clock(), lifetime=lifetime, is_held=is_held)
        return claim

    def enrol(self, key: ec.EllipticCurvePrivateKey | None = None) -> x509.Certificate:
        return self.enrolment.enrol(SERIAL, self.claim, request(key or self.key, SERIAL)).certificate

    def refused_enrolment(self, key: ec.EllipticCurvePrivateKey | None = None) -> EnrolmentRefusedError:
        with pytest.raises(EnrolmentRefusedError) as caught:
            self.enrol(key)
        return caught.value

    def refused_renewal(self, certificate: x509.Certificate, body: bytes | None = None) -> EnrolmentRefusedError:
        with pytest.raises(EnrolmentRefusedError) as caught:
            self.enrolment.renew(certificate, body or request(self.key, SERIAL))
        return caught.value


@pytest.fixture
def site(registry: Registry, key_directory: KeyDirectory, clock: ManualClock) -> Site:
    return Site(registry, key_directory, clock)


@pytest.mark.parametrize(("days", "outcome"), [(0, Outcome.REPEATED), (59, Outcome.REPEATED), (61, Outcome.RENEWED)])
def test_certificate_renews_itself_in_the_last_third_of_its_life(site: Site, days: int, outcome: Outcome) -> None:
    first = site.enrol()
    site.clock.advance(days=days)
    renewed = site.enrolment.renew(first, request(site.key, SERIAL))
    assert renewed.outcome is outcome
    assert (renewed.certificate == first) is (outcome is Outcome.REPEATED)
    assert renewed.certificate.subject == first.subject
    assert renewed.certificate.public_key() == first.public_key()


def test_answer_lost_in_a_power_cut_comes_again(site: Site) -> None:
    first = site.enrol()
    site.clock.advance(days=61)
    second = site.enrolment.renew(first, request(site.key, SERIAL)).certificate
    again = site.enrolment.renew(first, request(site.key, SERIAL))
    assert again.outcome is Outcome.REPEATED
    assert again.certificate == second


def test_ten_years_of_renewals_leave_few_certificates_to_know(site: Site) -> None:
    certificate = site.enrol()
    for _ in range(60):
        site.clock.advance(days=61)
        certificate = site.enrolment.renew(certificate, request(site.key, SERIAL)).certificate
    with site.registry.changing() as change:
        assert change.revoke(SERIAL, RevocationReason.RETIRED, site.clock()) <= 3


def test_expired_certificate_does_not_renew_itself_and_the_claim_with_the_same_key_does(site: Site) -> None:
    first = site.enrol()
    site.clock.advance(days=91)
    refused = site.refused_renewal(first)
    assert (refused.status, refused.cause) == (403, Cause.CERTIFICATE_EXPIRED)
    assert site.enrol().not_valid_after_utc > site.clock()


def test_years_on_a_shelf_after_enrolment(site: Site) -> None:
    site.claim = site.register(SERIAL, lifetime=timedelta(days=730))
    site.enrol()
    site.clock.advance(days=4 * 365)
    assert site.enrol().not_valid_after_utc > site.clock()
    assert site.refused_enrolment(new_key()).cause == Cause.KEY_MISMATCH


def test_claim_that_was_not_used_in_time(site: Site) -> None:
    site.claim = site.register(SERIAL, lifetime=timedelta(days=730))
    site.clock.advance(days=729)
    site.enrolment.enrol(SERIAL, site.claim, request(site.key, SERIAL))
    site.claim = site.register(SERIAL, lifetime=timedelta(days=730))
    site.clock.advance(days=730)
    refused = site.refused_enrolment(new_key())
    assert (refused.status, refused.cause) == (403, Cause.CLAIM_EXPIRED)
    assert "claim renew" in refused.hint


def test_renewal_for_another_serial_or_key(site: Site) -> None:
    certificate = site.enrol()
    refused = site.refused_renewal(certificate, request(site.key, OTHER))
    assert (refused.status, refused.cause) == (400, Cause.OTHER_SERIAL)
    refused = site.refused_renewal(certificate, request(new_key(), SERIAL))
    assert (refused.status, refused.cause) == (409, Cause.KEY_MISMATCH)
    assert site.refused_renewal(certificate, b"!!!").cause == Cause.MALFORMED


def test_certificate_of_another_authority_or_unknown_to_the_register(site: Site) -> None:
    site.enrol()
    authority, key = site.keys.authority(DEVICE_CA)
    stranger_key = new_key()
    stranger = certificates.self_signed_authority("Omamori device CA", stranger_key, START)
    forged = certificates.device_certificate(SERIAL, site.key.public_key(), stranger, stranger_key, START)
    unknown = certificates.device_certificate(SERIAL, site.key.public_key(), authority, key, START)
    foreign = certificates.device_certificate(OTHER, site.key.public_key(), authority, key, START)
    for certificate in (forged, unknown, foreign):
        refused = site.refused_renewal(certificate)
        assert (refused.status, refused.cause) == (403, Cause.CERTIFICATE_UNKNOWN)


def test_revoked_box_gets_nothing_whatever_it_shows(site: Site) -> None:
    certificate = site.enrol()
    assert revoke(site.registry, SERIAL, RevocationReason.STOLEN, site.clock) == 1
    for refused in (site.refused_enrolment(), site.refused_enrolment(new_key()), site.refused_renewal(certificate)):
        assert (refused.status, refused.cause) == (403, Cause.REVOKED)
    assert site.refused_renewal(certificate).key is None


def test_box_revoked_before_its_first_enrolment(site: Site) -> None:
    assert revoke(site.registry, SERIAL, RevocationReason.STOLEN, site.clock) == 0
    assert site.refused_enrolment().cause == Cause.REVOKED


def test_new_claim_after_revocation_needs_a_new_key(site: Site) -> None:
    old = site.enrol()
    revoke(site.registry, SERIAL, RevocationReason.STOLEN, site.clock)
    site.claim = site.register(SERIAL)
    refused = site.refused_enrolment()
    assert (refused.status, refused.cause) == (409, Cause.KEY_REVOKED)
    site.key = new_key()
    assert site.enrol().public_key() == site.key.public_key()
    assert site.refused_renewal(old).cause == Cause.REVOKED


def test_new_claim_ends_what_the_old_one_was_good_for(site: Site) -> None:
    old = site.enrol()
    site.claim = site.register(SERIAL)
    assert site.refused_renewal(old).cause == Cause.REVOKED
    with site.registry.changing() as change:
        (revoked,) = change.revoked_certificates(site.clock(), 10)
    assert (revoked.number, revoked.reason) == (old.serial_number, RevocationReason.SUPERSEDED)


def test_held_box_waits_for_approval_with_the_key_that_asked_first(site: Site) -> None:
    site.claim = site.register(SERIAL, is_held=True)
    for _ in range(2):
        with pytest.raises(ApprovalPendingError) as waiting:
            site.enrol()
        assert (waiting.value.status, waiting.value.cause) == (202, Cause.WAITING)
    assert site.refused_enrolment(new_key()).cause == Cause.KEY_MISMATCH
    box = site.registry.find(SERIAL)
    assert box is not None
    assert box.state is ClaimState.ISSUED
    with site.registry.changing() as change:
        change.hold(SERIAL, is_held=False)
    assert site.refused_enrolment(new_key()).cause == Cause.KEY_MISMATCH
    assert site.enrol().public_key() == site.key.public_key()
