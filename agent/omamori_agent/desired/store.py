"""What is remembered on the data partition: the document in force, the highest version, commands already done.

* ``document.cose``: the document as it was signed, so that its signature is checked again at each start.
* ``state.json``: the highest version ever accepted, and what was refused last.
* ``commands.json``: ids of commands that have not expired yet.

Whatever moment the power is cut at, each file is the old or the new one; the highest version is the larger of what the
first two say. A file that cannot be read is put aside as ``*.bad``; what the others say still counts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from omamori_agent.errors import SetupError, TransientError
from omamori_agent.files import read_bounded, sync_directory, write_atomic
from omamori_agent.text import clean_text
from omamori_protocol.command import COMMAND_ID_BYTES
from omamori_protocol.cose import OVERHEAD_BYTES
from omamori_protocol.desired import DesiredState
from omamori_protocol.reported import MAX_REASON_LENGTH

from .errors import DocumentRefusedError
from .verify import open_document

logger = logging.getLogger(__name__)

FORMAT = 1
STATE_NAME = "state.json"
_MAX_STATE_BYTES = 4096
_MAX_COMMANDS_BYTES = 16384
_MAX_VERSION = 2**32 - 1
_U64 = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The document that was refused last: its hash, its version if that may be believed, and why."""

    digest: bytes
    version: int | None
    reason: str


@dataclasses.dataclass(frozen=True)
class RememberedCommands:
    """Commands that were done, with their expiry; `newest_s` is the latest time at which one was accepted."""

    seen: tuple[tuple[bytes, int], ...] = ()
    newest_s: int = 0


@dataclasses.dataclass(frozen=True)
class InForce:
    """The document that rules the box, with the bytes that prove it."""

    document: DesiredState
    signed: bytes


class DesiredStore:
    """Files below one directory; one thread uses it.

    Args:
        directory: Where they are; it exists.
    """

    def __init__(self, directory: Path) -> None:
        self._document_path = directory / "document.cose"
        self._state_path = directory / STATE_NAME
        self._commands_path = directory / "commands.json"
        self._floor = 0
        self._refusal: Refusal | None = None
        self._commands = RememberedCommands()

    @property
    def floor(self) -> int:
        """Highest version ever accepted."""
        return self._floor

    @property
    def refusal(self) -> Refusal | None:
        """What was refused last, until a document is accepted."""
        return self._refusal

    @property
    def commands(self) -> RememberedCommands:
        """Commands that were done."""
        return self._commands

    def load(self, keys: Sequence[Ed25519PublicKey], device: str) -> InForce | None:
        """Read everything; return the document in force, if there is one and its signature is right."""
        self._load_state()
        self._load_commands()
        try:
            signed = read_bounded(self._document_path, DesiredState.MAX_BYTES + OVERHEAD_BYTES)
            document = open_document(signed, keys, device)
        except FileNotFoundError:
            return None
        except (SetupError, DocumentRefusedError) as err:
            logger.warning("the stored document cannot be used: %s", err)
            _put_aside(self._document_path)
            return None
        self._floor = max(self._floor, document.version)
        return InForce(document, signed)

    def accept(self, document: DesiredState, signed: bytes) -> InForce:
        """Make a document the one in force, durably.

        Raises:
            TransientError: It could not be written; the one before is still in force.
        """
        try:
            write_atomic(self._document_path, signed, mode=0o600)  # it holds the Wi-Fi passphrase
        except OSError as err:
            raise TransientError(f"desired state cannot be kept: {err.strerror or err}") from err
        self._floor = max(self._floor, document.version)
        self._refusal = None
        self._save_state()
        return InForce(document, signed)

    def remember_refusal(self, refusal: Refusal) -> None:
        """Remember what was refused last, so that it is told once."""
        self._refusal = refusal
        self._save_state()

    def remember_commands(self, commands: RememberedCommands) -> None:
        """Replace the memory of commands, durably.

        Raises:
            TransientError: It could not be written; nothing changed.
        """
        body = {
            "format": FORMAT,
            "newest_s": commands.newest_s,
            "seen": [[number.hex(), expires_s] for number, expires_s in commands.seen],
        }
        try:
            write_atomic(self._commands_path, _encode(body), mode=0o600)
        except OSError as err:
            raise TransientError(f"the command cannot be remembered: {err.strerror or err}") from err
        self._commands = commands

    def _save_state(self) -> None:
        refusal = self._refusal
        body = {
            "format": FORMAT,
            "floor": self._floor,
            "refused": None
            if refusal is None
            else {"digest": refusal.digest.hex(), "version": refusal.version, "reason": refusal.reason},
        }
        try:
            write_atomic(self._state_path, _encode(body), mode=0o600)
        except OSError as err:
            logger.warning("state of the desired state not saved: %s", err)  # the document carries the version, too

    def _load_state(self) -> None:
        try:
            body = json.loads(read_bounded(self._state_path, _MAX_STATE_BYTES))
            self._floor, self._refusal = _parse_state(body)
        except FileNotFoundError:
            return
        except (SetupError, ValueError, KeyError, TypeError, RecursionError) as err:
            logger.warning("%s is not usable: %s", self._state_path, clean_text(str(err), 120))
            _put_aside(self._state_path)

    def _load_commands(self) -> None:
        try:
            body = json.loads(read_bounded(self._commands_path, _MAX_COMMANDS_BYTES))
            self._commands = _parse_commands(body)
        except FileNotFoundError:
            return
        except (SetupError, ValueError, KeyError, TypeError, RecursionError) as err:
            logger.warning("%s is not usable: %s", self._commands_path, clean_text(str(err), 120))
            _put_aside(self._commands_path)


def _encode(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _number(value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise ValueError("not a number in its bounds")
    return value


def _parse_state(body: Any) -> tuple[int, Refusal | None]:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError("unknown format")
    refused = body["refused"]
    refusal = None
    if refused is not None:
        version = refused["version"]
        refusal = Refusal(
            bytes.fromhex(refused["digest"]),
            None if version is None else _number(version, _MAX_VERSION),
            clean_text(str(refused["reason"]), MAX_REASON_LENGTH),
        )
    return _number(body["floor"], _MAX_VERSION), refusal


def _parse_commands(body: Any) -> RememberedCommands:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError("unknown format")
    seen = []
    for number, expires_s in body["seen"]:
        identifier = bytes.fromhex(number)
        if len(identifier) != COMMAND_ID_BYTES:
            raise ValueError("not a command's id")
        seen.append((identifier, _number(expires_s, _U64)))
    return RememberedCommands(tuple(seen), _number(body["newest_s"], _U64))


def _put_aside(path: Path) -> None:
    """Keep a damaged file for those who look into it; a later one replaces it."""
    try:
        path.replace(path.with_name(path.name + ".bad"))
        sync_directory(path.parent)
    except OSError as err:
        logger.warning("%s not put aside: %s", path, err)
