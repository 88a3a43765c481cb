"""Which power event is a new one, and which one began this run of the box. Rules only: no clock, no file.

The supervisor numbers its power events, and tells the last one. Its numbers begin anew when it has been without supply
itself; then its own time begins anew as well, and not by one of the restarts that it counts. What was seen is kept over
restarts of agent and box, so that every event is told once.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from omamori_protocol.vocabulary import PowerKind

from .state_file import PowerEvent

MAX_LENGTH = 512
FORMAT = 1
_KEEP_AFTER_S = 600
_KEYS = frozenset({"format", "boot_id", "event", "uptime_s", "restarts", "beginning"})
_U32 = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen last.

    Attributes:
        boot_id: The kernel's name of the run in which.
        event: The power event.
        uptime_s: The supervisor's own time.
        restarts: How often it had restarted itself.
        beginning: The power event that began this run of the box; None if the power had stayed.
    """

    boot_id: str
    event: PowerEvent
    uptime_s: int
    restarts: int
    beginning: PowerEvent | None

    def encode(self) -> str:
        """Return it as text of at most `MAX_LENGTH` characters."""
        body = {
            "format": FORMAT,
            "boot_id": self.boot_id[:64],
            "event": _values(self.event),
            "uptime_s": self.uptime_s,
            "restarts": self.restarts,
            "beginning": None if self.beginning is None else _values(self.beginning),
        }
        return json.dumps(body, separators=(",", ":"))


def decode(text: str) -> Seen:
    """Read what `Seen.encode` wrote.

    Raises:
        ValueError: It is something else.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"more than {MAX_LENGTH} characters")
    try:
        body = json.loads(text)
        if not isinstance(body, dict) or set(body) != _KEYS or body["format"] != FORMAT:
            raise ValueError("other keys")
        if not isinstance(body["boot_id"], str) or len(body["boot_id"]) > 64:
            raise ValueError("boot_id")
        return Seen(
            boot_id=body["boot_id"],
            event=_event(body["event"]),
            uptime_s=_whole(body["uptime_s"]),
            restarts=_whole(body["restarts"]),
            beginning=None if body["beginning"] is None else _event(body["beginning"]),
        )
    except (TypeError, KeyError, RecursionError) as err:
        raise ValueError(f"not what was seen of the power: {err}") from err


def look(before: Seen | None, *, boot_id: str, event: PowerEvent, uptime_s: int, restarts: int) -> tuple[Seen, bool]:
    """Return what is seen now, and whether the power event is a new one.

    Args:
        before: What was seen last; None if nothing ever was.
        boot_id: The kernel's name of this run.
        event: The last power event by the supervisor's word.
        uptime_s: The supervisor's own time.
        restarts: How often it has restarted itself.
    """
    is_new = (
        before is None or event != before.event or (uptime_s < before.uptime_s and restarts <= before.restarts)
    ) and event.kind is not PowerKind.NONE
    beginning = event if is_new else None
    if before is not None and before.boot_id == boot_id:
        beginning = before.beginning
    return Seen(boot_id=boot_id, event=event, uptime_s=uptime_s, restarts=restarts, beginning=beginning), is_new


def must_keep(kept: Seen, now: Seen) -> bool:
    """Tell whether the supervisor's time has gone on so far that it should be kept, though nothing happened.

    Early, so that a supply that soon goes away again is noticed; then every ten minutes, for the disk's sake.
    """
    if (kept.boot_id, kept.restarts, kept.beginning) != (now.boot_id, now.restarts, now.beginning):
        return True
    grown_s = now.uptime_s - kept.uptime_s
    return grown_s < 0 or grown_s >= min(60 + kept.uptime_s, _KEEP_AFTER_S)


def _values(event: PowerEvent) -> list[int]:
    return [event.serial, int(event.kind), event.outage_ms]


def _event(row: Any) -> PowerEvent:
    if not isinstance(row, list) or len(row) != 3:
        raise ValueError("not a power event")
    serial, kind, outage_ms = (_whole(value) for value in row)
    return PowerEvent(serial=serial, kind=PowerKind(kind), outage_ms=outage_ms)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _U32:
        raise ValueError("not a number")
    return value
