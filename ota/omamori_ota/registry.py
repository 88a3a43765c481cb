"""The factory's register of boxes: which serials exist, what became of their claims, and which certificates they got.

A claim is worth one enrolment of one serial. Only its hash is kept, bound to the serial, so a stolen register enrols
nobody. SQLite, because the factory's command and the enrolment server use it at the same time; every change is one
transaction. It decides nothing: see `factory`, `enrolment` and `revocation`. The values are in `boxes`.

A register of format 1 becomes one of format 2 when it is opened.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from omamori_protocol.durable import make_private_file

from .boxes import Box, ClaimState, IssuedCertificate, RevocationReason, box_of_row, certificate_of_row, hash_claim
from .certificate_request import hash_key
from .errors import SetupError, TransientError

_FORMAT = "2"
_LOCK_WAIT_S = 10.0

_ABOUT = "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"
_BOXES = """CREATE TABLE boxes (
    serial TEXT PRIMARY KEY,
    claim_hash BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('issued', 'used', 'revoked')),
    key_hash BLOB,
    certificate BLOB,
    made_s INTEGER NOT NULL,
    enrolled_s INTEGER,
    claim_until_s INTEGER,
    is_held INTEGER NOT NULL DEFAULT 0,
    waiting_key_hash BLOB,
    revoked_s INTEGER,
    reason TEXT,
    CHECK (state != 'used' OR (key_hash IS NOT NULL AND certificate IS NOT NULL AND enrolled_s IS NOT NULL)),
    CHECK (state != 'issued' OR (key_hash IS NULL AND certificate IS NULL AND enrolled_s IS NULL)),
    CHECK ((state = 'revoked') = (revoked_s IS NOT NULL AND reason IS NOT NULL))
) STRICT"""
_CERTIFICATES = """CREATE TABLE certificates (
    number TEXT PRIMARY KEY,
    serial TEXT NOT NULL,
    key_hash BLOB NOT NULL,
    expires_s INTEGER NOT NULL,
    revoked_s INTEGER,
    reason TEXT,
    CHECK ((revoked_s IS NULL) = (reason IS NULL))
) STRICT"""
_INDEXES = (
    "CREATE INDEX certificates_serial ON certificates (serial)",
    "CREATE INDEX certificates_key ON certificates (key_hash) WHERE revoked_s IS NOT NULL",
    "CREATE INDEX certificates_revoked ON certificates (expires_s) WHERE revoked_s IS NOT NULL",
)
_LIST_NUMBER, _LIST_TIME = "list_number", "list_time_s"


class Registry:
    """A register file.

    Args:
        path: The file; made when it is missing.
        authority: Certificate of the device CA; a register belongs to one.

    Raises:
        SetupError: It is not a register, of another format, or belongs to another CA.
    """

    def __init__(self, path: Path, authority: x509.Certificate) -> None:
        self._path = path
        fingerprint = authority.fingerprint(hashes.SHA256()).hex()
        if not path.parent.is_dir():
            raise SetupError(f"{path.parent} is not a directory", hint="make it first")
        make_private_file(path)
        with self.changing() as change:
            change.check_belongs_to(fingerprint)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        """Give a transaction that is committed when the block ends, and undone on an exception.

        Raises:
            SetupError: The file is not a register.
            TransientError: Another process holds it for too long.
        """
        try:
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=_LOCK_WAIT_S, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield Change(connection, str(self._path))
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        except sqlite3.OperationalError as err:
            raise TransientError(f"register {self._path}: {err}", hint="is another process using it?") from err
        except sqlite3.DatabaseError as err:
            raise SetupError(f"{self._path} is not a register: {err}") from err

    def find(self, serial: str) -> Box | None:
        """Return a box, or None."""
        with self.changing() as change:
            return change.find(serial)

    def boxes(self) -> list[Box]:
        """Return all boxes by serial."""
        with self.changing() as change:
            return change.boxes()


class Change:
    """An open transaction on a register; see `Registry.changing`."""

    def __init__(self, connection: sqlite3.Connection, where: str) -> None:
        self._connection = connection
        self._where = where

    def check_belongs_to(self, authority_fingerprint: str) -> None:
        """Write format and CA into a new register, or compare them."""
        if self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            for statement in (_ABOUT, _BOXES, _CERTIFICATES, *_INDEXES):
                self._connection.execute(statement)
            self._connection.executemany(
                "INSERT INTO about VALUES (?, ?)", [("format", _FORMAT), ("authority", authority_fingerprint)]
            )
        about = dict(self._connection.execute("SELECT key, value FROM about"))
        if about.get("format") not in ("1", _FORMAT):
            raise SetupError(f"{self._where}: unknown format {about.get('format')!r}")
        if about.get("authority") != authority_fingerprint:
            raise SetupError(
                f"{self._where} belongs to another device CA", hint="a register goes with one key directory"
            )
        if about["format"] == "1":
            self._migrate()

    def _migrate(self) -> None:
        """Make a register of format 1 one of format 2; of each box it knows the newest certificate only."""
        self._connection.execute("ALTER TABLE boxes RENAME TO boxes_1")
        for statement in (_BOXES, _CERTIFICATES, *_INDEXES):
            self._connection.execute(statement)
        columns = "serial, claim_hash, state, key_hash, certificate, made_s, enrolled_s"
        self._connection.execute(f"INSERT INTO boxes ({columns}) SELECT {columns} FROM boxes_1")  # noqa: S608 - ours
        self._connection.execute("DROP TABLE boxes_1")
        for box in self.boxes():
            if box.certificate is not None:
                self._note(box.serial, x509.load_der_x509_certificate(box.certificate))
        self._connection.execute("UPDATE about SET value = ? WHERE key = 'format'", (_FORMAT,))

    def find(self, serial: str) -> Box | None:
        """Return a box, or None."""
        row = self._connection.execute("SELECT * FROM boxes WHERE serial = ?", (serial,)).fetchone()
        return None if row is None else box_of_row(row)

    def boxes(self) -> list[Box]:
        """Return all boxes by serial."""
        return [box_of_row(row) for row in self._connection.execute("SELECT * FROM boxes ORDER BY serial")]

    def add(
        self, serial: str, claim: str, now: datetime, *, lifetime: timedelta | None = None, is_held: bool = False
    ) -> None:
        """Register a box, or give a registered one a new claim.

        What it was enrolled with is forgotten: its certificates are revoked, and their key is never accepted again.

        Args:
            serial: The box.
            claim: The claim in clear text.
            now: Time of registration.
            lifetime: How long the claim may be used for the first time; None for ever.
            is_held: Whether somebody must approve the box before it gets a certificate.
        """
        self._revoke_certificates(serial, RevocationReason.SUPERSEDED, now)
        until_s = None if lifetime is None else int((now + lifetime).timestamp())
        self._connection.execute(
            "INSERT OR REPLACE INTO boxes (serial, claim_hash, state, made_s, claim_until_s, is_held)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (serial, hash_claim(serial, claim), ClaimState.ISSUED, int(now.timestamp()), until_s, int(is_held)),
        )

    def use_claim(self, serial: str, certificate: x509.Certificate, now: datetime) -> None:
        """Note the certificate that a box got."""
        der = certificate.public_bytes(Encoding.DER)
        self._connection.execute(
            "UPDATE boxes SET state = ?, key_hash = ?, certificate = ?, enrolled_s = ?, is_held = 0,"
            " waiting_key_hash = NULL WHERE serial = ?",
            (ClaimState.USED, hash_key(certificate.public_key()), der, int(now.timestamp()), serial),
        )
        self._connection.execute(
            "DELETE FROM certificates WHERE serial = ? AND expires_s < ? AND revoked_s IS NULL",
            (serial, int(now.timestamp())),
        )
        self._note(serial, certificate)

    def hold(self, serial: str, *, is_held: bool) -> None:
        """Let a box wait for approval, or approve it; a held box enrols with the first key that asked."""
        self._connection.execute("UPDATE boxes SET is_held = ? WHERE serial = ?", (int(is_held), serial))

    def note_waiting(self, serial: str, key_hash: bytes) -> None:
        """Note the key with which a held box asked."""
        self._connection.execute("UPDATE boxes SET waiting_key_hash = ? WHERE serial = ?", (key_hash, serial))

    def revoke(self, serial: str, reason: RevocationReason, now: datetime) -> int:
        """Revoke a box with all of its certificates; returns how many of them were valid."""
        self._connection.execute(
            "UPDATE boxes SET state = ?, revoked_s = ?, reason = ? WHERE serial = ? AND state != 'revoked'",
            (ClaimState.REVOKED, int(now.timestamp()), reason, serial),
        )
        return self._revoke_certificates(serial, reason, now)

    def _revoke_certificates(self, serial: str, reason: RevocationReason, now: datetime) -> int:
        now_s = int(now.timestamp())
        return self._connection.execute(
            "UPDATE certificates SET revoked_s = ?, reason = ? WHERE serial = ? AND revoked_s IS NULL",
            (now_s, reason, serial),
        ).rowcount

    def is_key_revoked(self, key_hash: bytes) -> bool:
        """Tell whether a certificate for this key was ever revoked."""
        found = self._connection.execute(
            "SELECT 1 FROM certificates WHERE key_hash = ? AND revoked_s IS NOT NULL LIMIT 1", (key_hash,)
        ).fetchone()
        return found is not None

    def certificate(self, number: int) -> IssuedCertificate | None:
        """Return what is known of an issued certificate, or None."""
        row = self._connection.execute("SELECT * FROM certificates WHERE number = ?", (f"{number:x}",)).fetchone()
        return None if row is None else certificate_of_row(row)

    def revoked_certificates(self, now: datetime, limit: int) -> list[IssuedCertificate]:
        """Return the revoked certificates that have not expired, at most `limit`."""
        rows = self._connection.execute(
            "SELECT * FROM certificates WHERE revoked_s IS NOT NULL AND expires_s >= ? ORDER BY revoked_s, number"
            " LIMIT ?",
            (int(now.timestamp()), limit),
        )
        return [certificate_of_row(row) for row in rows]

    def next_list(self, earliest: datetime) -> tuple[int, int]:
        """Return number and Unix time of the next revocation list, both larger than those before."""
        about = dict(self._connection.execute("SELECT key, value FROM about"))
        number = int(about.get(_LIST_NUMBER, "0")) + 1
        time_s = max(int(earliest.timestamp()), int(about.get(_LIST_TIME, "0")) + 1)
        self._connection.executemany(
            "INSERT OR REPLACE INTO about VALUES (?, ?)", [(_LIST_NUMBER, str(number)), (_LIST_TIME, str(time_s))]
        )
        return number, time_s

    def _note(self, serial: str, certificate: x509.Certificate) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO certificates (number, serial, key_hash, expires_s) VALUES (?, ?, ?, ?)",
            (
                f"{certificate.serial_number:x}",
                serial,
                hash_key(certificate.public_key()),
                int(certificate.not_valid_after_utc.timestamp()),
            ),
        )
