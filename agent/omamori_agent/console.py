"""The few lines that an installer sees on the serial console, and the tests wait for.

One event is one line with the fixed prefix. The console may be absent or stuck; that costs the line, nothing else.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

from .text import clean_text

logger = logging.getLogger(__name__)

PREFIX = "omamori: "
_MAX_LINE_LENGTH = 300


class ConsoleReporter:
    """Writes lines to the console.

    Args:
        path: The console's device; when it cannot be opened, standard output takes its place (the unit connects it
            to the console, because the agent's user may not open the device itself).
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as err:
            logger.debug("%s: %s; lines go to standard output", path, err)
            self._descriptor = sys.stdout.fileno()

    def line(self, text: str) -> None:
        """Write one line."""
        text = clean_text(text, _MAX_LINE_LENGTH)
        logger.info("console: %s", text)
        with self._lock:
            try:
                os.write(self._descriptor, f"{PREFIX}{text}\n".encode())
            except OSError as err:
                logger.debug("console does not take a line: %s", err)
