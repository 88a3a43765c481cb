"""The Wi-Fi radio: whether the box has one, and whether a switch keeps it silent.

A look into sysfs and nothing else; the radio is set up by omamori-radio.service and driven by hostapd.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_POLL_S = 0.2
_MAX_SWITCHES = 16


class Radio:
    """The radio whose interface the board names.

    Args:
        interface: Name of the interface, or None when the board never has one.
        directory: The kernel's list of interfaces, ``/sys/class/net``.
        wait_s: How long a radio may take to appear: its driver is loaded while the agent starts.
        sleep: Waits; a parameter for tests.
    """

    def __init__(
        self,
        interface: str | None,
        directory: Path,
        *,
        wait_s: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.interface = interface
        self._directory = directory
        self._wait_s = wait_s
        self._sleep = sleep

    def is_present(self) -> bool:
        """Whether the interface is there and is a radio's."""
        return self._hardware is not None and self._hardware.is_dir()

    def await_present(self) -> bool:
        """As `is_present`, after waiting for it a little."""
        waited_s = 0.0
        while self.interface is not None and not self.is_present() and waited_s < self._wait_s:
            self._sleep(_POLL_S)
            waited_s += _POLL_S
        return self.is_present()

    def is_switched_off(self) -> bool:
        """Whether a switch of the machine itself keeps the radio silent; software cannot change that."""
        if self._hardware is None:
            return False
        switches = sorted(self._hardware.glob("rfkill*/hard"))[:_MAX_SWITCHES]
        return any(_reads_one(path) for path in switches)

    @property
    def _hardware(self) -> Path | None:
        return None if self.interface is None else self._directory / self.interface / "phy80211"


def _reads_one(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2).strip() == b"1"
    except OSError:
        return False
