"""Signs desired state and commands for one box, and remembers the version it was given.

The record lies beside the key: ``DIR/desired/published/<device>.cose``, the document as it was signed last. Whoever
signs for a box has to hold that record, or to give the version: a box takes only what is newer than what it has.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from omamori_protocol import cose
from omamori_protocol.command import COMMAND_ID_BYTES, Command, Moment, Verb
from omamori_protocol.desired import DesiredState
from omamori_protocol.device import check_device_id
from omamori_protocol.errors import ProtocolError

from .clock import Clock
from .errors import RejectedError, SetupError
from .files import PRIVATE_DIRECTORY, PRIVATE_FILE, exclusive, read_bounded, write_atomic
from .keys import KeyDirectory

MAX_VERSION = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Signed:
    """A document and its signed form."""

    document: DesiredState
    data: bytes


class DesiredDesk:
    """Signs for boxes.

    Args:
        keys: The key directory.
        clock: When documents are issued.
    """

    def __init__(self, keys: KeyDirectory, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._directory = keys.path / "desired" / "published"

    def sign(
        self, device: str, settings: Mapping[str, Any], *, lifetime: timedelta, version: int | None = None
    ) -> Signed:
        """Sign a document and remember it as the newest of its box.

        Args:
            device: The box.
            settings: Sections, from `settings_file.parse_settings`.
            lifetime: How long it may be delivered.
            version: Its version; None for the one after the newest that is on record.

        Raises:
            RejectedError: The version is not newer than what is on record, or the document breaks a rule.
            SetupError: There is no key, or the record is damaged.
        """
        check_device_id(device)
        self._directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        with exclusive(self._directory / ".lock"):
            last = self.newest(device)
            known = last.document.version if last is not None else 0
            number = known + 1 if version is None else version
            if not known < number <= MAX_VERSION:
                raise RejectedError(
                    f"version {number} is not newer than {known}, which {device} has been given",
                    hint="leave out --version",
                )
            now_s = int(self._clock().timestamp())
            document = DesiredState(
                device=device,
                version=number,
                issued_s=now_s,
                expires_s=now_s + int(lifetime.total_seconds()),
                **settings,
            )
            try:
                data = cose.seal(document.encode(), self._keys.desired_key(), cose.DESIRED_CONTEXT)
            except ProtocolError as err:
                raise RejectedError(str(err)) from err
            write_atomic(self._path(device), data, mode=PRIVATE_FILE)
        return Signed(document, data)

    def newest(self, device: str) -> Signed | None:
        """Return what was signed last for a box, or None.

        Raises:
            SetupError: The record is damaged, or of another key.
        """
        path = self._path(device)
        if not path.exists():
            return None
        return self.read(path)

    def everything(self) -> Iterator[Signed]:
        """Yield what was signed last for each box and may still be delivered.

        Raises:
            SetupError: A record is damaged, or of another key.
        """
        now_s = int(self._clock().timestamp())
        for path in sorted(self._directory.glob("*.cose")):
            signed = self.read(path)
            if signed.document.expires_s > now_s:
                yield signed

    def read(self, path: Path) -> Signed:
        """Return a signed document from a file, verified.

        Raises:
            SetupError: It cannot be read, or is not by our key.
        """
        data = read_bounded(path, DesiredState.MAX_BYTES + cose.OVERHEAD_BYTES)
        public = self._keys.desired_key().public_key()
        try:
            payload = cose.unseal(data, [public], cose.DESIRED_CONTEXT, max_bytes=DesiredState.MAX_BYTES)
            return Signed(DesiredState.decode(payload), data)
        except ProtocolError as err:
            raise SetupError(f"{path}: {err}") from err

    def bypass(self, device: str, minutes: int, *, asked_by: str, lifetime: timedelta) -> tuple[Command, bytes]:
        """Return a signed command that lets a box pass everything for so many minutes (0: no longer); see `command`."""
        return self.command(device, Verb.BYPASS, minutes=minutes, asked_by=asked_by, lifetime=lifetime)

    def command(
        self,
        device: str,
        verb: Verb,
        *,
        asked_by: str,
        lifetime: timedelta,
        minutes: int = 0,
        moment: Moment | None = None,
    ) -> tuple[Command, bytes]:
        """Return a command for a box, and its signed form.

        Args:
            device: The box.
            verb: What it shall do.
            asked_by: Who wants it, for the record.
            lifetime: How long it may be delivered.
            minutes: For how long, where the verb has that.
            moment: When, where the verb has that.

        Raises:
            RejectedError: The command breaks a rule.
            SetupError: There is no key.
        """
        now_s = int(self._clock().timestamp())
        command = Command(
            device=device,
            command_id=secrets.token_bytes(COMMAND_ID_BYTES),
            verb=verb,
            issued_s=now_s,
            expires_s=now_s + int(lifetime.total_seconds()),
            minutes=minutes,
            asked_by=asked_by,
            moment=moment,
        )
        try:
            return command, cose.seal(command.encode(), self._keys.desired_key(), cose.COMMAND_CONTEXT)
        except ProtocolError as err:
            raise RejectedError(str(err)) from err

    def _path(self, device: str) -> Path:
        return self._directory / f"{check_device_id(device)}.cose"
