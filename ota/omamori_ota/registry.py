"""The factory's register of boxes: which serials exist, and what became of their claims.

A claim is worth one enrolment of one serial. Only its hash is kept, bound to the serial, so a stolen register enrols
nobody. SQLite, because the factory's command and the enrolment server use it at the same time; every change is one
transaction. It decides nothing: see `factory` and `enrolment`.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import os
import secrets
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from .errors import SetupError, TransientError
from .files import PRIVATE_FILE

_FORMAT = "1"
_LOCK_WAIT_S = 10.0
_CLAIM_BYTES = 20

_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE boxes (
    serial TEXT PRIMARY KEY,
    claim_hash BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('issued', 'used')),
    key_hash BLOB,
    certificate BLOB,
    made_s INTEGER NOT NULL,
    enrolled_s INTEGER,
    CHECK ((state = 'used') = (key_hash IS NOT NULL AND certificate IS NOT NULL AND enrolled_s IS NOT NULL))
) STRICT;
"""


class ClaimState(StrEnum):
    """What became of a box's claim."""

    ISSUED = "issued"
    USED = "used"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A registered box; what belongs to its enrolment is None until the claim is used."""

    serial: str
    claim_hash: bytes = dataclasses.field(repr=False)
    state: ClaimState
    key_hash: bytes | None
    certificate: bytes | None = dataclasses.field(repr=False)
    made_at: datetime
    enrolled_at: datetime | None

    def accepts(self, claim: str) -> bool:
        """Tell, in constant time, whether `claim` is this box's."""
        return hmac.compare_digest(self.claim_hash, hash_claim(self.serial, claim))


def new_claim() -> str:
    """Return a claim: 160 random bits in base32."""
    return base64.b32encode(secrets.token_bytes(_CLAIM_BYTES)).decode()


def hash_claim(serial: str, claim: str) -> bytes:
    """Return what the register keeps of a claim. Plain SHA-256: with 160 random bits there is nothing to guess."""
    return hashlib.sha256(f"omamori-claim-1\0{serial}\0{claim}".encode()).digest()


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
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE))
        with self.changing() as change:
            change.check_belongs_to(fingerprint)

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
            for statement in _SCHEMA.split(";\n"):
                self._connection.execute(statement)
            self._connection.executemany(
                "INSERT INTO about VALUES (?, ?)", [("format", _FORMAT), ("authority", authority_fingerprint)]
            )
        about = dict(self._connection.execute("SELECT key, value FROM about"))
        if about.get("format") != _FORMAT:
            raise SetupError(f"{self._where}: unknown format {about.get('format')!r}")
        if about.get("authority") != authority_fingerprint:
            raise SetupError(
                f"{self._where} belongs to another device CA", hint="a register goes with one key directory"
            )

    def find(self, serial: str) -> Box | None:
        """Return a box, or None."""
        row = self._connection.execute("SELECT * FROM boxes WHERE serial = ?", (serial,)).fetchone()
        return None if row is None else _box(row)

    def boxes(self) -> list[Box]:
        """Return all boxes by serial."""
        return [_box(row) for row in self._connection.execute("SELECT * FROM boxes ORDER BY serial")]

    def add(self, serial: str, claim: str, now: datetime) -> None:
        """Register a box, or give a registered one a new claim; what it was enrolled with is forgotten."""
        self._connection.execute(
            "INSERT OR REPLACE INTO boxes (serial, claim_hash, state, made_s) VALUES (?, ?, ?, ?)",
            (serial, hash_claim(serial, claim), ClaimState.ISSUED, int(now.timestamp())),
        )

    def use_claim(self, serial: str, key_hash: bytes, certificate: bytes, now: datetime) -> None:
        """Note the certificate that a box got for its claim."""
        self._connection.execute(
            "UPDATE boxes SET state = ?, key_hash = ?, certificate = ?, enrolled_s = ? WHERE serial = ?",
            (ClaimState.USED, key_hash, certificate, int(now.timestamp()), serial),
        )


def _box(row: tuple[str, bytes, str, bytes | None, bytes | None, int, int | None]) -> Box:
    serial, claim_hash, state, key_hash, certificate, made_s, enrolled_s = row
    return Box(
        serial=serial,
        claim_hash=claim_hash,
        state=ClaimState(state),
        key_hash=key_hash,
        certificate=certificate,
        made_at=datetime.fromtimestamp(made_s, UTC),
        enrolled_at=None if enrolled_s is None else datetime.fromtimestamp(enrolled_s, UTC),
    )
