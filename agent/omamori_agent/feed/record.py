"""The little that must be remembered about feeds: what is being changed, what to keep, what never to try again.

Which feed is active is not in here: the `current` link says that. Written before each step that cannot be undone.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.text import clean_text

logger = logging.getLogger(__name__)

FORMAT = 1
MAX_QUARANTINED = 64
MAX_REASON_LENGTH = 200
_MAX_BYTES = 64 * 1024
_MAX_SERIAL = 2**31 - 1
_MAX_TIME_S = 2**40


@dataclasses.dataclass(frozen=True)
class Transition:
    """A change that has begun: the engine holds `origin`, `goal`, or something between.

    With `is_unclear` it may also hold something older: the change before had not ended when this one began.
    """

    origin: int
    goal: int
    is_unclear: bool = False


@dataclasses.dataclass(frozen=True)
class Record:
    """Content of ``state.json``.

    Attributes:
        previous: Serial that was active before the current one, kept for going back.
        transition: A change that has begun and not ended.
        quarantined: Serials that were refused for good, and why; the oldest are forgotten first.
        activated_s: When the current feed was activated, Unix time; 0 if that is not known.
    """

    previous: int | None = None
    transition: Transition | None = None
    quarantined: tuple[tuple[int, str], ...] = ()
    activated_s: int = 0

    def quarantine_reason(self, serial: int) -> str | None:
        """Return why a serial was refused for good, or None if it was not."""
        return dict(self.quarantined).get(serial)

    def with_quarantined(self, serial: int, reason: str) -> Record:
        """Return the record with one serial more that is never tried again."""
        others = [item for item in self.quarantined if item[0] != serial]
        kept = [*others, (serial, clean_text(reason, MAX_REASON_LENGTH))][-MAX_QUARANTINED:]
        return dataclasses.replace(self, quarantined=tuple(kept))


def save_record(path: Path, record: Record) -> None:
    """Write the record, all or nothing."""
    body = {"format": FORMAT, **dataclasses.asdict(record)}
    write_atomic(path, (json.dumps(body, sort_keys=True, separators=(",", ":")) + "\n").encode())


def load_record(path: Path) -> Record:
    """Read the record. One that cannot be understood counts as none: it costs a repeated test, never protection."""
    try:
        body = json.loads(read_bounded(path, _MAX_BYTES))
        return _parse(body)
    except FileNotFoundError:
        return Record()
    except (SetupError, ValueError, KeyError, TypeError, RecursionError) as err:
        logger.warning("%s is not usable: %s", path, clean_text(str(err), 120))
        return Record()


def _serial(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_SERIAL:
        raise ValueError("not a serial")
    return value


def _time(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_TIME_S:
        raise ValueError("not a time")
    return value


def _transition(body: Any) -> Transition:
    if type(body["is_unclear"]) is not bool:
        raise ValueError("not a transition")
    return Transition(_serial(body["origin"]), _serial(body["goal"]), body["is_unclear"])


def _parse(body: Any) -> Record:
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError("unknown format")
    transition = body["transition"]
    previous = body["previous"]
    return Record(
        previous=None if previous is None else _serial(previous),
        transition=None if transition is None else _transition(transition),
        quarantined=tuple(
            (_serial(serial), clean_text(str(reason), MAX_REASON_LENGTH))
            for serial, reason in body["quarantined"][-MAX_QUARANTINED:]
        ),
        activated_s=_time(body.get("activated_s", 0)),  # records of older versions have none
    )
