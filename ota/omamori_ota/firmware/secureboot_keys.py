"""The key that signs kernel images (Secure Boot's db), and how another one follows it without a box being left behind.

    DIR/secureboot/db.{key,crt}              signs
    DIR/secureboot/db.next.{key,crt}         while a change is prepared
    DIR/secureboot/db.previous.crt           after it was adopted, until boxes do not accept it any more
    DIR/secureboot/db.retired.pem            every certificate that was retired
    DIR/trust/secureboot/db-append.auth      signed by KEK; images carry it, and boxes add it to their db
    DIR/trust/secureboot/dbx-append.auth     the same for what boxes shall not start any more

Three releases: the first, still signed with the old key, brings the new certificate (`prepare`); the second is signed
with the new key (`adopt`); the third brings the revocation of the old one (`retire`). Boxes go over each of them
(`--min-from`). A box never revokes a certificate with which one of its slots is signed.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from omamori_ota import certificates
from omamori_ota.clock import Clock
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import PRIVATE_FILE, PUBLIC_FILE, read_bounded, write_atomic

from .bundle_keys import load_certificate
from .signed_variable import signed_addition

DB = "secureboot/db"
KEK = "secureboot/KEK"
NEXT = "secureboot/db.next"
PREVIOUS = "secureboot/db.previous.crt"
RETIRED = "secureboot/db.retired.pem"
TRUST = "trust/db.crt"
ADDITION = "trust/secureboot/db-append.auth"
REVOCATION = "trust/secureboot/dbx-append.auth"
_MAX_FILE_BYTES = 64 * 1024


def prepare(directory: Path, clock: Clock) -> None:
    """First step: a new key, and the change that adds its certificate, for images to carry.

    Raises:
        RejectedError: A change is under way.
        SetupError: The directory has no KEK.
    """
    if (directory / f"{NEXT}.crt").is_file():
        raise RejectedError("another key is prepared already", hint="go on: omamori-ota secureboot adopt")
    if (directory / PREVIOUS).is_file():
        raise RejectedError("the key before is not retired yet", hint="omamori-ota secureboot retire")
    key = certificates.new_secure_boot_key()
    certificate = certificates.secure_boot_certificate(
        f"Omamori Secure Boot db {clock():%Y-%m-%d %H:%M:%S}", key, clock()
    )
    write_atomic(directory / f"{NEXT}.key", certificates.private_pem(key), mode=PRIVATE_FILE)
    # A box that missed an earlier change gets both.
    added = [load_certificate(directory / f"{DB}.crt"), certificate]
    _write_change(directory, ADDITION, "db", added, clock)
    write_atomic(directory / f"{NEXT}.crt", certificates.certificate_pem(certificate), mode=PUBLIC_FILE)


def adopt(directory: Path) -> None:
    """Second step: kernel images are signed with the new key. Every box in the field must have its certificate by now.

    Raises:
        RejectedError: Nothing is prepared.
    """
    if not (directory / f"{NEXT}.crt").is_file():
        raise RejectedError("no other key is prepared", hint="omamori-ota secureboot prepare")
    new = read_bounded(directory / f"{NEXT}.crt", _MAX_FILE_BYTES)
    old = read_bounded(directory / f"{DB}.crt", _MAX_FILE_BYTES)
    if old != new:  # else it was interrupted behind this
        write_atomic(directory / PREVIOUS, old, mode=PUBLIC_FILE)
    write_atomic(directory / TRUST, new, mode=PUBLIC_FILE)
    if (directory / f"{NEXT}.key").is_file():
        (directory / f"{NEXT}.key").replace(directory / f"{DB}.key")
    write_atomic(directory / f"{DB}.crt", new, mode=PUBLIC_FILE)
    (directory / f"{NEXT}.crt").unlink()


def retire(directory: Path, clock: Clock) -> None:
    """Last step: images carry the revocation of the old certificate. Every box must run the new key's release by now.

    Raises:
        RejectedError: Nothing was adopted.
        SetupError: The directory has no KEK.
    """
    if not (directory / PREVIOUS).is_file():
        raise RejectedError("no key was replaced", hint="omamori-ota secureboot adopt")
    old = read_bounded(directory / PREVIOUS, _MAX_FILE_BYTES)
    retired = read_bounded(directory / RETIRED, _MAX_FILE_BYTES) if (directory / RETIRED).is_file() else b""
    if old not in retired:
        retired += old
        write_atomic(directory / RETIRED, retired, mode=PUBLIC_FILE)
    _write_change(directory, REVOCATION, "dbx", x509.load_pem_x509_certificates(retired), clock)
    (directory / PREVIOUS).unlink()


def _write_change(directory: Path, name: str, variable: str, added: list[x509.Certificate], clock: Clock) -> None:
    try:
        key = serialization.load_pem_private_key(read_bounded(directory / f"{KEK}.key", _MAX_FILE_BYTES), None)
    except (ValueError, TypeError) as err:
        raise SetupError(f"{directory / KEK}.key is not a private key") from err
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SetupError(f"{directory / KEK}.key is not an RSA key, and firmware knows no other")
    change = signed_addition(variable, added, load_certificate(directory / f"{KEK}.crt"), key, clock())
    (directory / name).parent.mkdir(exist_ok=True)
    write_atomic(directory / name, change, mode=PUBLIC_FILE)
