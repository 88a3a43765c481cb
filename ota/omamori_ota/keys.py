"""The key directory: every secret of an operator, made once.

    DIR/tuf/<name>.pem                    Ed25519, PKCS#8
    DIR/tuf/<name>.next.pem               its successor, while it is being replaced (`key_rotation`)
    DIR/secureboot/{PK,KEK,db}.{key,crt}  RSA-2048
    DIR/pki/{device-ca,service-ca}.{key,crt}
    DIR/pki/bundle-ca.{key,crt}, DIR/bundle/bundle.{key,crt}   see `firmware.bundle_keys`
    DIR/desired/desired.pem               Ed25519: signs desired state and commands of boxes
    DIR/trust/                            the public part, for the image build

The directory appears whole or not at all, is private, and is never overwritten; `complete` adds what a directory of an
older version lacks. In production the offline keys leave
it for hardware tokens; then only `signer` changes. It does not use the keys; see `repository`, `pki`, `enrolment`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Metadata, Root

from omamori_protocol.durable import sync_directory

from . import certificates
from .clock import Clock
from .errors import SetupError
from .files import (
    PRIVATE_DIRECTORY,
    PRIVATE_FILE,
    PUBLIC_FILE,
    exclusive,
    new_directory,
    read_bounded,
    write_atomic,
)
from .firmware import bundle_keys
from .metadata import new_root, parse, sign, to_bytes
from .roles import KEY_NAMES, ROLES, ROOT, Lifetimes

DEVICE_CA = "device-ca"
SERVICE_CA = "service-ca"
SECURE_BOOT = ("PK", "KEK", "db")
DESIRED = "desired/desired.pem"
DESIRED_TRUST = "trust/desired.pem"
_MAX_FILE_BYTES = 512 * 1024


class KeyDirectory:
    """Reads what `init` has written.

    Args:
        path: The directory.

    Raises:
        SetupError: It is not a key directory.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "tuf").is_dir() or not (path / "trust" / "root.json").is_file():
            raise SetupError(f"{path} is not a key directory", hint=f"make one: omamori-ota keys init {path}")
        self.path = path

    def signers(self, role: str, keyids: Collection[str] | None = None) -> list[CryptoSigner]:
        """Return the signers of a TUF role, in the order of the table.

        Args:
            role: The role.
            keyids: What the published metadata names; of a key that is being replaced, the one that is named signs.

        Raises:
            SetupError: A key is missing or damaged, or the directory does not hold what is named.
        """
        if keyids is None:
            return [self._signer(name) for name in ROLES[role].keys]
        found = []
        for name in ROLES[role].keys:
            known = [self._signer(name), *self._successors(name)]
            named = [signer for signer in known if signer.public_key.keyid in keyids]
            if not named:
                raise SetupError(
                    f"the repository does not name the key {name!r} of this directory",
                    hint="wrong key directory, or one from before the key was replaced",
                )
            found += named[:1]
        return found

    def current_key(self, name: str) -> Key:
        """Return the public part of a key."""
        return self._signer(name).public_key

    def prepare(self, name: str) -> CryptoSigner:
        """Return the successor of a key, made now unless it was made before and never adopted."""
        for signer in self._successors(name):
            return signer
        made = CryptoSigner.generate_ed25519()
        write_atomic(self._successor_path(name), made.private_bytes, mode=PRIVATE_FILE)
        return made

    def adopt(self, name: str) -> None:
        """Let the successor of a key take its place; the old one is gone."""
        self._successor_path(name).replace(self.path / "tuf" / f"{name}.pem")
        sync_directory(self.path / "tuf")

    def _successor_path(self, name: str) -> Path:
        return self.path / "tuf" / f"{name}.next.pem"

    def _successors(self, name: str) -> list[CryptoSigner]:
        path = self._successor_path(name)
        return [_load_signer(path)] if path.exists() else []

    def public_keys(self) -> dict[str, Key]:
        """Return the public keys of all TUF roles by name."""
        return {name: self._signer(name).public_key for name in KEY_NAMES}

    def desired_key(self) -> Ed25519PrivateKey:
        """Return the key that signs desired state and commands."""
        path = self.path / DESIRED
        if not path.is_file():
            raise SetupError(f"{path} is not there", hint=f"omamori-ota keys complete {self.path}")
        try:
            key = serialization.load_pem_private_key(read_bounded(path, _MAX_FILE_BYTES), None)
        except (ValueError, TypeError) as err:
            raise SetupError(f"{path} is not a private key") from err
        if not isinstance(key, Ed25519PrivateKey):
            raise SetupError(f"{path} is not an Ed25519 key")
        return key

    def _signer(self, name: str) -> CryptoSigner:
        return _load_signer(self.path / "tuf" / f"{name}.pem")

    def trusted_root(self) -> Metadata[Root]:
        """Return the first root, the one that the image carries."""
        path = self.path / "trust" / "root.json"
        return parse(Root, read_bounded(path, _MAX_FILE_BYTES), str(path))

    def authority(self, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Return certificate and key of `DEVICE_CA` or `SERVICE_CA`."""
        key_path = self.path / "pki" / f"{name}.key"
        try:
            key = serialization.load_pem_private_key(read_bounded(key_path, _MAX_FILE_BYTES), None)
        except (ValueError, TypeError) as err:
            raise SetupError(f"{key_path} is not a private key") from err
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SetupError(f"{key_path} is not an elliptic-curve key")
        return self.authority_certificate(name), key

    def authority_certificate(self, name: str) -> x509.Certificate:
        """Return the certificate of `DEVICE_CA` or `SERVICE_CA`."""
        path = self.path / "pki" / f"{name}.crt"
        try:
            return x509.load_pem_x509_certificate(read_bounded(path, _MAX_FILE_BYTES))
        except ValueError as err:
            raise SetupError(f"{path} is not a certificate") from err


def _load_signer(path: Path) -> CryptoSigner:
    data = read_bounded(path, _MAX_FILE_BYTES)
    try:
        return CryptoSigner(serialization.load_pem_private_key(data, None))
    except (ValueError, TypeError) as err:
        raise SetupError(f"{path} is not a private key") from err


def init(path: Path, clock: Clock, lifetimes: Lifetimes) -> KeyDirectory:
    """Make all keys and the trust directory.

    Args:
        path: Where; free, or an empty directory.
        clock: Beginning of every validity.
        lifetimes: Of the root; the other roles are signed later.

    Raises:
        SetupError: `path` is occupied.
    """
    with new_directory(path, mode=PRIVATE_DIRECTORY) as work:
        now = clock()
        trust = work / "trust"
        for folder in (work / "tuf", work / "secureboot", work / "pki", trust):
            folder.mkdir(mode=PRIVATE_DIRECTORY)
        signers = {name: CryptoSigner.generate_ed25519() for name in KEY_NAMES}
        for name, signer in signers.items():
            write_atomic(work / "tuf" / f"{name}.pem", signer.private_bytes, mode=PRIVATE_FILE)
        public_keys = {name: signer.public_key for name, signer in signers.items()}
        root = Metadata(new_root(public_keys, now + lifetimes.of(ROOT)))
        sign(root, [signers[name] for name in ROLES[ROOT].keys])
        write_atomic(trust / "root.json", to_bytes(root), mode=PUBLIC_FILE)
        _write_desired_key(work)
        for name in SECURE_BOOT:
            boot_key = certificates.new_secure_boot_key()
            certificate = certificates.secure_boot_certificate(f"Omamori Secure Boot {name}", boot_key, now)
            _write_pair(work / "secureboot" / name, certificates.private_pem(boot_key), certificate)
            write_atomic(trust / f"{name}.crt", certificates.certificate_pem(certificate))
        for name, title in ((DEVICE_CA, "Omamori device CA"), (SERVICE_CA, "Omamori service CA")):
            key = certificates.new_service_key()
            certificate = certificates.self_signed_authority(title, key, now)
            _write_pair(work / "pki" / name, certificates.private_pem(key), certificate)
            if name == SERVICE_CA:
                write_atomic(trust / "service-ca.pem", certificates.certificate_pem(certificate))
        bundle_keys.complete(work, clock)
    return KeyDirectory(path)


def complete(path: Path, clock: Clock) -> list[str]:
    """Add to a key directory of an older version what it lacks; nothing that is there is changed.

    Args:
        path: The directory.
        clock: Beginning of the validity of what is added.

    Returns:
        Names of what was added.

    Raises:
        SetupError: It is not a key directory.
    """
    keys = KeyDirectory(path)
    with exclusive(path / ".lock"):
        return [*_complete_desired(keys), *bundle_keys.complete(path, clock)]


def _complete_desired(keys: KeyDirectory) -> list[str]:
    if not (keys.path / DESIRED).is_file():
        _write_desired_key(keys.path)
        return [DESIRED, DESIRED_TRUST]
    if not (keys.path / DESIRED_TRUST).is_file():
        write_atomic(keys.path / DESIRED_TRUST, _public_pem(keys.desired_key().public_key()), mode=PUBLIC_FILE)
        return [DESIRED_TRUST]
    return []


def _write_desired_key(directory: Path) -> None:
    """Make the key; the private half comes last, so that a directory that has it has both."""
    key = Ed25519PrivateKey.generate()
    (directory / DESIRED).parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    write_atomic(directory / DESIRED_TRUST, _public_pem(key.public_key()), mode=PUBLIC_FILE)
    write_atomic(directory / DESIRED, certificates.private_pem(key), mode=PRIVATE_FILE)


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _write_pair(stem: Path, key_pem: bytes, certificate: x509.Certificate) -> None:
    write_atomic(stem.with_name(f"{stem.name}.key"), key_pem, mode=PRIVATE_FILE)
    write_atomic(stem.with_name(f"{stem.name}.crt"), certificates.certificate_pem(certificate))
