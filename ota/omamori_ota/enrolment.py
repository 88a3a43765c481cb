"""Decides who is enrolled: serial and claim and request in, a certificate or a refusal out.

| situation | outcome |
|---|---|
| serial unknown, or not this claim | 401, the same words for both |
| request malformed, or for another serial | 400 |
| claim not used yet | certificate; the claim is used from now on |
| claim used, same key | the same certificate, or a new one when two thirds of its life are over |
| claim used, other key | 409 |

The same key may ask again because the power may be cut between our answer and the box's disk. Who does not pass the
claim does not get its request parsed. It knows no HTTP; see `enrolment_server`.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .certificate_request import CertificateRequest, decode_body, parse_request
from .certificates import DEVICE_LIFETIME, device_certificate
from .clock import Clock
from .errors import EnrolmentRefusedError
from .registry import Box, ClaimState, Registry, hash_claim

_MALFORMED, _UNAUTHORISED, _CONFLICT = 400, 401, 409


class Outcome(StrEnum):
    """How an enrolment ended well."""

    ISSUED = "issued"
    REPEATED = "repeated"
    RENEWED = "renewed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Enrolled:
    """A box's certificate and how it came to it."""

    certificate: x509.Certificate
    outcome: Outcome


class Enrolment:
    """The device CA at work.

    Args:
        registry: Register of boxes and claims.
        authority: Certificate of the device CA.
        authority_key: Its key.
        clock: The present.
    """

    def __init__(
        self, registry: Registry, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, clock: Clock
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._authority_key = authority_key
        self._clock = clock

    @property
    def authority(self) -> x509.Certificate:
        """Certificate of the device CA."""
        return self._authority

    def enrol(self, serial: str, claim: str, body: bytes) -> Enrolled:
        """Enrol a box.

        Args:
            serial: Who it says it is.
            claim: What it got from the factory.
            body: Base64 of its PKCS#10 request.

        Raises:
            EnrolmentRefusedError: See the table above.
            TransientError: The register is busy.
        """
        _check_claim(self._registry.find(serial), serial, claim)
        request = parse_request(decode_body(body))
        if request.common_name != serial:
            raise EnrolmentRefusedError(_MALFORMED, "the request is for another serial than the claim")
        with self._registry.changing() as change:
            box = _check_claim(change.find(serial), serial, claim)
            if box.state is ClaimState.USED and box.key_hash != request.key_hash:
                raise EnrolmentRefusedError(
                    _CONFLICT,
                    "this claim has been used with another key",
                    hint="a box that lost its key needs a new claim from the factory",
                )
            if box.certificate is not None:
                previous = x509.load_der_x509_certificate(box.certificate)
                if previous.not_valid_after_utc - self._clock() > DEVICE_LIFETIME / 3:
                    return Enrolled(certificate=previous, outcome=Outcome.REPEATED)
            certificate = self._issue(serial, request)
            change.use_claim(
                serial, request.key_hash, certificate.public_bytes(serialization.Encoding.DER), self._clock()
            )
        outcome = Outcome.ISSUED if box.certificate is None else Outcome.RENEWED
        return Enrolled(certificate=certificate, outcome=outcome)

    def _issue(self, serial: str, request: CertificateRequest) -> x509.Certificate:
        return device_certificate(serial, request.public_key, self._authority, self._authority_key, self._clock())


def _check_claim(box: Box | None, serial: str, claim: str) -> Box:
    if box is None:
        hash_claim(serial, claim)  # an unknown serial takes as long as a wrong claim
    if box is None or not box.accepts(claim):
        raise EnrolmentRefusedError(
            _UNAUTHORISED,
            "serial and claim do not belong together",
            hint="check provision.json against the factory's register",
        )
    return box
