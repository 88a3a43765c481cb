"""The slots of the box: write the other one, try it, keep it. A narrow port, and RAUC behind it.

RAUC is asked over D-Bus by `busctl`, a process for each question: that costs nothing while no update is going on, which
is nearly always. RAUC's service runs as root and is started by the first question; what it may do for us, the bus'
policy says. It verifies the bundle's signature itself, writes only the slot that does not run, and activates nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from omamori_agent import run as process
from omamori_agent.text import clean_text
from omamori_protocol.vocabulary import FirmwareReason

from .errors import UpdateInterruptedError, UpdateRefusedError, UpdateWaitsError
from .limits import FirmwareLimits

_BUS = ("de.pengutronix.rauc", "/", "de.pengutronix.rauc.Installer")
_IDLE = "idle"
_MAX_TEXT = 160
# What RAUC 1.13 says of a bundle that it will never take, whatever is tried …
_REFUSING = (
    "signature",  # verification failed, is no CMS, is larger than the bundle
    "mismatch",  # another board's, or below the image's own version
    "not allowed",  # a format that is checked only while it is written
    "too small",  # a bundle of a few bytes; a slot for its image
    "multiple of 4kib",
    "invalid",
    "manifest",
    "rejected",
)
# … unless that was only because the disk or the memory failed it.
_FAILING = (
    "input/output error",
    "no space left",
    "read-only file system",
    "cannot allocate memory",
    "too many open files",
    "resource temporarily unavailable",
    "no such file",
)


def is_refusal(error: str) -> bool:
    """Tell whether RAUC's last error is about the bundle, and not about what it had to work with."""
    text = error.lower()
    return any(word in text for word in _REFUSING) and not any(word in text for word in _FAILING)


class SlotInstaller(Protocol):
    """Writes and switches slots. Every call raises `UpdateWaitsError` when it cannot be done now."""

    def install(self, bundle: Path, stop: threading.Event) -> None:
        """Write a bundle into the slot that does not run; nothing is activated.

        Raises:
            UpdateRefusedError: It is not one of ours, not for this box, or too old.
            UpdateInterruptedError: The agent stops; the writing may go on without it.
        """

    def activate(self) -> None:
        """Let the next start of the box be a trial of the other slot; the one after that is this one again."""

    def deactivate(self) -> None:
        """Let the next start be this slot, after all."""

    def commit(self) -> None:
        """Keep the slot that runs."""

    def reject(self) -> None:
        """Give up the slot that runs on trial; the next start is the other one."""


class RAUCInstaller:
    """`SlotInstaller` over RAUC's D-Bus service.

    Args:
        limits: Times.
        address: D-Bus address; None for the system's bus. A parameter for tests.
        run: Starts `busctl`; a parameter for tests.
    """

    def __init__(
        self,
        limits: FirmwareLimits,
        *,
        address: str | None = None,
        run: Callable[[Sequence[str]], process.CommandResult] | None = None,
    ) -> None:
        self._limits = limits
        self._base = ["busctl", "--json=short", f"--timeout={int(limits.call_timeout_s)}"]
        self._base.append("--system" if address is None else f"--address={address}")
        self._run = run or (lambda line: process.run(line, timeout_s=limits.call_timeout_s + 10))

    def install(self, bundle: Path, stop: threading.Event) -> None:
        """See `SlotInstaller.install`."""
        until_s = time.monotonic() + self._limits.install_timeout_s
        self._wait_until_idle(until_s, stop)  # an earlier run of the agent may have begun one
        self._call("InstallBundle", "sa{sv}", str(bundle), "0")
        self._wait_until_idle(until_s, stop)
        error = self._property("LastError")
        if error:
            text = clean_text(error, _MAX_TEXT)
            if is_refusal(error):
                raise UpdateRefusedError(FirmwareReason.BUNDLE_REFUSED, f"RAUC: {text}")
            raise UpdateWaitsError(FirmwareReason.INSTALL_FAILED, f"RAUC: {text}")

    def activate(self) -> None:
        """See `SlotInstaller.activate`."""
        self._mark("active", "other")

    def deactivate(self) -> None:
        """See `SlotInstaller.deactivate`."""
        self._mark("active", "booted")

    def commit(self) -> None:
        """See `SlotInstaller.commit`."""
        self._mark("good", "booted")

    def reject(self) -> None:
        """See `SlotInstaller.reject`."""
        self._mark("bad", "booted")

    def _mark(self, state: str, slot: str) -> None:
        try:
            self._call("Mark", "ss", state, slot)
        except UpdateWaitsError as err:
            raise UpdateWaitsError(FirmwareReason.ACTIVATION_FAILED, f"mark {state} {slot}: {err}") from err

    def _wait_until_idle(self, until_s: float, stop: threading.Event) -> None:
        while self._property("Operation") != _IDLE:
            if time.monotonic() >= until_s:
                raise UpdateWaitsError(FirmwareReason.INSTALL_FAILED, "RAUC did not come to an end in time")
            if stop.wait(self._limits.install_poll_s):
                raise UpdateInterruptedError("the agent is stopping")

    def _property(self, name: str) -> str:
        value = self._ask("get-property", *_BUS, name)
        if not isinstance(value, str):
            raise UpdateWaitsError(FirmwareReason.INSTALL_FAILED, f"RAUC's {name} is no text")
        return value

    def _call(self, method: str, *arguments: str) -> None:
        self._ask("call", *_BUS, method, *arguments)

    def _ask(self, *words: str) -> Any:
        try:
            result = self._run([*self._base, *words])
        except process.CommandError as err:
            raise UpdateWaitsError(FirmwareReason.INSTALL_FAILED, f"RAUC: {err}") from err
        text = result.output.strip()
        if result.exit_code != 0:
            raise UpdateWaitsError(FirmwareReason.INSTALL_FAILED, f"RAUC: {clean_text(text, _MAX_TEXT)}")
        if not text:
            return None
        try:
            return json.loads(text)["data"]
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            text = clean_text(text, _MAX_TEXT)
            raise UpdateWaitsError(FirmwareReason.INSTALL_FAILED, f"RAUC's answer is not understood: {text}") from err
