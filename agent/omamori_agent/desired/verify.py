"""Decides whether a document or a command may be believed. Rules only: no disk, no network, no clock of its own.

A document is accepted when a trusted key signed it for this purpose, it is for this box, newer than every one before,
not expired, and keeps every rule of its schema. What is in force stays in force after its expiry: the expiry bounds
for how long the document may be *delivered*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from omamori_protocol import cose
from omamori_protocol.command import Command
from omamori_protocol.desired import DesiredState
from omamori_protocol.errors import ProtocolError

from .errors import CommandRefusedError, DocumentRefusedError

_SIGNATURE = "not signed by a trusted key for this purpose"
_MAX_FUTURE_S = 24 * 3600.0


def digest(data: bytes) -> bytes:
    """Return the hash by which a delivered message is known again."""
    return hashlib.sha256(data).digest()


def open_document(data: bytes, keys: Sequence[Ed25519PublicKey], device: str) -> DesiredState:
    """Return the document in `data` if it is ours and well formed, whatever its version.

    Raises:
        DocumentRefusedError: It is not.
    """
    try:
        payload = cose.unseal(data, keys, cose.DESIRED_CONTEXT, max_bytes=DesiredState.MAX_BYTES)
    except cose.ForgedError as err:
        raise DocumentRefusedError(_SIGNATURE) from err
    except ProtocolError as err:
        raise DocumentRefusedError(str(err)) from err
    try:
        document = DesiredState.decode(payload)
    except ProtocolError as err:
        raise DocumentRefusedError(str(err)) from err
    if document.device != device:
        raise DocumentRefusedError(f"it is for {document.device}")  # no version: it is not one of ours
    return document


def judge_document(document: DesiredState, *, floor: int, now_s: float) -> None:
    """Raise `DocumentRefusedError` unless the document is newer than `floor` and not expired.

    Args:
        document: What `open_document` returned.
        floor: Highest version accepted so far.
        now_s: Unix time.
    """
    version = document.version
    if version < floor:
        raise DocumentRefusedError(f"version {version} is older than {floor}, which was accepted", version=version)
    if version == floor:
        raise DocumentRefusedError(f"version {version} was accepted with another content", version=version)
    if now_s >= document.expires_s:
        raise DocumentRefusedError(f"version {version} has expired", version=version)


def open_command(data: bytes, keys: Sequence[Ed25519PublicKey], device: str, *, now_s: float) -> Command:
    """Return the command in `data` if it may be done as far as can be told without knowing earlier ones.

    Raises:
        CommandRefusedError: It must not be done.
    """
    try:
        payload = cose.unseal(data, keys, cose.COMMAND_CONTEXT, max_bytes=Command.MAX_BYTES)
    except cose.ForgedError as err:
        raise CommandRefusedError(_SIGNATURE) from err
    except ProtocolError as err:
        raise CommandRefusedError(str(err)) from err
    try:
        command = Command.decode(payload)
    except ProtocolError as err:
        raise CommandRefusedError(str(err)) from err
    if command.device != device:
        raise CommandRefusedError(f"it is for {command.device}")
    if now_s >= command.expires_s:
        raise CommandRefusedError("it has expired", command_id=command.command_id)
    if command.issued_s > now_s + _MAX_FUTURE_S:
        raise CommandRefusedError("it is of the future", command_id=command.command_id)
    return command
