"""Signs TUF metadata with a key that is alone in its file, or on a token: one person, one key, one signature."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.signer import CryptoSigner, Key, Signature, Signer, SSlibKey

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import read_bounded

from .programs import Programs

_MAX_FILE_BYTES = 64 * 1024


def load_public_key(path: Path) -> Key:
    """Read a public key (PEM): Ed25519, or EC P-256 for tokens.

    Raises:
        SetupError: It is not one.
    """
    try:
        key = serialization.load_pem_public_key(read_bounded(path, _MAX_FILE_BYTES))
    except (ValueError, TypeError) as err:
        raise SetupError(f"{path} is not a public key") from err
    is_known = isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    )
    if not is_known:
        raise SetupError(f"{path} is neither an Ed25519 nor a P-256 key")
    return SSlibKey.from_crypto(key)


def file_signer(path: Path) -> CryptoSigner:
    """Return the signer of a key file.

    Raises:
        SetupError: It is not an unencrypted private key of a kind that TUF knows.
    """
    try:
        return CryptoSigner(serialization.load_pem_private_key(read_bounded(path, _MAX_FILE_BYTES), None))
    except (ValueError, TypeError) as err:
        raise SetupError(f"{path} is not a private key") from err


class TokenSigner(Signer):
    """Signs with an EC P-256 key that never leaves its token.

    Args:
        uri: PKCS#11 URI of the private key; its PIN comes from a file (``pin-source=``).
        public_key: The public half.
        module: The token's library.
        programs: Where openssl comes from.
        binds: Directories that openssl must see for the token.
    """

    def __init__(
        self, uri: str, public_key: Key, module: Path, programs: Programs, binds: tuple[Path, ...] = ()
    ) -> None:
        if not uri.startswith("pkcs11:") or "pin-value" in uri:
            hint = "pkcs11:object=NAME;type=private?pin-source=FILE"
            raise RejectedError("not a PKCS#11 URI without a PIN", hint=hint)
        self._uri = uri
        self._public_key = public_key
        self._module = module
        self._programs = programs
        self._binds = binds

    @property
    def public_key(self) -> Key:
        """The public half."""
        return self._public_key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: object = None) -> Signer:  # noqa: ARG003
        """Not how these are made; raises `SetupError`."""
        raise SetupError(f"no signer for {priv_key_uri[:20]}")

    def sign(self, payload: bytes) -> Signature:
        """Return the token's signature; raises `ProgramError` if it gives none."""
        line = ["openssl", "dgst", "-sha256", "-engine", "pkcs11", "-keyform", "engine", "-sign", self._uri]
        environment = {"PKCS11_MODULE_PATH": str(self._module)}
        value = self._programs.run(line, binds=self._binds, env=environment, input_bytes=payload)
        return Signature(self._public_key.keyid, value.hex())
