"""What became of the desired state: a box's answer, retained on its `reported` topic.

It tells reasons, never settings: no passphrase, no address of a terminal is in it.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .command import COMMAND_ID_BYTES
from .record import Choice, Nested, Octets, Record, Several, Text, UInt, wire
from .vocabulary import WireEnum

MAX_REASON_LENGTH = 200
_U64 = 2**63 - 1


class PartName(WireEnum):
    """A part of the desired state."""

    WIFI = 1
    ADDRESS = 2
    POLICY = 3
    EXEMPTIONS = 4
    FIRMWARE = 5
    FEED = 6


class PartState(WireEnum):
    """How far a part, or the document, or a command, has come.

    PENDING is tried again by the box itself, or waits for a proof. REFUSED keeps what was before.
    """

    NONE = 0
    APPLIED = 1
    REFUSED = 2
    PENDING = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartReport(Record):
    """What became of one part; `reason` says why it is not applied."""

    part: PartName = wire(1, Choice(PartName))
    state: PartState = wire(2, Choice(PartState))
    reason: str | None = wire(3, Text(MAX_REASON_LENGTH), default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reported(Record):
    """A box's state of its settings.

    `version` is that of the accepted document (0: none yet), `state` the worst of its parts. A document that was
    refused as a whole changed nothing and is only told: `refused_reason`, and `refused_version` if its signature was
    right. The last command is told by its id. `bypass_until_s` (Unix time) is set while a command or the button lets
    everything pass.
    """

    MAX_BYTES: ClassVar[int] = 2048

    at_s: int = wire(1, UInt(_U64))
    version: int = wire(2, UInt())
    state: PartState = wire(3, Choice(PartState))
    parts: tuple[PartReport, ...] = wire(4, Several(Nested(PartReport), len(PartName)), default=())
    refused_version: int | None = wire(5, UInt(), default=None)
    refused_reason: str | None = wire(6, Text(MAX_REASON_LENGTH), default=None)
    command_id: bytes | None = wire(7, Octets(COMMAND_ID_BYTES), default=None)
    command_state: PartState | None = wire(8, Choice(PartState), default=None)
    command_reason: str | None = wire(9, Text(MAX_REASON_LENGTH), default=None)
    bypass_until_s: int | None = wire(10, UInt(_U64), default=None)
