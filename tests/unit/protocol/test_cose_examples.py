"""The public examples of COSE_Sign1: our signed bytes are those that others signed, and no message of theirs is ours.

Theirs are by ES256 and Ed448, which the product does not have; the signatures are checked here with the library, over
the bytes that the product's own functions make.
"""

import json
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from omamori_protocol import cbor, cose
from omamori_protocol.errors import ProtocolError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "cose-sign1.json").read_text(encoding="utf-8"))


class Algorithm(IntEnum):
    """Numbers in the header."""

    EDDSA = cose.EDDSA
    ES256 = -7


def taken_apart(data: bytes) -> list[Any]:
    """Return the four parts, with or without the tag."""
    parts = cbor.decode(data[1:] if data[0] == cose.TAG else data, max_bytes=len(data))
    assert isinstance(parts, list)
    return parts


def is_signed(example: dict[str, Any]) -> bool:
    """Tell whether the signature fits, by the algorithm that the message names."""
    protected, unprotected, payload, signature = taken_apart(bytes.fromhex(example["signed"]))
    header = cbor.decode(protected, max_bytes=len(protected))
    assert isinstance(header, dict)
    # An empty header is signed as no bytes at all (RFC 9052, section 4.4), however it was sent.
    data = cose.signed_bytes(protected if header else b"", payload, bytes.fromhex(example["external"]))
    assert (data.hex() == example["to_be_signed"]) is example["good"]
    try:
        match {**unprotected, **header}.get(cose.ALGORITHM):
            case Algorithm.EDDSA:
                Ed448PublicKey.from_public_bytes(bytes.fromhex(VECTORS["ed448"])).verify(signature, data)
            case Algorithm.ES256:
                point = bytes.fromhex(VECTORS["p256"])
                key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
                pair = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                key.verify(encode_dss_signature(*pair), data, ec.ECDSA(hashes.SHA256()))
            case _:
                return False
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(
    "example", [item for item in VECTORS["examples"] if item["name"] != "sign-fail-01"], ids=lambda item: item["name"]
)
def test_signed_bytes_are_those_that_others_sign(example: dict[str, Any]) -> None:
    assert is_signed(example) is example["good"]


@pytest.mark.parametrize("example", VECTORS["examples"], ids=lambda item: item["name"])
def test_none_of_them_is_a_message_of_ours(example: dict[str, Any]) -> None:
    data, key = bytes.fromhex(example["signed"]), Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    with pytest.raises(ProtocolError):
        cose.parse(data, max_bytes=len(data))
    with pytest.raises(ProtocolError):
        cose.unseal(data, [key], bytes.fromhex(example["external"]), max_bytes=len(data))
