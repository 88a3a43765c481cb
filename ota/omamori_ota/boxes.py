"""What the register knows: a box, its claim, a certificate. Values only; where they are kept is `registry`'s part."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography import x509

_CLAIM_BYTES = 20


class ClaimState(StrEnum):
    """What became of a box's claim."""

    ISSUED = "issued"
    USED = "used"
    REVOKED = "revoked"


class RevocationReason(StrEnum):
    """Why a box's certificates are no longer good."""

    STOLEN = "stolen"
    COMPROMISED = "compromised"
    RETIRED = "retired"
    SUPERSEDED = "superseded"

    @property
    def flag(self) -> x509.ReasonFlags:
        """The reason in the words of RFC 5280."""
        return {
            RevocationReason.STOLEN: x509.ReasonFlags.key_compromise,
            RevocationReason.COMPROMISED: x509.ReasonFlags.key_compromise,
            RevocationReason.RETIRED: x509.ReasonFlags.cessation_of_operation,
            RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
        }[self]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A registered box.

    Attributes:
        serial: Who it is.
        claim_hash: What is kept of its claim.
        state: What became of the claim.
        key_hash: SHA-256 of the key it enrolled with, if it has.
        certificate: The newest certificate (DER), if there is one.
        made_at: When it got its claim.
        enrolled_at: When it got its newest certificate.
        claim_until: Until when the claim may be used for the first time; None for ever.
        is_held: Whether somebody must approve it first.
        waiting_key_hash: The key with which it asked while it was held.
        revoked_at: When it was revoked.
        reason: Why.
    """

    serial: str
    claim_hash: bytes = dataclasses.field(repr=False)
    state: ClaimState
    key_hash: bytes | None
    certificate: bytes | None = dataclasses.field(repr=False)
    made_at: datetime
    enrolled_at: datetime | None
    claim_until: datetime | None = None
    is_held: bool = False
    waiting_key_hash: bytes | None = None
    revoked_at: datetime | None = None
    reason: RevocationReason | None = None

    def accepts(self, claim: str) -> bool:
        """Tell, in constant time, whether `claim` is this box's."""
        return hmac.compare_digest(self.claim_hash, hash_claim(self.serial, claim))


@dataclasses.dataclass(frozen=True, kw_only=True)
class IssuedCertificate:
    """A certificate that a box got: number, whose, for which key, until when, and whether it is revoked."""

    number: int
    serial: str
    key_hash: bytes
    expires_at: datetime
    revoked_at: datetime | None
    reason: RevocationReason | None


def new_claim() -> str:
    """Return a claim: 160 random bits in base32."""
    return base64.b32encode(secrets.token_bytes(_CLAIM_BYTES)).decode()


def hash_claim(serial: str, claim: str) -> bytes:
    """Return what the register keeps of a claim. Plain SHA-256: with 160 random bits there is nothing to guess."""
    return hashlib.sha256(f"omamori-claim-1\0{serial}\0{claim}".encode()).digest()


def box_of_row(row: tuple[Any, ...]) -> Box:
    """Return the box of a row of the register's table."""
    return Box(
        serial=row[0],
        claim_hash=row[1],
        state=ClaimState(row[2]),
        key_hash=row[3],
        certificate=row[4],
        made_at=datetime.fromtimestamp(row[5], UTC),
        enrolled_at=_time(row[6]),
        claim_until=_time(row[7]),
        is_held=bool(row[8]),
        waiting_key_hash=row[9],
        revoked_at=_time(row[10]),
        reason=_reason(row[11]),
    )


def certificate_of_row(row: tuple[Any, ...]) -> IssuedCertificate:
    """Return the certificate of a row of the register's table."""
    return IssuedCertificate(
        number=int(row[0], 16),
        serial=row[1],
        key_hash=row[2],
        expires_at=datetime.fromtimestamp(row[3], UTC),
        revoked_at=_time(row[4]),
        reason=_reason(row[5]),
    )


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _reason(word: str | None) -> RevocationReason | None:
    return None if word is None else RevocationReason(word)
