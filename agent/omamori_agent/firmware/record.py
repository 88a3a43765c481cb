"""What is remembered about the update under way: one small file, written before every step.

It is the box's intention, not the truth about slots; an older or newer agent may have written it (after a rollback the
old one reads what the new one wrote), so unknown keys are passed over.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from omamori_agent.text import clean_text
from omamori_protocol.errors import MalformedError
from omamori_protocol.firmware_version import check_firmware_version
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState

from .states import TRANSITIONS

FORMAT = 1
MAX_DETAIL_LENGTH = 200
MAX_REFUSED = 16
MAX_BYTES = 16 * 1024
_MAX_COUNT = 1_000_000
_MAX_SECONDS = 2**31
_MAX_BOOT_ID_LENGTH = 64


class StateError(Exception):
    """A step that the machine does not know: a mistake in our own code."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """A firmware that is not tried again."""

    version: str
    reason: FirmwareReason
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Content of ``state.json``.

    Attributes:
        state: How far it is.
        version: The firmware it is about; empty before the first.
        reason: Why it waits, failed or was rolled back.
        detail: More about it, one line.
        sha256: Of the whole bundle, hexadecimal; empty before that is known.
        length: Of the whole bundle in bytes.
        is_important: Whether the owner has no say.
        trials: How often it was started on trial.
        installs: How often RAUC was asked to write it.
        boot_id: Boot in which the state was reached.
        waited_s: Seconds it has waited for a window.
        was_connected: Whether the broker was reached before the restart.
        verdict: What the trial found before it restarted the box; NONE while it runs.
        is_told: Whether the cloud's event about this state is in the spool.
        refused: Firmwares that are not tried again; the oldest are forgotten first.
    """

    state: FirmwareState = FirmwareState.IDLE
    version: str = ""
    reason: FirmwareReason = FirmwareReason.NONE
    detail: str = ""
    sha256: str = ""
    length: int = 0
    is_important: bool = False
    trials: int = 0
    installs: int = 0
    boot_id: str = ""
    waited_s: int = 0
    was_connected: bool = False
    verdict: FirmwareReason = FirmwareReason.NONE
    is_told: bool = True
    refused: tuple[Refused, ...] = ()

    def move(self, state: FirmwareState, **changes: Any) -> Record:
        """Return the record in another state; reason and detail are dropped unless they are given.

        Raises:
            StateError: There is no such way.
        """
        if state is not self.state and state not in TRANSITIONS[self.state]:
            raise StateError(f"no way from {self.state.word} to {state.word}")
        values: dict[str, Any] = {"reason": FirmwareReason.NONE, "detail": ""} | changes
        return dataclasses.replace(self, state=state, **values)

    def refusal(self, version: str) -> Refused | None:
        """Return why a firmware is not tried again, or None."""
        return next((item for item in self.refused if item.version == version), None)

    def with_refused(self) -> Record:
        """Return the record with its own firmware among those that are not tried again."""
        others = [item for item in self.refused if item.version != self.version]
        mine = Refused(version=self.version, reason=self.reason, detail=self.detail)
        return dataclasses.replace(self, refused=tuple([*others, mine][-MAX_REFUSED:]))

    def to_json(self) -> bytes:
        """Return the file's content."""
        body = dataclasses.asdict(self) | {"format": FORMAT}
        return (json.dumps(body, sort_keys=True, separators=(",", ":")) + "\n").encode()


def parse_record(data: bytes) -> Record:
    """Read the file's content.

    Raises:
        ValueError: It is not a record.
    """
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise ValueError("unknown format")
        return Record(
            state=FirmwareState(_number(body["state"], 255)),
            version=_version(body["version"]),
            reason=_reason(body["reason"]),
            detail=_text(body["detail"], MAX_DETAIL_LENGTH),
            sha256=_digest(body["sha256"]),
            length=_number(body["length"], 2**40),
            is_important=_flag(body["is_important"]),
            trials=_number(body["trials"], _MAX_COUNT),
            installs=_number(body["installs"], _MAX_COUNT),
            boot_id=_text(body["boot_id"], _MAX_BOOT_ID_LENGTH),
            waited_s=_number(body["waited_s"], _MAX_SECONDS),
            was_connected=_flag(body["was_connected"]),
            verdict=_reason(body["verdict"]),
            is_told=_flag(body["is_told"]),
            refused=tuple(
                Refused(
                    version=_version(item["version"]),
                    reason=_reason(item["reason"]),
                    detail=_text(item["detail"], MAX_DETAIL_LENGTH),
                )
                for item in body["refused"][-MAX_REFUSED:]
            ),
        )
    except (KeyError, TypeError, RecursionError, MalformedError) as err:
        raise ValueError(str(err)) from err


def _number(value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise ValueError("not a number in its bounds")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


def _text(value: Any, maximum: int) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - whoever reads files expects this one
    return clean_text(value, maximum)


def _version(value: Any) -> str:
    return "" if value == "" else check_firmware_version(value)


def _digest(value: Any) -> str:
    if not isinstance(value, str) or (value and (len(value) != 64 or set(value) - set("0123456789abcdef"))):
        raise ValueError("not a digest")
    return value


def _reason(value: Any) -> FirmwareReason:
    try:
        return FirmwareReason(_number(value, 255))
    except ValueError:
        return FirmwareReason.NONE  # a newer agent's word
