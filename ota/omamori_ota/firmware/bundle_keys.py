"""The keys that sign bundles: an authority that images carry, and the key under it that signs.

    DIR/pki/bundle-ca.{key,crt}       the authority; its key is needed only to certify a signing key
    DIR/bundle/bundle.{key,crt}       signs bundles and provenance
    DIR/trust/bundle-ca.pem           what images trust: one authority, or two while one follows the other

A box accepts a bundle that any authority in its image has certified, for code signing and nothing else. Changing the
authority therefore takes two releases (`prepare`, `adopt`, `retire`): the first is signed under the old one and
carries both, the second is signed under the new one, and from then on images carry only that.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from omamori_ota import certificates
from omamori_ota.clock import Clock
from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import PRIVATE_DIRECTORY, PRIVATE_FILE, PUBLIC_FILE, read_bounded, write_atomic

AUTHORITY = "pki/bundle-ca"
SIGNER = "bundle/bundle"
TRUST = "trust/bundle-ca.pem"
_NEXT = ".next"
_MAX_FILE_BYTES = 64 * 1024


def complete(directory: Path, clock: Clock) -> list[str]:
    """Make what a key directory lacks of these keys; return the names of what was made.

    The signing certificate comes last, so that a directory that has it has everything.
    """
    if (directory / f"{SIGNER}.crt").is_file() and (directory / TRUST).is_file():
        return []
    made = []
    if not (directory / f"{AUTHORITY}.crt").is_file():
        _make_authority(directory / AUTHORITY, clock)
        made.append(AUTHORITY)
    if not (directory / TRUST).is_file():
        _write_trust(directory, [AUTHORITY])
        made.append(TRUST)
    if not (directory / f"{SIGNER}.crt").is_file():
        (directory / SIGNER).parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        _certify(directory / AUTHORITY, directory / SIGNER, clock)
        made.append(SIGNER)
    return made


def renew(directory: Path, clock: Clock) -> None:
    """Replace the signing key by a new one under the same authority, as a matter of routine or after a theft.

    The old certificate stays valid until it expires. What protects boxes against a stolen one is that they install
    only what the firmware role names; who needs more changes the authority.

    Raises:
        SetupError: The directory has no such keys.
    """
    require(directory)
    _certify(directory / AUTHORITY, directory / SIGNER, clock)


def prepare(directory: Path, clock: Clock) -> None:
    """First step to another authority: images carry the new one too. Bundles are still signed under the old one.

    Raises:
        RejectedError: A change is under way.
        SetupError: The directory has no such keys.
    """
    require(directory)
    if _is_changing(directory):
        raise RejectedError("another bundle authority is prepared already", hint="go on: omamori-ota bundle-ca adopt")
    _make_authority(directory / (AUTHORITY + _NEXT), clock)
    _write_trust(directory, [AUTHORITY, AUTHORITY + _NEXT])


def adopt(directory: Path, clock: Clock) -> None:
    """Second step: bundles are signed under the new authority. Every box in the field must carry it by now.

    Raises:
        RejectedError: Nothing is prepared.
    """
    if not _is_changing(directory):
        raise RejectedError("no other bundle authority is prepared", hint="omamori-ota bundle-ca prepare")
    _certify(directory / (AUTHORITY + _NEXT), directory / SIGNER, clock)


def retire(directory: Path) -> None:
    """Last step: images carry only the new authority; the old one's key is gone.

    Raises:
        RejectedError: Nothing is prepared, or bundles are still signed under the old authority.
    """
    new = directory / (AUTHORITY + _NEXT)
    if not _is_changing(directory):
        raise RejectedError("no other bundle authority is prepared", hint="omamori-ota bundle-ca prepare")
    if not _is_issued_by(load_certificate(directory / f"{SIGNER}.crt"), load_certificate(Path(f"{new}.crt"))):
        raise RejectedError("bundles are still signed under the old authority", hint="omamori-ota bundle-ca adopt")
    _write_trust(directory, [AUTHORITY + _NEXT])
    for suffix in (".key", ".crt"):  # the certificate last: until it has moved, the same command goes on
        if Path(f"{new}{suffix}").exists():
            Path(f"{new}{suffix}").replace(directory / f"{AUTHORITY}{suffix}")


def require(directory: Path) -> None:
    """Raise `SetupError` unless the directory has these keys."""
    if not (directory / f"{SIGNER}.crt").is_file():
        raise SetupError(f"{directory} has no key that signs bundles", hint=f"omamori-ota keys complete {directory}")


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate; raises `SetupError` if it is not one."""
    try:
        return x509.load_pem_x509_certificate(read_bounded(path, _MAX_FILE_BYTES))
    except ValueError as err:
        raise SetupError(f"{path} is not a certificate") from err


def _is_changing(directory: Path) -> bool:
    return (directory / f"{AUTHORITY}{_NEXT}.crt").is_file()


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _make_authority(stem: Path, clock: Clock) -> None:
    key = certificates.new_service_key()
    certificate = certificates.self_signed_authority(
        f"Omamori bundle CA {clock():%Y-%m-%d %H:%M:%S}", key, clock(), lifetime=certificates.AUTHORITY_LIFETIME
    )
    write_atomic(Path(f"{stem}.key"), certificates.private_pem(key), mode=PRIVATE_FILE)
    write_atomic(Path(f"{stem}.crt"), certificates.certificate_pem(certificate), mode=PUBLIC_FILE)


def _certify(authority_stem: Path, stem: Path, clock: Clock) -> None:
    authority = load_certificate(Path(f"{authority_stem}.crt"))
    key = certificates.new_service_key()
    certificate = certificates.bundle_certificate(
        "Omamori bundle", key.public_key(), authority, _load_key(Path(f"{authority_stem}.key")), clock()
    )
    write_atomic(Path(f"{stem}.key"), certificates.private_pem(key), mode=PRIVATE_FILE)
    write_atomic(Path(f"{stem}.crt"), certificates.certificate_pem(certificate), mode=PUBLIC_FILE)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read_bounded(path, _MAX_FILE_BYTES), None)
    except (ValueError, TypeError) as err:
        raise SetupError(f"{path} is not a private key") from err
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SetupError(f"{path} is not an elliptic-curve key")
    return key


def _write_trust(directory: Path, stems: list[str]) -> None:
    data = b"".join(read_bounded(directory / f"{stem}.crt", _MAX_FILE_BYTES) for stem in stems)
    write_atomic(directory / TRUST, data, mode=PUBLIC_FILE)
