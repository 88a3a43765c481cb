"""Telling systemd how we are: a datagram to the socket it names. Does nothing when there is no such socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from .text import clean_text

_MAX_STATUS_LENGTH = 200


class Notifier:
    """Sender of service notifications.

    Args:
        address: Content of NOTIFY_SOCKET; empty when the service manager does not listen.
        watchdog_s: Seconds within which a sign of life is due; 0 when nobody waits for one.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        self._status = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Notifier:
        """Return the notifier that the service manager asks for; wrong values count as absent."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        watchdog_s = int(microseconds) / 1_000_000 if microseconds.isdecimal() else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog_s)

    def ready(self) -> None:
        """Say that the service is up."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the service ends on purpose."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Give the sign of life that the watchdog waits for."""
        if self.watchdog_s:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows; the same line again is not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={clean_text(text, _MAX_STATUS_LENGTH)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # Not worth dying for: without it the watchdog decides, and that is what it is there for.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0)
            sender.sendto(message.encode(), self._address)
