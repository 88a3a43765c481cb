"""What the supervisor has told omamori-herald of the wire; a file in memory, on boards that have one.

The herald is root's and writes whole files; still nothing of it is believed beyond its range.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from .errors import SetupError
from .files import read_bounded

logger = logging.getLogger(__name__)

MAX_BYTES = 4096
_MAX_SECONDS = 2**32 - 1


def read_past_s(path: Path) -> int | None:
    """Return for how many seconds the supervisor has led the wire past the box since its own start.

    Args:
        path: The herald's file.

    Returns:
        None without a supervisor, before it has told, and for what cannot be understood.
    """
    try:
        body = json.loads(read_bounded(path, MAX_BYTES))
    except FileNotFoundError:
        return None
    except (SetupError, ValueError, RecursionError) as err:
        logger.debug("%s: %s", path, err)
        return None
    past_s = body.get("past_s") if isinstance(body, dict) else None
    return past_s if type(past_s) is int and 0 <= past_s <= _MAX_SECONDS else None
