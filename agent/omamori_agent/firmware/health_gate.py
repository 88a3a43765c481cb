"""Whether a firmware on trial may stay. The rules are pure; the probes below ask the box.

Everything has to be well at the same time and stay so for a while: ports forward and the gate is there, the engine
inspects and notices the canary, the data partition can be written, the identity can be read, and the broker is reached
if it was reached before the restart. What is not well when time is over, is the reason. A box that cannot ask the
canary (no address, no feed) is not judged by it.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import os
import threading
from pathlib import Path

from omamori_agent.config import Paths
from omamori_agent.errors import SetupError, TransientError
from omamori_agent.feed.canary import Canary
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.health import is_wire_present
from omamori_agent.identity.store import CERTIFICATE_NAME, KEY_NAME
from omamori_agent.status import StatusBoard
from omamori_protocol.vocabulary import EngineState, FirmwareReason

logger = logging.getLogger(__name__)

_FORWARDING = "3"
_MAX_PORTS = 64
_MAX_IDENTITY_BYTES = 65536


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """What the probes found; `canary` is None when it cannot be asked."""

    forwards: bool
    inspects: bool
    canary: bool | None
    data_is_writable: bool
    has_identity: bool
    is_connected: bool

    def problem(self, *, needs_cloud: bool) -> FirmwareReason:
        """Return the first thing that is not well, or NONE."""
        checks = (
            (self.forwards, FirmwareReason.WIRE_DOWN),
            (self.data_is_writable, FirmwareReason.DATA_NOT_WRITABLE),
            (self.inspects, FirmwareReason.ENGINE_DOWN),
            (self.canary is not False, FirmwareReason.CANARY_UNSEEN),
            (self.has_identity, FirmwareReason.NO_IDENTITY),
            (self.is_connected or not needs_cloud, FirmwareReason.CLOUD_LOST),
        )
        return next((reason for is_well, reason in checks if not is_well), FirmwareReason.NONE)


class Verdict(enum.Enum):
    """What is to become of the trial."""

    UNDECIDED = "undecided"
    KEEP = "keep"
    GIVE_UP = "give up"


class HealthGate:
    """Judges one trial.

    Args:
        settle_s: Everything has to be well for so many seconds.
        deadline_s: Seconds since power-on at which it has to be.
        needs_cloud: Whether the broker has to be reached.
    """

    def __init__(self, *, settle_s: float, deadline_s: float, needs_cloud: bool) -> None:
        self._settle_s = settle_s
        self._deadline_s = deadline_s
        self._needs_cloud = needs_cloud
        self._well_since_s: float | None = None
        self.problem = FirmwareReason.NONE

    def look(self, health: Health, boottime_s: float) -> Verdict:
        """Take one look at the box, at so many seconds since power-on."""
        self.problem = health.problem(needs_cloud=self._needs_cloud)
        if self.problem is FirmwareReason.NONE:
            if self._well_since_s is None:
                self._well_since_s = boottime_s
            if boottime_s - self._well_since_s >= self._settle_s:
                return Verdict.KEEP
            return Verdict.UNDECIDED  # it is about to be well: the slots' service has its own, later deadline
        self._well_since_s = None
        return Verdict.GIVE_UP if boottime_s >= self._deadline_s else Verdict.UNDECIDED


class BoxProbes:
    """Asks the box how it is.

    Args:
        paths: Where things are.
        status: What the other workers know.
        canary: Asks the engine; None for a box without.
    """

    def __init__(self, paths: Paths, status: StatusBoard, canary: Canary | None) -> None:
        self._paths = paths
        self._status = status
        self._canary = canary

    def look(self, stop: threading.Event, *, had_identity: bool) -> Health:
        """Ask everything once; seconds at most."""
        status = self._status.get()
        forwards = is_wire_present(self._paths) and ports_forward(self._paths.bridge)
        inspects = status.engine is EngineState.INSPECTING
        return Health(
            forwards=forwards,
            inspects=inspects,
            canary=self._is_noticed(stop) if forwards and inspects and status.feed_serial else None,
            data_is_writable=is_writable(self._paths.firmware),
            has_identity=has_identity(self._paths.identity) or not had_identity,
            is_connected=status.connected,
        )

    def _is_noticed(self, stop: threading.Event) -> bool | None:
        if self._canary is None:
            return None
        try:
            return self._canary.is_noticed(self._paths.feed_current / "engine", stop)
        except TransientError as err:
            logger.debug("canary: %s", err)
            return False


def ports_forward(bridge: Path) -> bool:
    """Tell whether every port of the bridge that has a cable forwards, and there are two ports at least."""
    try:
        ports = [path for path, _ in zip(sorted((bridge / "brif").iterdir()), range(_MAX_PORTS), strict=False)]
    except OSError as err:
        logger.debug("ports of the bridge: %s", err)
        return False
    return len(ports) >= 2 and all(_word(port / "state") == _FORWARDING for port in ports if _has_cable(port))


def _has_cable(port: Path) -> bool:
    return _word(port.parent.parent.parent / port.name / "carrier") == "1"


def _word(path: Path) -> str:
    try:
        return read_bounded(path, 64).decode("ascii", "replace").strip()
    except (FileNotFoundError, SetupError):
        return ""


def is_writable(directory: Path) -> bool:
    """Tell whether a file can be written here durably, and read back."""
    path = directory / "probe"
    word = os.urandom(16)
    try:
        write_atomic(path, word)
        is_same = read_bounded(path, 64) == word
        path.unlink()
    except (OSError, SetupError) as err:
        logger.warning("data partition: %s", err)
        return False
    return is_same


def has_identity(directory: Path) -> bool:
    """Tell whether key and certificate are there and can be read."""
    try:
        return all(read_bounded(directory / name, _MAX_IDENTITY_BYTES) for name in (KEY_NAME, CERTIFICATE_NAME))
    except (FileNotFoundError, SetupError):
        return False
