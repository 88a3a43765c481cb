"""How the box's run before this one ended: in an orderly way, or not; and what it had trouble with at the time.

A small record on the data partition is open while the agent runs and closed when it is stopped in an orderly way. A
start of the kernel that finds it open knows that the run before ended in the middle: the hardware watchdog leaves a
trace; what leaves none was most likely the power. It is a hint for whoever looks at outages, so that nothing here ever
stops the agent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from pathlib import Path

from omamori_protocol.trouble import MAX_CODE
from omamori_protocol.vocabulary import RunEnd

from .errors import SetupError
from .files import read_bounded, write_atomic

logger = logging.getLogger(__name__)

FORMAT = 1
MAX_BYTES = 512
_KEYS = {"format", "boot_id", "is_closed", "last_end", "trouble"}
_CARD_RESET = 0x20  # WDIOF_CARDRESET (linux/watchdog.h): the watchdog's timer ran out before this start
_MAX_ENTRIES = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What the file holds; `last_end` is how the run before this one ended, `trouble` a code or 0."""

    boot_id: str
    is_closed: bool
    last_end: RunEnd
    trouble: int

    def encode(self) -> bytes:
        """Return the file's bytes."""
        return (json.dumps({"format": FORMAT, **dataclasses.asdict(self)}) + "\n").encode()


def parse_record(data: bytes) -> RunRecord:
    """Read the file's bytes.

    Raises:
        ValueError: It is no such record.
    """
    body = json.loads(data)
    if not isinstance(body, dict) or set(body) != _KEYS or body["format"] != FORMAT:
        raise ValueError("not the record of a run")
    boot_id, is_closed, trouble = body["boot_id"], body["is_closed"], body["trouble"]
    if not isinstance(boot_id, str) or len(boot_id) > 64 or type(is_closed) is not bool:
        raise ValueError("not the record of a run")
    if type(trouble) is not int or not 0 <= trouble <= MAX_CODE or type(body["last_end"]) is not int:
        raise ValueError("not the record of a run")
    return RunRecord(boot_id=boot_id, is_closed=is_closed, last_end=RunEnd(body["last_end"]), trouble=trouble)


def judge_end(before: RunRecord | None, *, boot_id: str, watchdog_fired: bool) -> RunEnd:
    """Return how the kernel's run before this one ended.

    Args:
        before: The record as it was found.
        boot_id: The kernel's name of this run.
        watchdog_fired: Whether the watchdog says that it restarted the machine.
    """
    if before is not None and before.boot_id == boot_id:
        return before.last_end  # only the agent restarted
    if before is not None and before.is_closed:
        return RunEnd.ORDERLY
    if watchdog_fired:
        return RunEnd.WATCHDOG
    return RunEnd.UNKNOWN if before is None else RunEnd.ABRUPT


class LastRun:
    """The record, used by one thread at a time.

    Args:
        path: The file.
        boot_id: The kernel's name of this run.
        watchdogs: The kernel's directory of watchdogs.
    """

    def __init__(self, path: Path, *, boot_id: str, watchdogs: Path) -> None:
        self._path = path
        before = self._read()
        self.end = judge_end(
            before,
            boot_id=boot_id,
            watchdog_fired=_watchdog_fired(watchdogs),
        )
        # What was wrong when the run before ended; of the run itself only if the agent alone restarted.
        self.trouble = 0 if before is None else before.trouble
        self._record = RunRecord(boot_id=boot_id, is_closed=False, last_end=self.end, trouble=self.trouble)
        self._write()

    def note_trouble(self, code: int) -> None:
        """Remember what is wrong while nobody can be told; 0 when it is over."""
        if code != self._record.trouble:
            self._record = dataclasses.replace(self._record, trouble=code)
            self._write()

    def close(self) -> None:
        """Say that the agent ends in an orderly way."""
        self._record = dataclasses.replace(self._record, is_closed=True)
        self._write()

    def _read(self) -> RunRecord | None:
        try:
            return parse_record(read_bounded(self._path, MAX_BYTES))
        except FileNotFoundError:
            return None
        except (SetupError, ValueError, RecursionError) as err:
            logger.warning("how the run before ended is not known: %s", str(err)[:120])
            return None

    def _write(self) -> None:
        try:
            write_atomic(self._path, self._record.encode())
        except OSError as err:
            logger.warning("the record of this run is not written: %s", err)


def _watchdog_fired(watchdogs: Path) -> bool:
    for path in sorted(watchdogs.glob("watchdog*/bootstatus"))[:_MAX_ENTRIES]:
        with contextlib.suppress(OSError, SetupError, ValueError):
            if int(read_bounded(path, 32)) & _CARD_RESET:
                return True
    return False
