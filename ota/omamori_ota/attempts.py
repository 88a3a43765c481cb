"""Who asked for a certificate and how it went, for the operator: one row for each box and cause.

A file of its own beside the register: what strangers send must neither slow down nor damage the register. Bounded in
rows; of those who did not know a claim, the longest silent is forgotten first. It holds no claim and nothing of a
request but the serial, the key's hash and how far the other side's clock is off. A box that enrols keeps its rows:
somebody else's attempts in its name are what an operator wants to see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from omamori_protocol.durable import make_private_file

from .errors import SetupError, TransientError

MAX_KNOWN = 20_000
MAX_STRANGERS = 1_000
_LOCK_WAIT_S = 2.0
_SCHEMA = """CREATE TABLE IF NOT EXISTS attempts (
    who TEXT NOT NULL,
    cause TEXT NOT NULL,
    is_stranger INTEGER NOT NULL,
    first_s INTEGER NOT NULL,
    last_s INTEGER NOT NULL,
    count INTEGER NOT NULL,
    address TEXT NOT NULL,
    key_hash BLOB,
    skew_s INTEGER,
    PRIMARY KEY (who, cause)
) STRICT"""
_INDEX = "CREATE INDEX IF NOT EXISTS attempts_age ON attempts (is_stranger, last_s)"


class Cause(StrEnum):
    """How an attempt ended; all but the first two are refusals."""

    ENROLLED = "enrolled"
    WAITING = "waiting-for-approval"
    UNKNOWN_SERIAL = "unknown-serial"
    WRONG_CLAIM = "wrong-claim"
    CLAIM_EXPIRED = "claim-expired"
    REVOKED = "revoked"
    KEY_REVOKED = "key-revoked"
    KEY_MISMATCH = "key-mismatch"
    CERTIFICATE_UNKNOWN = "certificate-unknown"
    CERTIFICATE_EXPIRED = "certificate-expired"
    MALFORMED = "malformed-request"
    OTHER_SERIAL = "other-serial"
    CLOCK_WRONG = "clock-wrong"
    SERVER_NOT_TRUSTED = "server-not-trusted"

    @property
    def meaning(self) -> str:
        """What it means, for an operator."""
        return _MEANINGS[self]


_MEANINGS = {
    Cause.ENROLLED: "has its certificate",
    Cause.WAITING: "right claim; somebody has to approve it (omamori-ota claim approve)",
    Cause.UNKNOWN_SERIAL: "nobody registered this serial, or another register is meant",
    Cause.WRONG_CLAIM: "the serial exists, the claim is not its own",
    Cause.CLAIM_EXPIRED: "the claim lay too long before its first use (omamori-ota claim renew)",
    Cause.REVOKED: "right claim, but the box was revoked (omamori-ota claim renew)",
    Cause.KEY_REVOKED: "a key whose certificate was revoked; a box makes itself a new one",
    Cause.KEY_MISMATCH: "claim or certificate belong to another key: a box that lost its key, or a copied claim",
    Cause.CERTIFICATE_UNKNOWN: "a certificate that the register does not know",
    Cause.CERTIFICATE_EXPIRED: "asked with an expired certificate instead of its claim",
    Cause.MALFORMED: "not a certificate request",
    Cause.OTHER_SERIAL: "a certificate request for another serial",
    Cause.CLOCK_WRONG: "its clock is off: our certificates are not valid for it",
    Cause.SERVER_NOT_TRUSTED: "it does not know our service CA: image of another operator?",
}
# These did not prove to know a claim.
_STRANGERS = {Cause.UNKNOWN_SERIAL, Cause.WRONG_CLAIM, Cause.CLOCK_WRONG, Cause.SERVER_NOT_TRUSTED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """All attempts of one box that ended alike.

    Attributes:
        who: Serial, or the address of somebody who did not come as far as to say one.
        cause: How they ended.
        first_at: The first one.
        last_at: The last one.
        count: How many.
        address: Where the last one came from.
        key_hash: SHA-256 of its key, if it came so far.
        skew_s: Seconds that its clock was ahead (negative: behind), if it said the time.
    """

    who: str
    cause: Cause
    first_at: datetime
    last_at: datetime
    count: int
    address: str
    key_hash: bytes | None
    skew_s: int | None


class AttemptLog:
    """The file of attempts of a register.

    Args:
        registry: The register's file.

    Raises:
        SetupError: What is there is not such a file.
        TransientError: Another process holds it for too long.
    """

    def __init__(self, registry: Path) -> None:
        self._path = registry.with_name(registry.name + "-attempts")
        make_private_file(self._path)
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # with NORMAL below: never damaged, rarely synced
            connection.execute(_SCHEMA)
            connection.execute(_INDEX)

    def note(
        self,
        who: str,
        cause: Cause,
        now: datetime,
        *,
        address: str,
        key_hash: bytes | None = None,
        skew_s: int | None = None,
    ) -> None:
        """Count an attempt.

        Args:
            who: Serial of the right form, or an address.
            cause: How it ended.
            now: When.
            address: Where it came from.
            key_hash: SHA-256 of its key, if known.
            skew_s: Seconds that its clock is ahead, if known.

        Raises:
            SetupError: The file is damaged.
            TransientError: It is busy.
        """
        now_s = int(now.timestamp())
        is_stranger = cause in _STRANGERS
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (who, cause) DO UPDATE SET"
                " last_s = excluded.last_s, count = count + 1, address = excluded.address,"
                " key_hash = excluded.key_hash, skew_s = excluded.skew_s",
                (who, cause, int(is_stranger), now_s, now_s, address, key_hash, skew_s),
            )
            connection.execute(
                "DELETE FROM attempts WHERE rowid IN (SELECT rowid FROM attempts WHERE is_stranger = ?"
                " ORDER BY last_s DESC LIMIT -1 OFFSET ?)",
                (int(is_stranger), MAX_STRANGERS if is_stranger else MAX_KNOWN),
            )
            connection.execute("COMMIT")

    def attempts(self) -> list[Attempt]:
        """Return all rows, the latest first.

        Raises:
            SetupError: The file is damaged.
            TransientError: It is busy.
        """
        with self._open() as connection:
            rows = connection.execute("SELECT * FROM attempts ORDER BY last_s DESC, who, cause").fetchall()
        return [
            Attempt(
                who=who,
                cause=Cause(cause),
                first_at=datetime.fromtimestamp(first_s, UTC),
                last_at=datetime.fromtimestamp(last_s, UTC),
                count=count,
                address=address,
                key_hash=key_hash,
                skew_s=skew_s,
            )
            for who, cause, _stranger, first_s, last_s, count, address, key_hash, skew_s in rows
        ]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=_LOCK_WAIT_S, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                yield connection
        except sqlite3.OperationalError as err:
            raise TransientError(f"attempts {self._path}: {err}") from err
        except (sqlite3.DatabaseError, ValueError) as err:
            raise SetupError(
                f"{self._path} is not a log of attempts: {err}", hint="remove it; it is made anew"
            ) from err
