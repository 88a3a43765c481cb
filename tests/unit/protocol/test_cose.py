"""Signed messages: the public example verifies, ours keep their bytes, and every way to bend one is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from omamori_protocol import cbor, cose
from omamori_protocol.cose import COMMAND_CONTEXT, DESIRED_CONTEXT, ForgedError, seal, unseal
from omamori_protocol.errors import MalformedError, OversizeError, ProtocolError

VECTORS = Path(__file__).parents[2] / "vectors"
PUBLIC = json.loads((VECTORS / "cose-eddsa.json").read_text(encoding="utf-8"))
OURS = json.loads((VECTORS / "desired.json").read_text(encoding="utf-8"))
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(OURS["private_key"]))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
PAYLOAD = b"what a box shall be"
SEALED = seal(PAYLOAD, KEY, DESIRED_CONTEXT)


def open_it(data: bytes, *keys: Ed25519PrivateKey, context: bytes = DESIRED_CONTEXT, max_bytes: int = 100) -> bytes:
    return unseal(data, [key.public_key() for key in keys or (KEY,)], context, max_bytes=max_bytes)


def build(protected: bytes, unprotected: Any, payload: Any, *, key: Ed25519PrivateKey = KEY) -> bytes:
    """Make a rightly signed message with headers of the test's choice."""
    signature = key.sign(cose.signed_bytes(protected, payload or b"", DESIRED_CONTEXT))
    return bytes([cose.TAG]) + cbor.encode([protected, unprotected, payload, signature])


def header(**changes: Any) -> bytes:
    values = {1: cose.EDDSA, 4: cose.key_id(KEY.public_key())} | {int(key[1:]): item for key, item in changes.items()}
    return cbor.encode({key: item for key, item in values.items() if item is not ...})


def test_public_example() -> None:
    data = bytes.fromhex(PUBLIC["signed"])
    message = cose.parse(data, max_bytes=len(data))
    assert message.header == {int(key): value for key, value in PUBLIC["protected"].items()}
    assert message.unprotected == {int(key): bytes.fromhex(value) for key, value in PUBLIC["unprotected"].items()}
    assert message.payload.hex() == PUBLIC["payload"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(PUBLIC["public_key"]))
    cose.verify(message, key)
    with pytest.raises(ForgedError):
        cose.verify(message, key, b"another context")
    with pytest.raises(MalformedError, match="headers"):  # true, and still not what we accept
        unseal(data, [key], b"", max_bytes=100)


@pytest.mark.parametrize("position", range(0, len(PUBLIC["signed"]) // 2, 5))
def test_public_example_with_one_bit_changed(position: int) -> None:
    data = bytearray.fromhex(PUBLIC["signed"])
    data[position] ^= 1
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(PUBLIC["public_key"]))
    try:
        message = cose.parse(bytes(data), max_bytes=200)
        cose.verify(message, key)
    except ProtocolError:
        return
    assert position in range(8, 13), "only the unprotected header may change unnoticed here; `unseal` refuses it"


@pytest.mark.parametrize(
    "vector", [item for item in OURS["messages"] if "signed" in item], ids=lambda item: item["name"]
)
def test_our_own_messages_keep_their_bytes(vector: dict[str, Any]) -> None:
    payload, context = bytes.fromhex(vector["hex"]), vector["context"].encode()
    assert cose.key_id(KEY.public_key()).hex() == OURS["kid"]
    assert seal(payload, KEY, context).hex() == vector["signed"]
    assert open_it(bytes.fromhex(vector["signed"]), context=context, max_bytes=1000) == payload


def test_there_and_back_with_one_of_several_keys() -> None:
    assert open_it(SEALED) == PAYLOAD
    assert open_it(SEALED, OTHER, KEY) == PAYLOAD
    assert len(SEALED) - len(PAYLOAD) <= cose.OVERHEAD_BYTES


def test_key_that_is_not_trusted() -> None:
    with pytest.raises(ForgedError, match="not trusted"):
        open_it(SEALED, OTHER)
    with pytest.raises(ForgedError):
        unseal(SEALED, [], DESIRED_CONTEXT, max_bytes=100)


def test_another_key_under_a_trusted_name() -> None:
    with pytest.raises(ForgedError, match="does not fit"):
        open_it(build(header(), {}, PAYLOAD, key=OTHER))


def test_signature_for_another_purpose() -> None:
    with pytest.raises(ForgedError):
        open_it(seal(PAYLOAD, KEY, COMMAND_CONTEXT))


@pytest.mark.parametrize("position", range(len(SEALED)))
def test_any_bit_changed(position: int) -> None:
    data = bytearray(SEALED)
    data[position] ^= 1
    with pytest.raises(ProtocolError):
        open_it(bytes(data))


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_truncated_anywhere(length: int) -> None:
    with pytest.raises(ProtocolError):
        open_it(SEALED[:length])


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("no tag", SEALED[1:]),
        ("tag of COSE_Mac0", b"\xd1" + SEALED[1:]),
        ("tag of COSE_Sign", b"\xd8\x62" + SEALED[1:]),
        ("something behind it", SEALED + b"\0"),
        ("another algorithm", build(header(_1=-7), {}, PAYLOAD)),
        ("algorithm as text", build(header(_1="EdDSA"), {}, PAYLOAD)),
        ("no algorithm", build(header(_1=...), {}, PAYLOAD)),
        ("algorithm outside the signature", build(header(_1=...), {1: -8}, PAYLOAD)),
        ("no key id", build(header(_4=...), {}, PAYLOAD)),
        ("key id outside the signature", build(header(_4=...), {4: cose.key_id(KEY.public_key())}, PAYLOAD)),
        ("key id of seven bytes", build(header(_4=bytes(7)), {}, PAYLOAD)),
        ("key id as text", build(header(_4="12345678"), {}, PAYLOAD)),
        ("a header more", build(header(_3=0), {}, PAYLOAD)),
        ("a critical header", build(header(_2=[4]), {}, PAYLOAD)),
        ("an unprotected header", build(header(), {9: 1}, PAYLOAD)),
        ("a header twice", build(header(), {1: -8}, PAYLOAD)),
        ("no protected header", build(b"", {}, PAYLOAD)),
        ("protected header is no map", build(cbor.encode([1]), {}, PAYLOAD)),
        ("detached payload", build(header(), {}, None)),
        ("payload as text", bytes([cose.TAG]) + cbor.encode([header(), {}, "text", bytes(64)])),
        ("three parts", bytes([cose.TAG]) + cbor.encode([header(), {}, PAYLOAD])),
        ("short signature", bytes([cose.TAG]) + cbor.encode([header(), {}, PAYLOAD, bytes(63)])),
        ("long signature", bytes([cose.TAG]) + cbor.encode([header(), {}, PAYLOAD, bytes(65)])),
        ("a map", bytes([cose.TAG]) + cbor.encode({0: 1})),
        ("nothing", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_message_of_another_form(what: str, data: bytes) -> None:
    with pytest.raises((MalformedError, OversizeError)):
        open_it(data)


def test_largest_payload_and_one_byte_more() -> None:
    assert open_it(seal(bytes(300), KEY, DESIRED_CONTEXT), max_bytes=300) == bytes(300)
    with pytest.raises(OversizeError):
        open_it(seal(bytes(301), KEY, DESIRED_CONTEXT), max_bytes=300)
    with pytest.raises(OversizeError):
        open_it(bytes(300 + cose.OVERHEAD_BYTES + 1), max_bytes=300)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: SEALED[:20] + tail))
def test_arbitrary_bytes_never_do_more_than_be_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_it(data)


def pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def test_public_keys_from_a_file() -> None:
    two = cose.load_public_keys(pem(KEY) + pem(OTHER))
    assert [key.public_bytes_raw() for key in two] == [key.public_key().public_bytes_raw() for key in (KEY, OTHER)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"text " + pem(KEY),
        pem(KEY)[:40],
        pem(ec.derive_private_key(7, ec.SECP256R1())),
        pem(KEY) * (cose.MAX_KEYS + 1),
        pem(KEY) + bytes(cose.MAX_PUBLIC_KEY_BYTES),
    ],
)
def test_not_a_file_of_public_keys(data: bytes) -> None:
    with pytest.raises((MalformedError, OversizeError)):
        cose.load_public_keys(data)
