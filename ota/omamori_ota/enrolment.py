"""Decides who gets a certificate: who asks and a request in, a certificate or a refusal out.

First enrolment and after a long time on a shelf: serial and claim (`enrol`). Renewal: the present certificate
(`renew`). docs/adr/0050-one-key-for-a-claim.md says why.

| with the claim | outcome |
|---|---|
| serial unknown, or not this claim | 401, the same words for both |
| box revoked, or claim not used in time | 403 |
| request malformed, or for another serial | 400 |
| a key whose certificate was revoked | 409 |
| claim not used yet, box held | 202 until somebody approves it, for the key that asked first; other keys 409 |
| claim not used yet | certificate; the claim is used from now on |
| claim used, same key | the same certificate, or a new one when two thirds of its life are over |
| claim used, other key | 409 |

| with a certificate | outcome |
|---|---|
| not of this CA, unknown to the register, or expired | 403 |
| box revoked, or this certificate | 403 |
| request for another serial (400) or key (409) | refused |
| else | the newest certificate of this key, or a new one when two thirds of its life are over |

The same key may ask again because the power may be cut between our answer and the box's disk. Who does not pass the
claim does not get its request parsed. It knows no HTTP; see `enrolment_server`.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .attempts import Cause
from .boxes import Box, ClaimState, hash_claim
from .certificate_request import CertificateRequest, decode_body, hash_key, parse_request
from .certificates import DEVICE_LIFETIME, device_certificate
from .clock import Clock
from .errors import ApprovalPendingError, EnrolmentRefusedError
from .registry import Change, Registry

_MALFORMED, _UNAUTHORISED, _FORBIDDEN, _CONFLICT = 400, 401, 403, 409
_NEW_CLAIM = "it needs a new claim: omamori-ota claim renew"


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
        self.clock = clock

    @property
    def authority(self) -> x509.Certificate:
        """Certificate of the device CA."""
        return self._authority

    def enrol(self, serial: str, claim: str, body: bytes) -> Enrolled:
        """Enrol a box by its claim.

        Args:
            serial: Who it says it is.
            claim: What it got from the factory.
            body: Base64 of its PKCS#10 request.

        Raises:
            ApprovalPendingError: Somebody has to approve the box first.
            EnrolmentRefusedError: See the table above.
            TransientError: The register is busy.
        """
        self._check_claim(self._registry.find(serial), serial, claim)
        request = _request_of(serial, body)
        with self._registry.changing() as change:
            box = self._check_claim(change.find(serial), serial, claim)
            self._check_key(change, box, request)
            is_waiting = box.state is ClaimState.ISSUED and box.is_held
            if is_waiting:
                change.note_waiting(serial, request.key_hash)
            else:
                return self._give(change, box, request)
        raise ApprovalPendingError("somebody has to approve this box first", cause=Cause.WAITING, key=request.key_hash)

    def renew(self, certificate: x509.Certificate, body: bytes) -> Enrolled:
        """Renew a box's certificate.

        Args:
            certificate: The present one; that the other side has its key is proved.
            body: Base64 of its PKCS#10 request.

        Raises:
            EnrolmentRefusedError: See the table above.
            TransientError: The register is busy.
        """
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        serial = str(names[0].value) if len(names) == 1 else ""
        try:
            certificate.verify_directly_issued_by(self._authority)
        except (InvalidSignature, ValueError, TypeError) as err:
            raise _unknown_certificate() from err
        if certificate.not_valid_after_utc <= self.clock():
            raise EnrolmentRefusedError(
                _FORBIDDEN,
                "the certificate has expired",
                hint="enrol with the claim and the same key",
                cause=Cause.CERTIFICATE_EXPIRED,
            )
        with self._registry.changing() as change:
            box = change.find(serial)
            known = change.certificate(certificate.serial_number)
            if box is None or known is None or known.serial != serial:
                raise _unknown_certificate()
            if known.revoked_at is not None or box.state is not ClaimState.USED:
                raise _revoked()
            if box.key_hash != hash_key(certificate.public_key()):
                raise _other_key("this certificate is not for the key of this box", box.key_hash)
            request = _request_of(serial, body)
            self._check_key(change, box, request)
            return self._give(change, box, request)

    def _check_claim(self, box: Box | None, serial: str, claim: str) -> Box:
        if box is None:
            hash_claim(serial, claim)  # an unknown serial takes as long as a wrong claim
        if box is None or not box.accepts(claim):
            raise EnrolmentRefusedError(
                _UNAUTHORISED,
                "serial and claim do not belong together",
                hint="check provision.json against the factory's register",
                cause=Cause.UNKNOWN_SERIAL if box is None else Cause.WRONG_CLAIM,
            )
        if box.state is ClaimState.REVOKED:
            raise _revoked()
        if box.state is ClaimState.ISSUED and box.claim_until is not None and box.claim_until <= self.clock():
            raise EnrolmentRefusedError(
                _FORBIDDEN, "the claim was not used in time", hint=_NEW_CLAIM, cause=Cause.CLAIM_EXPIRED
            )
        return box

    @staticmethod
    def _check_key(change: Change, box: Box, request: CertificateRequest) -> None:
        if change.is_key_revoked(request.key_hash):
            raise EnrolmentRefusedError(
                _CONFLICT,
                "a certificate for this key was revoked",
                hint="make a new key",
                cause=Cause.KEY_REVOKED,
                key=request.key_hash,
            )
        if box.state is ClaimState.USED and box.key_hash != request.key_hash:
            raise _other_key("this claim has been used with another key", request.key_hash)
        # Also after the approval: it was meant for the key that waited.
        if box.state is ClaimState.ISSUED and box.waiting_key_hash not in (None, request.key_hash):
            raise _other_key("this claim has been waiting for approval with another key", request.key_hash)

    def _give(self, change: Change, box: Box, request: CertificateRequest) -> Enrolled:
        """Return the newest certificate, or a new one when there is none or it is time."""
        now = self.clock()
        if box.certificate is not None:
            previous = x509.load_der_x509_certificate(box.certificate)
            if previous.not_valid_after_utc - now > DEVICE_LIFETIME / 3:
                return Enrolled(certificate=previous, outcome=Outcome.REPEATED)
        certificate = device_certificate(box.serial, request.public_key, self._authority, self._authority_key, now)
        change.use_claim(box.serial, certificate, now)
        outcome = Outcome.ISSUED if box.certificate is None else Outcome.RENEWED
        return Enrolled(certificate=certificate, outcome=outcome)


def _request_of(serial: str, body: bytes) -> CertificateRequest:
    request = parse_request(decode_body(body))
    if request.common_name != serial:
        raise EnrolmentRefusedError(
            _MALFORMED, "the request is for another serial", cause=Cause.OTHER_SERIAL, key=request.key_hash
        )
    return request


def _revoked() -> EnrolmentRefusedError:
    return EnrolmentRefusedError(_FORBIDDEN, "this box was revoked", hint=_NEW_CLAIM, cause=Cause.REVOKED)


def _unknown_certificate() -> EnrolmentRefusedError:
    return EnrolmentRefusedError(
        _FORBIDDEN,
        "the register does not know this certificate",
        hint="enrol with the claim and the same key",
        cause=Cause.CERTIFICATE_UNKNOWN,
    )


def _other_key(what: str, key: bytes | None) -> EnrolmentRefusedError:
    return EnrolmentRefusedError(
        _CONFLICT,
        what,
        hint="a box that lost its key needs a new claim from the factory",
        cause=Cause.KEY_MISMATCH,
        key=key,
    )
