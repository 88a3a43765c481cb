"""Signs bundles and statements with the bundle key: a key file, or a token (PKCS#11).

All of it is done by openssl, so that a token needs no second way. A token is named by a PKCS#11 URI; its PIN comes
from a file (``pin-source=``), never from an argument. Signatures carry the signing time, because a box judges the
certificate by it: its own clock may be years behind.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from omamori_ota.errors import RejectedError, SetupError
from omamori_ota.files import read_bounded, write_atomic

from .bundle_keys import SIGNER, load_certificate, require
from .programs import Programs

STATEMENT_TYPE = "application/vnd.in-toto+json"
_MAX_URI_LENGTH = 1024
_MAX_ENVELOPE_BYTES = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleKey:
    """Which key signs.

    Attributes:
        certificate: Its certificate.
        key: Its file, or a PKCS#11 URI as text.
        module: The token's library, for a URI; as the programs see it.
    """

    certificate: Path
    key: Path | str
    module: Path | None = None

    @staticmethod
    def of_directory(directory: Path) -> BundleKey:
        """Return the key of a key directory; raises `SetupError` if it has none."""
        require(directory)
        return BundleKey(certificate=directory / f"{SIGNER}.crt", key=directory / f"{SIGNER}.key")

    @staticmethod
    def of_token(uri: str, certificate: Path, module: Path | None) -> BundleKey:
        """Return a token's key.

        Raises:
            RejectedError: It is not a PKCS#11 URI, it holds a PIN, or the module is missing.
        """
        if not uri.startswith("pkcs11:") or len(uri) > _MAX_URI_LENGTH or not uri.isprintable():
            raise RejectedError("not a PKCS#11 URI", hint="pkcs11:token=NAME;object=NAME;type=private?pin-source=FILE")
        if "pin-value" in uri:
            raise RejectedError("a PIN does not belong into arguments", hint="put it into a file: pin-source=FILE")
        if module is None:
            raise RejectedError("a token needs its library", hint="--pkcs11-module /usr/lib/softhsm/libsofthsm2.so")
        return BundleKey(certificate=certificate, key=uri, module=module)


class BundleSigner:
    """Signs with one key.

    Args:
        key: The key.
        programs: Where openssl comes from.
        binds: Directories besides the certificate's that openssl must see, for a token's state and PIN.
    """

    def __init__(self, key: BundleKey, programs: Programs, binds: tuple[Path, ...] = ()) -> None:
        self._key = key
        self._programs = programs
        self._binds = (key.certificate.resolve().parent, *binds)
        self.certificate = load_certificate(key.certificate)

    def cms(self, content: bytes) -> bytes:
        """Return a CMS message (DER) that holds `content` and a signature over it.

        Raises:
            ProgramError: The key cannot be used, or does not belong to the certificate.
        """
        line = ["cms", "-sign", "-binary", "-nodetach", "-nosmimecap", "-md", "sha256", "-outform", "DER"]
        return self._openssl([*line, "-signer", str(self._key.certificate.resolve())], "-inkey", content)

    def envelope(self, statement: bytes) -> bytes:
        """Return a statement in a signed DSSE envelope.

        Raises:
            ProgramError: The key cannot be used.
        """
        signature = self._openssl(["dgst", "-sha256"], "-sign", _pae(statement))
        body = {
            "payloadType": STATEMENT_TYPE,
            "payload": base64.b64encode(statement).decode(),
            "signatures": [{"keyid": key_id(self.certificate), "sig": base64.b64encode(signature).decode()}],
        }
        open_envelope(data := (json.dumps(body, indent=1) + "\n").encode(), self.certificate)
        return data

    def _openssl(self, line: list[str], key_option: str, content: bytes) -> bytes:
        with tempfile.TemporaryDirectory(prefix="omamori-sign.") as name:
            folder = Path(name)
            write_atomic(folder / "content", content, mode=0o600)
            environment: dict[str, str] = {}
            if isinstance(self._key.key, Path):
                options = [key_option, str(self._key.key.resolve())]
                binds = [self._key.key.resolve().parent]
            else:
                options = ["-engine", "pkcs11", "-keyform", "engine", key_option, self._key.key]
                environment["PKCS11_MODULE_PATH"] = str(self._key.module)
                binds = []
            place = ["-in", str(folder / "content")] if line[0] == "cms" else [str(folder / "content")]
            command = ["openssl", *line, *options, *place]
            return self._programs.run(command, binds=[folder, *self._binds, *binds], env=environment)


def key_id(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's public key, in hexadecimal."""
    encoded = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def open_envelope(data: bytes, certificate: x509.Certificate) -> Any:
    """Return the statement in a DSSE envelope that `certificate`'s key has signed.

    Raises:
        RejectedError: It is not such an envelope, or somebody else's.
    """
    if len(data) > _MAX_ENVELOPE_BYTES:
        raise RejectedError(f"an envelope of {len(data)} bytes")
    try:
        body = json.loads(data)
        statement = base64.b64decode(body["payload"], validate=True)
        signatures = [base64.b64decode(item["sig"], validate=True) for item in body["signatures"][:8]]
        kind, value = body["payloadType"], json.loads(statement)
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise RejectedError("not a signed statement") from err
    if kind != STATEMENT_TYPE:
        raise RejectedError("not a signed statement")
    if not any(_is_signed(certificate, signature, _pae(statement)) for signature in signatures):
        raise RejectedError("the statement is not signed by the bundle key")
    return value


def _is_signed(certificate: x509.Certificate, signature: bytes, data: bytes) -> bool:
    key = certificate.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, PKCS1v15(), hashes.SHA256())
        else:
            raise SetupError("the bundle key is neither an elliptic-curve nor an RSA key")
    except InvalidSignature:
        return False
    return True


def _pae(statement: bytes) -> bytes:
    """Return what a DSSE signature is over: type and statement with their lengths."""
    kind = STATEMENT_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


def read_envelope(path: Path, certificate: x509.Certificate) -> Any:
    """Read a file with a signed statement; see `open_envelope`."""
    return open_envelope(read_bounded(path, _MAX_ENVELOPE_BYTES), certificate)
