"""The board's TPM as the place of the box's private key.

The key is made in the TPM and never leaves it; `device.key` then holds what the TPM gave out for keeping: the key
wrapped by the TPM's own, which is of no use to any other TPM (PEM "TSS2 PRIVATE KEY"). TLS uses such a file like any
other as soon as OpenSSL has the provider `tpm2` (Debian's tpm2-openssl). docs/adr/0051-the-key-in-the-tpm.md

Python's `ssl` cannot load providers, so libcrypto is called directly: the very library that `ssl` uses, in this
process, and nothing is written to an OpenSSL configuration that would break boxes without a TPM. `cryptography` has a
libcrypto of its own and knows nothing of this.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID

from omamori_agent.errors import RejectedError, TransientError

DEVICE = Path("/dev/tpmrm0")  # the kernel's resource manager: others may use the TPM beside us
_LIBRARY = "libcrypto.so.3"
_PROVIDER = b"tpm2"
_PEM_MARK = b"-----BEGIN TSS2 PRIVATE KEY-----"
_MAX_PEM_BYTES = 4096
_MAX_SIGNATURE_BYTES = 256
# ecdsa-with-SHA256 (RFC 5758): an identifier without parameters.
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


class TPMUnavailableError(TransientError):
    """The TPM cannot be used now: its driver is not there yet, it is locked, or it does not know this key."""


class TPMKey:
    """A key in the TPM.

    Args:
        tpm: Where it is.
        pem: What is kept of it.
        public: Its public half.
    """

    def __init__(self, tpm: KeyKeeper, pem: bytes, public: ec.EllipticCurvePublicKey) -> None:
        self._tpm = tpm
        self._public = public
        self.pem = pem

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public

    def make_request(self, serial: str) -> bytes:
        """Return a certificate request (PKCS#10, DER) for `serial`; raises `TPMUnavailableError`."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, serial)]).public_bytes()
        info = self._public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        wanted = _der(0x30, b"\x02\x01\x00" + subject + info + b"\xa0\x00")
        signature = self._tpm.sign(self.pem, wanted)
        return _der(0x30, wanted + _ECDSA_SHA256 + _der(0x03, b"\x00" + signature))


DeviceKey = ec.EllipticCurvePrivateKey | TPMKey


class KeyKeeper(Protocol):
    """Whoever makes and loads keys that are not files."""

    def make_key(self) -> TPMKey:
        """Return a new key; raises `TPMUnavailableError`."""

    def load_key(self, pem: bytes) -> TPMKey:
        """Return the key of a file; raises `TPMUnavailableError`, `RejectedError`."""

    def sign(self, pem: bytes, data: bytes) -> bytes:
        """Return the signature (ECDSA with SHA-256, DER) of a key; raises `TPMUnavailableError`."""


class TPM:
    """A TPM 2.0 behind OpenSSL's provider. Nothing is touched before the first key.

    Args:
        tcti: How to reach it, in the words of tpm2-tss.
    """

    def __init__(self, tcti: str = f"device:{DEVICE}") -> None:
        self._tcti = tcti
        self._lock = threading.Lock()
        self._crypto: Any = None

    @classmethod
    def of_board(cls, device: Path = DEVICE) -> TPM | None:
        """Return the board's TPM, or None when it has none."""
        return cls(f"device:{device}") if device.exists() else None

    def make_key(self) -> TPMKey:
        """Make a P-256 key in the TPM.

        Raises:
            TPMUnavailableError: It cannot.
        """
        with self._lock:
            crypto = self._library()
            key = crypto.EVP_PKEY_Q_keygen(None, b"provider=tpm2", b"EC", ctypes.c_char_p(b"P-256"))
            if not key:
                raise self._failed("cannot make a key")
            try:
                pem = self._write(crypto.PEM_write_bio_PrivateKey, key, None, None, 0, None, None)
                public = self._public_of(key)
            finally:
                crypto.EVP_PKEY_free(key)
        if not is_tpm_key(pem):
            raise TPMUnavailableError("TPM: the new key is not one of the TPM")
        return TPMKey(self, pem, public)

    def load_key(self, pem: bytes) -> TPMKey:
        """Return the key that `make_key` made.

        Raises:
            TPMUnavailableError: The TPM cannot be used, or is not the one that made it.
        """
        with self._lock:
            key = self._open(pem)
            try:
                return TPMKey(self, pem, self._public_of(key))
            finally:
                self._crypto.EVP_PKEY_free(key)

    def sign(self, pem: bytes, data: bytes) -> bytes:
        """Return the ECDSA signature (DER, with SHA-256) of `data`; raises `TPMUnavailableError`."""
        with self._lock:
            key = self._open(pem)
            crypto = self._crypto
            context = crypto.EVP_MD_CTX_new()
            try:
                length = ctypes.c_size_t(_MAX_SIGNATURE_BYTES)
                signature = ctypes.create_string_buffer(_MAX_SIGNATURE_BYTES)
                is_done = (
                    crypto.EVP_DigestSignInit_ex(context, None, b"SHA256", None, None, key, None) == 1
                    and crypto.EVP_DigestSign(context, signature, ctypes.byref(length), data, len(data)) == 1
                )
                if not is_done:
                    raise self._failed("cannot sign")
                return signature.raw[: length.value]
            finally:
                crypto.EVP_MD_CTX_free(context)
                crypto.EVP_PKEY_free(key)

    def _open(self, pem: bytes) -> Any:
        crypto = self._library()
        source = crypto.BIO_new_mem_buf(pem, len(pem))
        try:
            key = crypto.PEM_read_bio_PrivateKey(source, None, None, None)
        finally:
            crypto.BIO_free(source)
        if not key:
            raise self._failed("does not know the stored key")
        return key

    def _public_of(self, key: Any) -> ec.EllipticCurvePublicKey:
        der = self._write(self._crypto.i2d_PUBKEY_bio, key)
        try:
            public = load_der_public_key(der)
        except ValueError as err:
            raise RejectedError("TPM: the key has no readable public half") from err
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise RejectedError("TPM: the key is not of the P-256 curve")
        return public

    def _write(self, function: Any, key: Any, *more: Any) -> bytes:
        crypto = self._crypto
        sink = crypto.BIO_new(crypto.BIO_s_mem())
        try:
            if function(sink, key, *more) != 1:
                raise self._failed("cannot write the key")
            data = ctypes.create_string_buffer(_MAX_PEM_BYTES)
            length = crypto.BIO_read(sink, data, _MAX_PEM_BYTES)
            return data.raw[: max(0, length)]
        finally:
            crypto.BIO_free(sink)

    def _library(self) -> Any:
        """Return libcrypto with the provider, loading it the first time."""
        if self._crypto is None:
            # The provider reads it when it is loaded; what libraries of the TPM print is of no use to anybody.
            os.environ["TPM2OPENSSL_TCTI"] = self._tcti
            os.environ.setdefault("TSS2_LOG", "all+none")
            try:
                crypto = _declared(ctypes.CDLL(_LIBRARY))
            except (OSError, AttributeError) as err:
                raise TPMUnavailableError(f"TPM: {_LIBRARY} cannot be used: {err}") from err
            # Beside the default provider, which does everything but what needs a key of the TPM.
            if not crypto.OSSL_PROVIDER_try_load(None, _PROVIDER, 1):
                crypto.ERR_clear_error()
                raise TPMUnavailableError("TPM: OpenSSL's provider tpm2 cannot be loaded: no TPM, or not installed")
            crypto.EVP_set_default_properties(None, b"?provider!=tpm2")
            self._crypto = crypto
        return self._crypto

    def _failed(self, what: str) -> TPMUnavailableError:
        text = ctypes.create_string_buffer(256)
        self._crypto.ERR_error_string_n(self._crypto.ERR_peek_last_error(), text, len(text))
        # What stays behind would appear in the next TLS connection of this thread as its own error.
        self._crypto.ERR_clear_error()
        return TPMUnavailableError(f"TPM: {what}: {text.value.decode(errors='replace')}")


def is_tpm_key(pem: bytes) -> bool:
    """Tell whether a key file belongs to a TPM."""
    return pem.lstrip().startswith(_PEM_MARK)


def _der(tag: int, content: bytes) -> bytes:
    """Return a DER value of less than 64 KiB."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _declared(crypto: Any) -> Any:
    """Tell ctypes the functions of libcrypto that are used: pointers must not be cut to 32 bits."""
    pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    for name, result, arguments in (
        ("OSSL_PROVIDER_try_load", pointer, [pointer, text, number]),
        ("EVP_set_default_properties", number, [pointer, text]),
        ("EVP_PKEY_Q_keygen", pointer, [pointer, text, text]),  # and the curve
        ("EVP_PKEY_free", None, [pointer]),
        ("EVP_MD_CTX_new", pointer, []),
        ("EVP_MD_CTX_free", None, [pointer]),
        ("EVP_DigestSignInit_ex", number, [pointer, pointer, text, pointer, text, pointer, pointer]),
        ("EVP_DigestSign", number, [pointer, text, pointer, text, size]),
        ("PEM_write_bio_PrivateKey", number, [pointer, pointer, pointer, pointer, number, pointer, pointer]),
        ("PEM_read_bio_PrivateKey", pointer, [pointer, pointer, pointer, pointer]),
        ("i2d_PUBKEY_bio", number, [pointer, pointer]),
        ("BIO_new", pointer, [pointer]),
        ("BIO_s_mem", pointer, []),
        ("BIO_new_mem_buf", pointer, [text, number]),
        ("BIO_read", number, [pointer, text, number]),
        ("BIO_free", number, [pointer]),
        ("ERR_peek_last_error", ctypes.c_ulong, []),
        ("ERR_error_string_n", None, [ctypes.c_ulong, text, size]),
        ("ERR_clear_error", None, []),
    ):
        function = getattr(crypto, name)
        function.restype = result
        function.argtypes = arguments
    return crypto
