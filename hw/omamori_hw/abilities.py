"""What software may ask of a board, as narrow protocols.

Rules:
- An ability is present or absent; callers get `None` for an absent one and never a stand-in that pretends.
- Methods do one thing and raise `HardwareError` when the hardware refused.
"""

from dataclasses import dataclass
from typing import Protocol


class WireRelay(Protocol):
    """A relay that joins the two sides of the wire when the box cannot forward."""

    def is_bypassing(self) -> bool:
        """Say whether the relay joins the wires past the box."""

    def set_bypass(self, *, bypass: bool) -> None:
        """Join the wires past the box, or lead them through it."""


class Watchdog(Protocol):
    """A timer that restarts the machine unless it is fed."""

    def feed(self) -> None:
        """Start the time-out again."""

    def timeout_s(self) -> int:
        """Return the seconds after which an unfed watchdog restarts the machine."""


class Leds(Protocol):
    """Lamps on the front, by name."""

    def names(self) -> tuple[str, ...]:
        """Return the names of the lamps this board has."""

    def show(self, name: str, *, lit: bool) -> None:
        """Light a lamp or put it out."""


class Nics(Protocol):
    """The network ports and their roles."""

    def roles(self) -> dict[str, str]:
        """Return interface name to role (`wan` or `lan`)."""

    def has_carrier(self, interface: str) -> bool:
        """Say whether the port sees a link."""


class Thermal(Protocol):
    """Temperatures of the board."""

    def temperatures_c(self) -> dict[str, float]:
        """Return sensor name to degrees Celsius."""


@dataclass(frozen=True)
class PowerEvent:
    """Something that happened to the supply.

    Attributes:
        serial: Grows with each event, so that one is not taken for two.
        kind: `cold`, `dip`, `short-pull`, `long-pull` or `brown-out`.
        outage_ms: How long the supply was away; 0 where nobody could measure it.
    """

    serial: int
    kind: str
    outage_ms: int


class Power(Protocol):
    """The supply of the box, and what may be done to it."""

    def last_event(self) -> PowerEvent | None:
        """Return what last happened to the supply; None when that is not known yet."""

    def announce_restart(self, *, quiet_s: int, update: bool) -> None:
        """Say that the box restarts, so that its silence is not taken for a failure."""

    def cycle(self) -> None:
        """Have the box reset from outside."""
