"""TUF metadata as values: made, signed, checked. No file, no clock.

python-tuf's Metadata API does the work; this module holds what is ours: the shape of the delegations, compact JSON,
and errors of our own family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypeVar

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Role,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONDeserializer, JSONSerializer

from .errors import SetupError
from .roles import DELEGATED, ROLES, TOP_LEVEL

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


def new_root(keys: Mapping[str, Key], expires: datetime) -> Root:
    """Return version 1 of the root: the top-level roles of the table with the keys named there."""
    roles = {name: Role([keys[key].keyid for key in ROLES[name].keys], ROLES[name].threshold) for name in TOP_LEVEL}
    used = {keys[key].keyid: keys[key] for name in TOP_LEVEL for key in ROLES[name].keys}
    return Root(version=1, expires=expires, keys=used, roles=roles, consistent_snapshot=True)


def new_targets(keys: Mapping[str, Key], expires: datetime) -> Targets:
    """Return version 1 of the top-level targets: no target of its own, the delegations of the table."""
    delegated = {
        name: DelegatedRole(
            name,
            [keys[key].keyid for key in ROLES[name].keys],
            ROLES[name].threshold,
            terminating=True,
            paths=list(ROLES[name].paths),
        )
        for name in DELEGATED
    }
    used = {keys[key].keyid: keys[key] for name in DELEGATED for key in ROLES[name].keys}
    return Targets(version=1, expires=expires, delegations=Delegations(used, delegated))


def sign(metadata: Metadata[S], signers: Iterable[CryptoSigner]) -> None:
    """Replace all signatures of `metadata`.

    Raises:
        SetupError: A key cannot sign.
    """
    metadata.signatures.clear()
    try:
        for signer in signers:
            metadata.sign(signer, append=True)
    except UnsignedMetadataError as err:
        raise SetupError(f"cannot sign {metadata.signed.type}: {err}") from err


def sign_all(metadata: Metadata[S], signers: Iterable[CryptoSigner]) -> None:
    """Replace all signatures of `metadata`; a key that comes twice signs once.

    Raises:
        SetupError: A key cannot sign.
    """
    sign(metadata, {signer.public_key.keyid: signer for signer in signers}.values())


def to_bytes(metadata: Metadata[S]) -> bytes:
    """Return the published form."""
    return metadata.to_bytes(JSONSerializer(compact=True, validate=True))


def parse(kind: type[S], data: bytes, what: str) -> Metadata[S]:
    """Read metadata of one kind; signatures are not looked at.

    Raises:
        SetupError: `what` is not such metadata.
    """
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data, JSONDeserializer())
    except DeserializationError as err:
        raise SetupError(f"{what} is not TUF metadata: {err}") from err
    if not isinstance(metadata.signed, kind):
        raise SetupError(f"{what} is {metadata.signed.type} metadata, expected {kind.type}")
    return metadata


def check_signed_by(parent: Root | Targets, role: str, metadata: Metadata[S]) -> None:
    """Check that enough keys which `parent` names for `role` have signed.

    Raises:
        SetupError: They have not: somebody else wrote this, and nothing of it may be signed again.
    """
    try:
        parent.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as err:
        raise SetupError(
            f"the published {role} metadata is not signed by this key directory",
            hint="wrong key directory, or the repository was changed by somebody else: restore it from a backup",
        ) from err


def is_expired(signed: Signed, now: datetime) -> bool:
    """Tell whether clients refuse `signed` at `now`."""
    return now >= signed.expires
