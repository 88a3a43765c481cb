"""Which words the page must have about firmware updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from omamori_protocol.vocabulary import FirmwareReason, FirmwareState


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirmwareWords:
    """How far an update is, and why it waits, failed or was undone; `running` has {version} and {slot}."""

    title: str
    lead: str
    none: str
    version: str  # {version}
    running: str  # {version}, {slot}
    since: str
    states: Mapping[FirmwareState, str]
    reasons: Mapping[FirmwareReason, str]
