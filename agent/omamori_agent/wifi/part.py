"""Wi-Fi as a part of the desired state: switching takes a while, so it has a thread of its own.

`apply` never waits: while the access point is being switched, the answer is "not there yet". An answer is given once;
the same settings given again are looked at again, which changes nothing when they are in force.
"""

from __future__ import annotations

import threading
from typing import Protocol

from omamori_agent.desired.errors import PendingError
from omamori_agent.errors import RejectedError, TransientError
from omamori_protocol.desired import WifiSettings
from omamori_protocol.reported import PartName

_WAKE_S = 0.5


class SwitchPort(Protocol):
    """What switches the access point."""

    def apply(self, settings: WifiSettings | None) -> None:
        """Make it so, or raise `RejectedError` (it is as before) or `TransientError` (asking again may help)."""


class WifiPart:
    """`desired.Part` of the access point; a `WifiWorker` does what it is asked for.

    Args:
        switch: Does it.
    """

    name = PartName.WIFI

    def __init__(self, switch: SwitchPort) -> None:
        self._switch = switch
        self._changed = threading.Condition()
        self._is_asked = False
        self._is_answered = False
        self._wanted: WifiSettings | None = None
        self._refusal: RejectedError | TransientError | None = None

    def apply(self, settings: WifiSettings | None) -> None:
        """Return when the settings are in force; until then raise.

        Raises:
            RejectedError: They cannot be used; the previous ones are in force.
            PendingError: Not yet.
            TransientError: It did not work this time.
        """
        with self._changed:
            if self._is_asked and self._is_answered and self._wanted == settings:
                self._is_asked = False
                if self._refusal is not None:
                    raise self._refusal
                return
            if not self._is_asked or self._wanted != settings:
                self._is_asked, self._is_answered, self._wanted = True, False, settings
                self._changed.notify_all()
        raise PendingError("the access point is being changed")

    def step(self, wait_s: float = 0.0) -> None:
        """Do what is asked, if anything is or comes in time."""
        with self._changed:
            if not self._is_due:
                self._changed.wait(wait_s)
            if not self._is_due:
                return
            settings = self._wanted
        refusal: RejectedError | TransientError | None = None
        try:
            self._switch.apply(settings)
        except (RejectedError, TransientError) as err:
            refusal = err
        except OSError as err:
            refusal = TransientError(f"access point: {err.strerror or err}")
        with self._changed:
            if self._wanted == settings:  # else somebody wants something else by now
                self._refusal, self._is_answered = refusal, True

    @property
    def _is_due(self) -> bool:
        return self._is_asked and not self._is_answered


class WifiWorker:
    """`ports.Worker` that does what the part is asked for; a switch that is under way may be left behind.

    Args:
        part: The part.
    """

    name = "wifi"

    def __init__(self, part: WifiPart) -> None:
        self._part = part

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`."""
        while not stop.is_set():
            self._part.step(_WAKE_S)
