"""hostapd and the service manager that starts it: reads the real configuration file, speaks the real datagram protocol.

It rejects what hostapd rejects, as far as our files could hold it, and can fail in the ways that a radio fails.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

_KEYS = {
    "interface",
    "driver",
    "bridge",
    "ctrl_interface",
    "ctrl_interface_group",
    "logger_syslog",
    "logger_stdout",
    "logger_stdout_level",
    "ssid2",
    "utf8_ssid",
    "country_code",
    "ieee80211d",
    "hw_mode",
    "channel",
    "chanlist",
    "ieee80211n",
    "wmm_enabled",
    "max_num_sta",
    "ap_isolate",
    "auth_algs",
    "wpa",
    "rsn_pairwise",
    "wpa_key_mgmt",
    "ieee80211w",
    "sae_require_mfp",
    "sae_pwe",
    "wpa_passphrase",
}
_POLL_S = 0.01


class ConfigError(Exception):
    """hostapd would not start with this file."""


def parse_config(text: str) -> dict[str, str]:
    """Read a file as hostapd does; raise `ConfigError` where it would end with an error."""
    values: dict[str, str] = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        key, found, value = line.partition("=")
        if not found or key not in _KEYS or key in values:
            raise ConfigError(f"line {line!r}")
        values[key] = value
    ssid = bytes.fromhex(values["ssid2"])
    if not 1 <= len(ssid) <= 32:
        raise ConfigError("SSID")
    if not 8 <= len(values["wpa_passphrase"]) <= 63:
        raise ConfigError("passphrase")
    return values


class SimulatedHostapd:
    """Starts a process whenever the configuration file is there and none runs, as the box's units do.

    Args:
        config: The configuration file.

    Attributes:
        starts: Every configuration that was started with.
        radio_channels: Channels of the radio; with another one the process ends after its socket was there.
        can_survey: Whether the radio can choose a channel; otherwise it stays down and the process lives.
        chosen: Channel that a survey finds.
        ignores_end: Whether it does not end when asked to.
        stations: MAC addresses of connected stations.
        answers: Overrides the answer to a command.
        commands: Everything that was asked.
    """

    def __init__(self, config: Path) -> None:
        self._config = config
        self.starts: list[dict[str, str]] = []
        self.radio_channels: set[int] = set(range(1, 14))
        self.can_survey = True
        self.chosen = 11
        self.ignores_end = False
        self.stations: list[str] = []
        self.answers: dict[str, bytes | None] = {}
        self.commands: list[str] = []
        self._crash = threading.Event()
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._manage)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_running(self) -> bool:
        return bool(self.starts) and self._socket_path(self.starts[-1]).exists()

    def is_gone(self, timeout_s: float = 5.0) -> bool:
        """Wait until nothing is left of it: it stops listening a moment before its socket's file is removed."""
        deadline_s = time.monotonic() + timeout_s
        while self.is_running and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        return not self.is_running

    def crash(self) -> None:
        """Kill the process; returns when it is gone. Another one starts, if there is a configuration."""
        self._ended.clear()
        self._crash.set()
        assert self._ended.wait(10)

    @staticmethod
    def _socket_path(values: dict[str, str]) -> Path:
        return Path(values["ctrl_interface"]) / values["interface"]

    def _manage(self) -> None:
        while not self._stop.wait(_POLL_S):
            with contextlib.suppress(FileNotFoundError, ConfigError):
                values = parse_config(self._config.read_text())
                self.starts.append(values)
                self._live(values)

    def _live(self, values: dict[str, str]) -> None:
        path = self._socket_path(values)
        path.parent.mkdir(parents=True)
        channel = int(values["channel"])
        state = "ENABLED"
        if channel == 0 and not self.can_survey:
            state = "DISABLED"
        elif channel == 0:
            assert str(self.chosen) in values["chanlist"].split()
            channel = self.chosen
        self._crash.clear()
        try:
            with bound(path) as server:
                if channel and channel not in self.radio_channels:
                    return
                self._serve(server, values, state, channel)
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)
            self._ended.set()

    def _serve(self, server: socket.socket, values: dict[str, str], state: str, channel: int) -> None:
        server.settimeout(_POLL_S)
        while not self._stop.is_set() and not self._crash.is_set():
            try:
                data, sender = server.recvfrom(4096)
            except TimeoutError:
                continue
            command = data.decode()
            self.commands.append(command)
            answer = self._answer(command, values, state, channel)
            if answer is not None:
                server.sendto(answer, sender)
            if command == "TERMINATE" and not self.ignores_end:
                return

    def _answer(self, command: str, values: dict[str, str], state: str, channel: int) -> bytes | None:
        if command in self.answers:
            return self.answers[command]
        word, _, argument = command.partition(" ")
        if word == "PING":
            return b"PONG\n"
        if word == "TERMINATE":
            return b"OK\n"
        if word == "STATUS":
            lines = [f"state={state}", "phy=phy0", f"channel={channel}", f"ieee80211n={values['ieee80211n']}"]
            lines += ["ieee80211ac=0", "ieee80211ax=0", f"bss[0]={values['interface']}"]
            lines += [f"ssid[0]={printed(bytes.fromhex(values['ssid2']))}", f"num_sta[0]={len(self.stations)}"]
            return ("\n".join(lines) + "\n").encode()
        if word in {"STA-FIRST", "STA-NEXT"}:
            after = self.stations.index(argument) + 1 if argument else 0
            return (
                f"{self.stations[after]}\nflags=[AUTH][ASSOC]\naid=1\n".encode() if after < len(self.stations) else b""
            )
        return b"UNKNOWN COMMAND\n"


def printed(ssid: bytes) -> str:
    """Return an SSID as hostapd prints it."""
    special = {0x22: '\\"', 0x5C: "\\\\", 0x1B: "\\e", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    return "".join(special.get(byte, chr(byte) if 32 <= byte <= 126 else f"\\x{byte:02x}") for byte in ssid)


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """A datagram socket at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        yield server


@contextlib.contextmanager
def answering(path: Path, answer: Callable[[bytes], bytes | None]) -> Iterator[None]:
    """Something at a control socket that answers as `answer` says."""
    stop = threading.Event()

    def serve(server: socket.socket) -> None:
        server.settimeout(_POLL_S)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                data, sender = server.recvfrom(4096)
                reply = answer(data)
                if reply is not None:
                    server.sendto(reply, sender)

    with bound(path) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


Rule = tuple[int, int, int, int]  # start, end, width in MHz, flags
NO_OFDM, NO_OUTDOOR, DFS, NO_IR = 1, 2, 4, 8


def regulatory_database(countries: dict[str, list[Rule]]) -> bytes:
    """Return a database in the kernel's format."""
    head = struct.pack(">II", 0x52474442, 20)
    table_bytes = 4 * (len(countries) + 1)
    body, table = b"", b""
    base = len(head) + table_bytes
    for letters, rules in countries.items():
        pointers = b""
        for start, end, width, flags in rules:
            pointers += struct.pack(">H", (base + len(body)) // 4)
            body += struct.pack(">BBHIII", 16, flags, 2000, start * 1000, end * 1000, width * 1000)
        table += struct.pack(">2sH", letters.encode(), (base + len(body)) // 4)
        collection = struct.pack(">BBBx", 3, len(rules), 0) + pointers
        body += collection + bytes(-len(collection) % 4)
    return head + table + bytes(4) + body
