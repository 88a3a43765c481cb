"""Collects what the operator may know about a box when something is wrong with it: the content of its diagnostics.

What is in it is listed here, and nothing else is: versions, states, counters, the agent's own last lines of log.
Nothing of what passes through the box, no secret: the log has none, and files that hold some are not read. What cannot
be read is missing or says so; collecting never fails.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omamori_protocol.diagnostics import compress
from omamori_protocol.errors import OversizeError

from .config import Paths
from .errors import SetupError
from .files import read_bounded
from .report import box_report
from .status import Status
from .text import clean_text

FORMAT = 1
MAX_LINES = 300
_MAX_LINE_LENGTH = 300
_MAX_FILE_BYTES = 16 * 1024
_MAX_PORTS = 16
_MEMORY = ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Shmem", "Slab", "SwapTotal", "SwapFree")
_COUNTERS = ("rx_packets", "rx_bytes", "rx_errors", "rx_dropped", "tx_packets", "tx_bytes", "tx_errors", "tx_dropped")
_LINK = ("carrier", "carrier_changes", "speed", "duplex", "mtu")


class LogLines(logging.Handler):
    """Keeps the last lines of the agent's log in memory."""

    def __init__(self) -> None:
        """Begin with none; INFO and above is kept."""
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=MAX_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        try:
            text = f"{when} {record.levelname} {record.threadName}: {record.getMessage()}"
        except (TypeError, ValueError):
            self.handleError(record)
            return
        self._lines.append(clean_text(text, _MAX_LINE_LENGTH))

    def lines(self) -> list[str]:
        """Return what is kept, the oldest first."""
        return list(self._lines)


def collect(paths: Paths, status: Status, lines: Sequence[str]) -> dict[str, Any]:
    """Return everything that is told, as values of JSON.

    Args:
        paths: Where the box's files are.
        status: What the agent's workers know.
        lines: The last lines of log.
    """
    return {
        "format": FORMAT,
        "box": box_report(paths),
        "status": {
            "engine": status.engine.word,
            "feed_serial": status.feed_serial,
            "feed_state": status.feed_state.word,
            "feed_reason": status.feed_reason,
            "connected": status.connected,
            "uninspected_s": round(status.uninspected_s),
            "passed_by_s": round(status.passed_by_s),
        },
        "trouble": _json(paths.trouble),
        "boot": _json(paths.boot_facts),
        "supervisor": _json(paths.supervisor),
        "kernel": {
            "version": _text(paths.proc / "version"),
            "uptime_s": _text(paths.proc / "uptime").partition(".")[0],
        },
        "load": _text(paths.proc / "loadavg"),
        "memory_kib": _memory(paths.proc),
        "disk": {name: _disk(path) for name, path in (("data", paths.state), ("run", paths.run))},
        "ports": _ports(paths.interfaces),
        "log": list(lines),
    }


def pack(content: dict[str, Any]) -> bytes:
    """Return the content as it travels; if it is too long, without the oldest lines of log.

    Raises:
        OversizeError: It is too long without any line.
    """
    lines: list[str] = content["log"]
    while True:
        try:
            return compress({**content, "log": lines})
        except OversizeError:
            if not lines:
                raise
            lines = lines[len(lines) // 2 + 1 :]


def _text(path: Path) -> str:
    try:
        text = read_bounded(path, _MAX_FILE_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, SetupError):
        return ""
    return clean_text(text.strip(), _MAX_LINE_LENGTH)


def _json(path: Path) -> Any:
    try:
        return json.loads(read_bounded(path, _MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except (SetupError, ValueError, RecursionError) as err:
        return {"error": clean_text(str(err), _MAX_LINE_LENGTH)}


def _memory(proc: Path) -> dict[str, int]:
    try:
        text = read_bounded(proc / "meminfo", _MAX_FILE_BYTES).decode("ascii", "replace")
    except (FileNotFoundError, SetupError):
        return {}
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if name in _MEMORY and number and number[0].isdecimal():
            found[name] = int(number[0])
    return found


def _disk(path: Path) -> dict[str, int] | None:
    try:
        facts = os.statvfs(path)
    except OSError:
        return None
    return {"free_kib": facts.f_bavail * facts.f_frsize // 1024, "size_kib": facts.f_blocks * facts.f_frsize // 1024}


def _ports(interfaces: Path) -> dict[str, dict[str, str]]:
    try:
        names = sorted(path.name for path in interfaces.iterdir() if (path / "brport").exists())[:_MAX_PORTS]
    except OSError:
        return {}
    return {
        name: {item: _text(interfaces / name / item) for item in _LINK}
        | {item: _text(interfaces / name / "statistics" / item) for item in _COUNTERS}
        for name in names
    }
