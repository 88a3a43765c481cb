"""What can still be read of a database that was set aside as corrupt.

Best effort and bounded: it walks over the rows it can reach, jumps over the pages it cannot, and believes nothing but
events whose check sum is right and that can be decoded.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from omamori_protocol.errors import ProtocolError
from omamori_protocol.messages import Event

from .spool_lanes import is_sound

logger = logging.getLogger(__name__)

_MAX_JUMPS = 2000  # over damaged places
_MAX_STEP = 64  # rows; a page of small events holds about as many
_BUSY_S = 0.1


def readable_events(path: Path, maximum: int) -> Iterator[tuple[int, bytes]]:
    """Return severity and body of up to `maximum` waiting events of a damaged file, oldest first; never raises."""
    try:
        database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    except sqlite3.Error as err:
        logger.warning("nothing can be read of %s: %s", path.name, err)
        return
    try:
        yield from _walk(database, maximum)
    finally:
        database.close()


def _walk(database: sqlite3.Connection, maximum: int) -> Iterator[tuple[int, bytes]]:
    last, step, found = 0, 1, 0
    for _ in range(_MAX_JUMPS):
        try:
            query = "SELECT id, severity, body, check_sum FROM event WHERE id > ? AND confirmed IS NOT 1 ORDER BY id"
            for position, severity, body, check_sum in database.execute(query, (last,)):
                if not isinstance(position, int) or position <= last:
                    break  # a damaged tree may lead in circles
                last, step = position, 1
                if _is_event(severity, body, check_sum):
                    found += 1
                    yield severity, body
                    if found >= maximum:
                        return
            else:
                return
        except (sqlite3.Error, OverflowError) as err:
            logger.debug("damaged behind event %d: %s", last, err)
        last, step = last + step, min(_MAX_STEP, step * 2)


def _is_event(severity: object, body: object, check_sum: object) -> bool:
    if not isinstance(severity, int) or not isinstance(body, bytes) or not isinstance(check_sum, int):
        return False
    try:
        event = Event.decode(body)
    except ProtocolError:
        return False
    return event.severity == severity and is_sound(severity, body, check_sum)
