"""Makes what a box last said about a firmware update ready to be read."""

from __future__ import annotations

import dataclasses

from omamori_cloud.facts import FirmwareFacts
from omamori_cloud.harmless import harmless
from omamori_cloud.wording import Wording
from omamori_protocol.vocabulary import FirmwareReason, FirmwareState

from .alert_view import TimeView, view_time

_TONES = {
    FirmwareState.COMMITTED: "ok",
    FirmwareState.FAILED: "danger",
    FirmwareState.ROLLED_BACK: "danger",
    FirmwareState.IDLE: "",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirmwareView:
    """An update; `tone` as for figures, `technical` is the box's own explanation or empty."""

    version: str
    state: str
    tone: str
    reason: str
    technical: str
    running: str
    reported: TimeView


def view_firmware(update: FirmwareFacts, *, now_ms: int, words: Wording) -> FirmwareView:
    """Return the update in `words`."""
    text = words.firmware
    running = ""
    if update.running and update.slot is not None:
        running = text.running.format(version=harmless(update.running, limit=32), slot=update.slot.name)
    return FirmwareView(
        version=text.version.format(version=harmless(update.version, limit=32)),
        state=text.states[update.state],
        tone=_TONES.get(update.state, "notice"),
        reason="" if update.reason is FirmwareReason.NONE else text.reasons[update.reason],
        technical=harmless(update.detail or "", limit=200),
        running=running,
        reported=view_time(update.occurred_ms, now_ms, words),
    )
