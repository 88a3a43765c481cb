"""Commands: something a box shall do once, now.

A command travels inside a COSE_Sign1 message (`cose`, context `COMMAND_CONTEXT`) on the box's `cmd` topic. The verbs
are a closed list; none of them runs a program. The same command twice (`command_id`) is done once.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .device import check_device_id
from .errors import MalformedError
from .record import Checked, Choice, Octets, Record, Text, UInt, wire
from .vocabulary import WireEnum

MAX_LIFE_S = 24 * 3600
MAX_BYPASS_MINUTES = 24 * 60
MAX_IDENTIFY_MINUTES = 60
COMMAND_ID_BYTES = 8
_U64 = 2**63 - 1


class Verb(WireEnum):
    """What a box can be told to do.

    BYPASS: pass everything uninspected for `minutes`; 0 ends it now.
    IDENTIFY: blink the board's lamp for `minutes`, so that somebody beside the box knows which one it is; 0 ends it.
    REBOOT: restart in an orderly way at the `moment`.
    DIAGNOSTICS: tell about itself what helps to find out what is wrong (`diagnostics`).
    """

    BYPASS = 1
    IDENTIFY = 2
    REBOOT = 3
    DIAGNOSTICS = 4


class Moment(WireEnum):
    """When a box restarts.

    WINDOW: when the window opens that the box's desired state agrees on for firmware.
    NEVER: takes back a restart that waits.
    """

    NOW = 1
    WINDOW = 2
    NEVER = 3


def _check_device(value: str) -> None:
    check_device_id(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(Record):
    """One command. `asked_by` says who wanted it, for the record; times are Unix time in seconds."""

    MAX_BYTES: ClassVar[int] = 512
    STRICT: ClassVar[bool] = True

    device: str = wire(1, Checked(Text(32), _check_device))
    command_id: bytes = wire(2, Octets(COMMAND_ID_BYTES))
    verb: Verb = wire(3, Choice(Verb))
    issued_s: int = wire(4, UInt(_U64))
    expires_s: int = wire(5, UInt(_U64))
    minutes: int = wire(6, UInt(MAX_BYPASS_MINUTES), default=0)
    asked_by: str = wire(7, Text(64), default="")
    moment: Moment | None = wire(8, Choice(Moment), default=None)

    def check(self) -> None:
        """Check that the command does not live longer than a day, and has what its verb needs and nothing else."""
        if not 0 < self.expires_s - self.issued_s <= MAX_LIFE_S:
            raise MalformedError(f"a command expires within {MAX_LIFE_S} s after it is issued")
        if (self.verb is Verb.REBOOT) is not (self.moment is not None):
            raise MalformedError("a restart, and nothing else, has its moment")
        if self.verb in {Verb.REBOOT, Verb.DIAGNOSTICS} and self.minutes:
            raise MalformedError(f"{self.verb.word} has no minutes")
        if self.verb is Verb.IDENTIFY and self.minutes > MAX_IDENTIFY_MINUTES:
            raise MalformedError(f"{self.minutes} minutes of blinking are too many, at most {MAX_IDENTIFY_MINUTES}")
