"""The supervisor as board abilities; without one, what the board itself has.

`board_abilities` is the only place that asks whether there is a supervisor. Everybody else gets an ability or None.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from omamori_hw.abilities import Leds, Power, PowerEvent, Watchdog, WireRelay
from omamori_hw.board import Board
from omamori_hw.errors import HardwareError
from omamori_hw.supervisor.link import SupervisorLink
from omamori_hw.supervisor.messages import BoxState, PowerKind, Reason, Show

_SYSFS_LEDS = Path("/sys/class/leds")
_LED_BYTES = 32
_PASS_S = 3600
_RESULT_S = 600


class SupervisedRelay(WireRelay):
    """The wire relay behind the supervisor. A bypass lasts at most an hour and has to be renewed."""

    def __init__(self, link: SupervisorLink) -> None:
        """Use a link that was started."""
        self._link = link

    def is_bypassing(self) -> bool:
        """Ask the supervisor how the relay stands."""
        return not self._link.status().through

    def set_bypass(self, *, bypass: bool) -> None:
        """Join the wires past the box, or let the supervisor lead them through it again when it sees fit.

        Raises:
            RefusedError: The owner decided otherwise, with the button.
            NoAnswerError: The supervisor does not answer.
        """
        self._link.pass_by(_PASS_S if bypass else 0)


class SupervisedWatchdog(Watchdog):
    """The watch of the supervisor: fed by reports, which the link sends while this is fed.

    A caller that stops feeding stops the reports, and with them the lease on the wire.
    """

    def __init__(self, link: SupervisorLink, *, timeout_s: int = 5) -> None:
        """Use a link that was started.

        Args:
            link: The link.
            timeout_s: Seconds after which an unfed watchdog says that the box stops.
        """
        self._link = link
        self._timeout_s = timeout_s
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def feed(self) -> None:
        """Report that the box forwards, for the next `timeout_s` seconds."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._timeout_s, self._link.say, [BoxState.STARTING])
            self._timer.daemon = True
            self._timer.start()
            self._link.say(BoxState.FORWARDING)

    def timeout_s(self) -> int:
        """Return the seconds."""
        return self._timeout_s

    def close(self) -> None:
        """Feed no more; the reports say that the box stops."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._link.say(BoxState.STOPPING)


class SupervisedLeds(Leds):
    """What software may show on the supervisor's lamp; the six states it shows by itself."""

    def __init__(self, link: SupervisorLink) -> None:
        """Use a link that was started."""
        self._link = link

    def names(self) -> tuple[str, ...]:
        """Return the two results of an update."""
        return ("update-done", "update-taken-back")

    def show(self, name: str, *, lit: bool) -> None:
        """Show a result for ten minutes, or the state again."""
        if name not in self.names():
            raise HardwareError(f"there is no lamp {name!r}")
        chosen = Show.UPDATE_DONE if name == "update-done" else Show.UPDATE_TAKEN_BACK
        self._link.show(chosen if lit else Show.STATE, _RESULT_S)


class SupervisedPower(Power):
    """The supply as the supervisor sees it."""

    def __init__(self, link: SupervisorLink) -> None:
        """Use a link that was started."""
        self._link = link

    def last_event(self) -> PowerEvent | None:
        """Return what last happened to the supply; None before the supervisor introduced itself."""
        welcome = self._link.welcome
        if welcome is None or welcome.power is PowerKind.NONE:
            return None
        return PowerEvent(welcome.power_serial, welcome.power.name.lower().replace("_", "-"), welcome.outage_ms)

    def announce_restart(self, *, quiet_s: int, update: bool) -> None:
        """Say that the box restarts."""
        self._link.announce(Reason.UPDATE if update else Reason.REBOOT, quiet_s)

    def cycle(self) -> None:
        """Have the box reset."""
        self._link.reset_box()


class SysfsLeds(Leds):
    """Lamps that the kernel knows."""

    def __init__(self, directory: Path = _SYSFS_LEDS) -> None:
        """Remember where they are.

        Args:
            directory: The kernel's directory of lamps.
        """
        self._directory = directory

    def names(self) -> tuple[str, ...]:
        """Return the kernel's names."""
        return tuple(sorted(path.name for path in self._directory.glob("*") if (path / "brightness").exists()))

    def show(self, name: str, *, lit: bool) -> None:
        """Light a lamp as bright as it can, or put it out."""
        if name not in self.names():
            raise HardwareError(f"there is no lamp {name!r}")
        lamp = self._directory / name
        try:
            with (lamp / "max_brightness").open("rb") as stream:
                brightest = stream.read(_LED_BYTES).strip()
            (lamp / "brightness").write_bytes(brightest if lit else b"0")
        except OSError as err:
            raise HardwareError(f"the lamp {name!r} cannot be set ({err.strerror})") from err


@dataclass(frozen=True)
class BoardAbilities:
    """What a board offers; None for what it does not have.

    Attributes:
        relay: Only a supervisor holds a wire.
        watchdog: The supervisor's; the machine's own hardware watchdog belongs to the service manager.
        leds: The supervisor's lamp, or the kernel's lamps.
        power: Only a supervisor sees the plug.
    """

    relay: WireRelay | None
    watchdog: Watchdog | None
    leds: Leds | None
    power: Power | None


def board_abilities(board: Board, link: SupervisorLink | None, *, leds: Path = _SYSFS_LEDS) -> BoardAbilities:
    """Return the abilities of a board.

    Args:
        board: Its description.
        link: The link to its supervisor, started; None when there is none.
        leds: The kernel's directory of lamps.

    Raises:
        HardwareError: The board has a supervisor and no link was given, or the other way round.
    """
    chip = board.supervisor
    if (chip is None and link is not None) or (chip is not None and chip.presence == "always" and link is None):
        raise HardwareError(f"board {board.name} and the supervisor's link do not fit together")
    if link is not None:
        return BoardAbilities(
            SupervisedRelay(link), SupervisedWatchdog(link), SupervisedLeds(link), SupervisedPower(link)
        )
    own = SysfsLeds(leds)
    return BoardAbilities(None, None, own if own.names() else None, None)
