"""The box's supply: is it there, and what last happened to it. Pure."""

from supervisor.words import (
    DIP_MS,
    LONG_MS,
    POWER_BROWN_OUT,
    POWER_COLD,
    POWER_DIP,
    POWER_LONG,
    POWER_SHORT,
    RAIL_LOW_MV,
)

_LONGEST_MS = 0xFFFFFFFF


class Supply:
    """What the plug and the rail tell.

    Attributes:
        present: The box has its supply.
        kind: The last event.
        serial: Grows with each event.
        outage_ms: How long it took; 0 where nobody could measure it.
    """

    def __init__(self):
        """Begin with the supervisor's own start from nothing as the last event."""
        self.present = True
        self.kind = POWER_COLD
        self.serial = 1
        self.outage_ms = 0
        self._lost_at = 0
        self._low = False

    def begin(self, now, *, present):
        """Set what is found at the start."""
        self.present = present
        self._lost_at = now

    def lose(self, now):
        """The supply is gone."""
        self.present = False
        self._lost_at = now

    def gain(self, now):
        """The supply is back; return what it was."""
        self.present = True
        outage = now - self._lost_at
        self._happened(POWER_DIP if outage < DIP_MS else POWER_SHORT if outage < LONG_MS else POWER_LONG, outage)
        return self.kind

    def rail(self, millivolts):
        """Take the voltage of the main rail, None if unreadable; return whether a brown-out begins."""
        if millivolts is None:
            return False
        before, self._low = self._low, self.present and millivolts < RAIL_LOW_MV
        if self._low and not before:
            self._happened(POWER_BROWN_OUT, 0)
            return True
        return False

    def _happened(self, kind, outage):
        self.kind = kind
        self.serial = self.serial + 1 & 0xFFFF
        self.outage_ms = min(outage, _LONGEST_MS)
