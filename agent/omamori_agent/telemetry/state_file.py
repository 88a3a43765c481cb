"""What the supervisor has told omamori-herald: a file in memory, on boards that have a supervisor.

The herald is root's and puts whole files at their place by renaming; still nothing of them is believed that is not
exactly as it writes them. A file that is refused is counted by its reason, and is as good as a supervisor that does not
answer. A board without a supervisor has no such file, or one in which nobody has ever answered.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from omamori_agent.files import read_foreign
from omamori_protocol.vocabulary import PowerKind

logger = logging.getLogger(__name__)

MAX_BYTES = 2048  # the herald's own buffer
MAX_CHIP_LENGTH = 64  # as on the line between them
FORMAT = 1
STALE_S = 30.0  # the herald writes every two seconds while the supervisor answers

_U32 = 2**32 - 1
_U64 = 2**64 - 1
_SAID = frozenset({"nothing", "starting", "forwarding"})
# Known only once the supervisor has told: null before that.
_TOLD = {
    "state": (0, 6),
    "through": (0, 1),
    "cause": (0, 9),
    "moves": (0, _U32),
    "resets": (0, 255),
    "code": (0, 9999),
    "good": (0, _U32),
    "damaged": (0, _U32),
    "lost": (0, _U32),
    "unknown": (0, _U32),
    "uptime_s": (0, _U32),
    "slowest_ms": (0, _U32),
    "chip_restarts": (0, 65535),
    "celsius": (-128, 127),
    "millivolts": (0, 65535),
    "past_s": (0, _U32),
}
_COUNTED = ("line_good", "line_damaged", "line_unknown")
_KEYS = frozenset({"version", "is_up", "said", "chip", "lease_ms", "power", *_TOLD, *_COUNTED})
_POWER_KEYS = frozenset({"serial", "kind", "outage_ms"})


class Refusal(StrEnum):
    """Why a file was not believed."""

    UNREADABLE = "unreadable"
    OVERSIZE = "oversize"
    MALFORMED = "malformed"
    STALE = "stale"


class RefusedStateError(ValueError):
    """The file is not believed; `reason` says why."""

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(f"{reason}: {detail}"[:200])
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerEvent:
    """The last thing that happened to the box's power: the supervisor's number of it, what it was, how long it took."""

    serial: int
    kind: PowerKind
    outage_ms: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisorFile:
    """What stands in the file; None is "not told yet".

    Attributes:
        is_up: The supervisor answers now.
        chip: Its firmware's version.
        lease_ms: How long one report keeps the wire.
        power: The last power event.
        through: The wire leads through the box.
        moves: Of the relay, since the supervisor's start.
        resets: Of the box, in a row.
        restarts: Of the supervisor itself, with its memory kept.
        uptime_s: Since the supervisor's start.
        celsius: Its temperature in degrees.
        millivolts: The box's main rail.
        past_s: Seconds since the supervisor's start in which the wire led past the box.
    """

    is_up: bool
    chip: str | None
    lease_ms: int
    power: PowerEvent | None
    through: bool | None
    moves: int | None
    resets: int | None
    restarts: int | None
    uptime_s: int | None
    celsius: int | None
    millivolts: int | None
    past_s: int | None


def parse(data: bytes) -> SupervisorFile:
    """Read the file's bytes.

    Raises:
        RefusedStateError: They are too many, or not as the herald writes them.
    """
    if len(data) > MAX_BYTES:
        raise RefusedStateError(Refusal.OVERSIZE, f"more than {MAX_BYTES} bytes")
    try:
        body = json.loads(data, object_pairs_hook=_object)
    except (ValueError, RecursionError) as err:
        raise _malformed(str(err)) from err
    if not isinstance(body, dict) or set(body) != _KEYS:
        raise _malformed("other keys than the herald's")
    if _whole(body, "version", 0, _U32) != FORMAT or type(body["is_up"]) is not bool or body["said"] not in _SAID:
        raise _malformed("not a state of this version")
    chip, told = body["chip"], {name: _maybe(body, name, *bounds) for name, bounds in _TOLD.items()}
    if chip is not None and (not isinstance(chip, str) or len(chip) > MAX_CHIP_LENGTH or not _is_version(chip)):
        raise _malformed("chip is no version")
    for name in _COUNTED:
        _whole(body, name, 0, _U64)
    power = _power(body["power"])
    return SupervisorFile(
        is_up=body["is_up"],
        chip=chip,
        lease_ms=_whole(body, "lease_ms", 0, 65535),
        power=None if chip is None else power,
        through=None if told["through"] is None else bool(told["through"]),
        restarts=told["chip_restarts"],
        **{name: told[name] for name in ("moves", "resets", "uptime_s", "celsius", "millivolts", "past_s")},
    )


def _power(body: Any) -> PowerEvent:
    if not isinstance(body, dict) or set(body) != _POWER_KEYS:
        raise _malformed("power has other keys than the herald's")
    kinds = {kind.word: kind for kind in PowerKind}
    kind = kinds.get(body["kind"]) if isinstance(body["kind"], str) else None
    if kind is None:
        raise _malformed("no such kind of power event")
    return PowerEvent(serial=_whole(body, "serial", 0, 65535), kind=kind, outage_ms=_whole(body, "outage_ms", 0, _U32))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key twice")
    return body


def _is_version(text: str) -> bool:
    return text.isascii() and all(letter.isalnum() or letter in ".-+" for letter in text)


def _whole(body: dict[str, Any], name: str, minimum: int, maximum: int) -> int:
    value = body[name]
    if type(value) is not int or not minimum <= value <= maximum:
        raise _malformed(f"{name} is no number from {minimum} to {maximum}")
    return value


def _maybe(body: dict[str, Any], name: str, minimum: int, maximum: int) -> int | None:
    return None if body[name] is None else _whole(body, name, minimum, maximum)


def _malformed(detail: str) -> RefusedStateError:
    return RefusedStateError(Refusal.MALFORMED, detail)


class StateReader:
    """Reads the file, again and again; used by one thread.

    How old it is, is told by how long it has not changed: the box's clock may jump, by years at its first start.

    Args:
        path: The herald's file.
        monotonic: Returns seconds since some fixed moment.

    Attributes:
        refused: How many files were refused, by reason.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        self._path = path
        self._monotonic = monotonic
        self.refused: Counter[Refusal] = Counter()
        self._mark: tuple[int, int] | None = None  # inode and time of change
        self._changed_s = 0.0
        self._complained: Refusal | None = None

    def read(self) -> SupervisorFile | None:
        """Return what the supervisor told last; None on a board without one, or while it has never answered.

        Raises:
            RefusedStateError: There is a file that is not believed.
        """
        try:
            found = self._read()
        except RefusedStateError as err:
            self.refused[err.reason] += 1
            if err.reason is not self._complained:
                logger.warning("%s: %s (%d so far)", self._path, err, self.refused[err.reason])
            self._complained = err.reason
            raise
        self._complained = None
        return None if found is None or found.chip is None else found

    def _read(self) -> SupervisorFile | None:
        try:
            status = self._path.lstat()
            data = read_foreign(self._path, MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as err:
            raise RefusedStateError(Refusal.UNREADABLE, str(err)) from err
        found = parse(data)
        mark, now_s = (status.st_ino, status.st_mtime_ns), self._monotonic()
        if mark != self._mark:
            self._mark, self._changed_s = mark, now_s
        if found.is_up and now_s - self._changed_s > STALE_S:
            raise RefusedStateError(Refusal.STALE, f"unchanged for {now_s - self._changed_s:.0f} s")
        return found
