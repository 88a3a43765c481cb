"""A bus of a test's own, and a service on it that speaks RAUC's interface: same names, same types, same order.

Installing takes as long as the test says; a test can let it fail, or vanish from the bus in the middle.
"""

from __future__ import annotations

import contextlib
import subprocess  # noqa: TID251 - a test's own helper process
import threading
from pathlib import Path
from typing import Any, Self

from jeepney import (
    HeaderFields,
    Message,
    MessageType,
    new_error,
    new_method_return,
)
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

NAME = "de.pengutronix.rauc"
INTERFACE = "de.pengutronix.rauc.Installer"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
  </policy>
</busconfig>
"""


class PrivateBus:
    """A dbus-daemon in the foreground, ended with the test."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "bus"
        config = directory / "bus.conf"
        config.write_text(CONFIG.format(socket=self.socket))
        line = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    @property
    def address(self) -> str:
        return f"unix:path={self.socket}"

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "the bus did not start"
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class RAUCService:
    """`de.pengutronix.rauc` on a bus."""

    def __init__(self, bus: PrivateBus) -> None:
        self.operation = "idle"
        self.last_error = ""
        self.marks: list[tuple[str, str]] = []
        self.installs: list[tuple[str, dict[str, Any]]] = []
        self.next_error = ""
        self.polls_per_install = 3
        self.refused_marks: set[str] = set()
        self._polls = 0
        self._connection = open_dbus_connection(bus.address)
        self._connection.send_and_get_reply(message_bus.RequestName(NAME))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._connection.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                message = self._connection.receive(timeout=0.05)
                if message.header.message_type is MessageType.method_call:
                    self._connection.send(self._answer(message))

    def _answer(self, call: Message) -> Message:
        fields = call.header.fields
        member, interface = fields.get(HeaderFields.member), fields.get(HeaderFields.interface)
        if fields.get(HeaderFields.path) != "/":
            return new_error(call, "org.freedesktop.DBus.Error.UnknownObject", "s", ("no such object",))
        if interface == "org.freedesktop.DBus.Properties" and member == "Get":
            return self._property(call, *call.body)
        signature = fields.get(HeaderFields.signature, "")
        if (interface, member, signature) == (INTERFACE, "InstallBundle", "sa{sv}"):
            return self._install(call, *call.body)
        if (interface, member, signature) == (INTERFACE, "Mark", "ss"):
            return self._mark(call, *call.body)
        return new_error(call, "org.freedesktop.DBus.Error.UnknownMethod", "s", (f"no method {member}({signature})",))

    def _property(self, call: Message, interface: str, name: str) -> Message:
        if interface != INTERFACE or name not in {"Operation", "LastError"}:
            return new_error(call, "org.freedesktop.DBus.Error.InvalidArgs", "s", (f"no property {name}",))
        if name == "Operation" and self.operation == "installing":
            self._polls += 1
            if self._polls >= self.polls_per_install:
                self.operation, self.last_error = "idle", self.next_error
                return new_method_return(call, "v", (("s", "installing"),))
        value = self.operation if name == "Operation" else self.last_error
        return new_method_return(call, "v", (("s", value),))

    def _install(self, call: Message, bundle: str, options: dict[str, Any]) -> Message:
        if self.operation != "idle":
            text = "already processing a different method"
            return new_error(call, "org.freedesktop.DBus.Error.Failed", "s", (text,))
        self.installs.append((bundle, options))
        self.operation, self.last_error, self._polls = "installing", "", 0
        return new_method_return(call)

    def _mark(self, call: Message, state: str, slot: str) -> Message:
        if state in self.refused_marks or state not in {"good", "bad", "active"}:
            return new_error(call, "org.freedesktop.DBus.Error.Failed", "s", (f"cannot mark {state}",))
        self.marks.append((state, slot))
        return new_method_return(call, "ss", ("boot.1", f"marked slot boot.1 as {state}"))
