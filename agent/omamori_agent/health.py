"""Says on the console whether the box protects, and what became of a feed.

The box protects when its wire and its engine do: the bridge is there with the gate's maps, the engine inspects, and
a feed is loaded. Each time this becomes true again there is a line; so is there for every change of the feed.
This worker reads only; it repairs nothing and is not asked by anybody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from omamori_protocol.vocabulary import EngineState, FeedState

from . import vitals
from .config import AgentConfig, Paths
from .status import Status, StatusBoard

logger = logging.getLogger(__name__)

_GATE_MAP = "config"


def is_wire_present(paths: Paths) -> bool:
    """Tell whether the bridge forwards with the gate in place."""
    try:
        return paths.bridge.exists() and (paths.bpf / _GATE_MAP).exists()
    except OSError as err:
        logger.debug("cannot ask about the wire: %s", err)
        return False


def is_protecting(status: Status, *, wire: bool) -> bool:
    """Tell whether traffic is inspected against a feed. Serial 0 is the image's empty one and does not count."""
    return wire and status.engine is EngineState.INSPECTING and status.feed_serial > 0


def feed_line(status: Status) -> str | None:
    """Return the console's line about the feed, or None while nothing is known about any."""
    if status.feed_state is FeedState.NONE:
        return None
    return f"feed serial={status.feed_serial} state={status.feed_state.word} reason={status.feed_reason or '-'}"


class HealthWorker:
    """`ports.Worker` behind the console's `protecting` and `feed` lines.

    Args:
        config: Paths and interval.
        status: What the other workers know.
        report: Writes one line.
        has_wire: Asks the kernel about the wire.
    """

    name = "health"

    def __init__(
        self,
        *,
        config: AgentConfig,
        status: StatusBoard,
        report: Callable[[str], None],
        has_wire: Callable[[Paths], bool] = is_wire_present,
    ) -> None:
        self._config = config
        self._status = status
        self._report = report
        self._has_wire = has_wire
        self._changed = threading.Event()
        self._protecting = False
        self._feed_line: str | None = None
        status.subscribe(lambda _status: self._changed.set())

    def run(self, stop: threading.Event) -> None:
        """Look at every change, and every second at what tells nobody that it changed."""
        while not stop.is_set():
            self.step()
            self._changed.wait(self._config.health_s)
            self._changed.clear()

    def step(self) -> None:
        """Look once and report what changed."""
        status = self._status.get()
        line = feed_line(status)
        if line is not None and line != self._feed_line:
            self._report(line)
        self._feed_line = line
        protecting = is_protecting(status, wire=self._has_wire(self._config.paths))
        if protecting and not self._protecting:
            uptime_s = vitals.uptime_s(self._config.paths.proc)
            self._report(f"protecting feed={status.feed_serial} uptime={uptime_s}")
        elif self._protecting and not protecting:
            logger.warning("not protecting: engine %s, feed %d", status.engine.word, status.feed_serial)
        self._protecting = protecting
