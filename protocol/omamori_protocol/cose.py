"""COSE_Sign1 (RFC 9052, section 4.2) with Ed25519, as Omamori uses it: one signature, nothing optional.

For what goes to one box over the broker: desired state and commands. A message proves who wrote it, not that it is
fresh or meant for this box; that is said inside the payload and judged by the reader.

Rules of `seal` and `unseal`:

* the message has CBOR tag 18 and is canonical;
* the protected header is exactly {1 (alg): -8 (EdDSA), 4 (kid): 8 bytes}; the unprotected one is empty;
* the payload is inside (never detached) and is bytes;
* `context` is the external data of the signature structure: a signature for one purpose is worth nothing for another.

`parse` and `verify` are the general part beneath them, and read any COSE_Sign1 with Ed25519; they exist so that
public examples can be held against this module. Nothing is decided by what a message says of itself: the algorithm
is fixed and the key is looked up among those the caller trusts.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from . import cbor
from .errors import MalformedError, OversizeError, ProtocolError

TAG = 0xD2  # CBOR tag 18 in its one canonical byte
ALGORITHM, KEY_ID = 1, 4
EDDSA = -8
KEY_ID_BYTES = 8
SIGNATURE_BYTES = 64
OVERHEAD_BYTES = 96  # generous: what `seal` adds to a payload
MAX_PUBLIC_KEY_BYTES = 1024
MAX_KEYS = 4  # the current one, the next one, and room for a mistake

DESIRED_CONTEXT = b"omamori-desired-v1"
COMMAND_CONTEXT = b"omamori-command-v1"


class ForgedError(ProtocolError):
    """The signature is not by a key that is trusted for this purpose."""


@dataclasses.dataclass(frozen=True)
class Sign1:
    """A parsed message, not yet verified.

    Attributes:
        protected: The protected header as it was signed.
        header: What it says.
        unprotected: The unprotected header; anybody on the way may have written it.
        payload: The content.
        signature: 64 bytes.
    """

    protected: bytes
    header: dict[int, Any]
    unprotected: dict[int, Any]
    payload: bytes
    signature: bytes


def parse(data: bytes, *, max_bytes: int) -> Sign1:
    """Take a COSE_Sign1 message apart.

    Args:
        data: The whole message, with tag 18.
        max_bytes: Largest message in bytes that is looked at.

    Raises:
        OversizeError: It is longer, deeper or wider than allowed.
        MalformedError: It is not such a message, or not by EdDSA.
    """
    if len(data) > max_bytes:
        raise OversizeError(f"signed message of {len(data)} bytes, allowed {max_bytes}", limit=max_bytes)
    if not data or data[0] != TAG:
        raise MalformedError("not a COSE_Sign1 message: no tag 18")
    parts = cbor.decode(data[1:], max_bytes=max_bytes)
    if not isinstance(parts, list) or len(parts) != 4:
        raise MalformedError("COSE_Sign1: expected an array of four")
    protected, unprotected, payload, signature = parts
    if not isinstance(protected, bytes) or not isinstance(unprotected, dict):
        raise MalformedError("COSE_Sign1: headers of another type")
    if not isinstance(payload, bytes):
        raise MalformedError("COSE_Sign1: the payload is not inside")
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise MalformedError(f"COSE_Sign1: expected a signature of {SIGNATURE_BYTES} bytes")
    header = cbor.decode(protected, max_bytes=max_bytes) if protected else {}
    if not isinstance(header, dict):
        raise MalformedError("COSE_Sign1: the protected header is not a map")
    if type(header.get(ALGORITHM)) is not int or header[ALGORITHM] != EDDSA:
        raise MalformedError("COSE_Sign1: the algorithm is not EdDSA")
    if set(header) & set(unprotected):
        raise MalformedError("COSE_Sign1: a header twice")
    return Sign1(protected, header, unprotected, payload, signature)


def signed_bytes(protected: bytes, payload: bytes, context: bytes) -> bytes:
    """Return what is signed: RFC 9052's Sig_structure."""
    return cbor.encode(["Signature1", protected, context, payload])


def verify(message: Sign1, key: Ed25519PublicKey, context: bytes = b"") -> None:
    """Check a message's signature.

    Raises:
        ForgedError: It is not by this key, or not for this context.
    """
    try:
        key.verify(message.signature, signed_bytes(message.protected, message.payload, context))
    except InvalidSignature as err:
        raise ForgedError("the signature does not fit") from err


def key_id(key: Ed25519PublicKey) -> bytes:
    """Return the eight bytes by which a message names its key: the beginning of SHA-256 over the raw key."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:KEY_ID_BYTES]


def seal(payload: bytes, key: Ed25519PrivateKey, context: bytes) -> bytes:
    """Return `payload` signed by `key` for the purpose `context`."""
    protected = cbor.encode({ALGORITHM: EDDSA, KEY_ID: key_id(key.public_key())})
    signature = key.sign(signed_bytes(protected, payload, context))
    return bytes([TAG]) + cbor.encode([protected, {}, payload, signature])


def unseal(data: bytes, keys: Iterable[Ed25519PublicKey], context: bytes, *, max_bytes: int) -> bytes:
    """Return the payload of a message that one of `keys` has signed for the purpose `context`.

    Args:
        data: The message.
        keys: Keys that are trusted for this purpose.
        context: The purpose.
        max_bytes: Largest payload in bytes.

    Raises:
        OversizeError: The message is too long.
        MalformedError: It is not a message as `seal` makes them.
        ForgedError: The key is not among the trusted ones, or the signature does not fit.
    """
    message = parse(data, max_bytes=max_bytes + OVERHEAD_BYTES)
    if len(message.payload) > max_bytes:
        raise OversizeError(f"payload of {len(message.payload)} bytes, allowed {max_bytes}", limit=max_bytes)
    if set(message.header) != {ALGORITHM, KEY_ID} or message.unprotected:
        raise MalformedError("COSE_Sign1: expected the headers alg and kid, protected, and no other")
    name = message.header[KEY_ID]
    if not isinstance(name, bytes) or len(name) != KEY_ID_BYTES:
        raise MalformedError(f"COSE_Sign1: expected a key id of {KEY_ID_BYTES} bytes")
    for key in keys:
        if key_id(key) == name:
            verify(message, key, context)
            return message.payload
    raise ForgedError(f"signed by key {name.hex()}, which is not trusted")


def load_public_keys(pem: bytes) -> list[Ed25519PublicKey]:
    """Read one or more Ed25519 public keys in PEM.

    Raises:
        OversizeError: The file is too long, or holds too many keys.
        MalformedError: It is not a file of such keys.
    """
    if len(pem) > MAX_PUBLIC_KEY_BYTES:
        raise OversizeError(f"key file of {len(pem)} bytes", limit=MAX_PUBLIC_KEY_BYTES)
    begin = b"-----BEGIN PUBLIC KEY-----"
    blocks = [begin + block for block in pem.split(begin)[1:]]
    if not blocks or pem.split(begin)[0].strip():
        raise MalformedError("no public key in PEM")
    if len(blocks) > MAX_KEYS:
        raise OversizeError(f"{len(blocks)} keys, allowed {MAX_KEYS}", limit=MAX_KEYS)
    keys = []
    for block in blocks:
        try:
            key = serialization.load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as err:
            raise MalformedError("not a public key in PEM") from err
        if not isinstance(key, Ed25519PublicKey):
            raise MalformedError("not an Ed25519 key")
        keys.append(key)
    return keys
