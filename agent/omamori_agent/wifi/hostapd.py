"""Asks a running hostapd over its control socket, and tells it to end.

The protocol: one datagram with a command, one datagram back; ``STATUS`` is answered with lines ``key=value``,
``STA-FIRST`` and ``STA-NEXT`` with a station's address in the first line. Only commands whose answers hold no secret
are used (``GET_CONFIG`` would show the passphrase). Our end has an address in the kernel's abstract namespace, so no
file of ours has to be visible to hostapd, whatever its sandbox hides.

The truth about the access point is hostapd's: nothing here remembers an answer.
"""

from __future__ import annotations

import dataclasses
import re
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import HostapdError, HostapdGoneError

MAX_ANSWER_BYTES = 4096
MAX_STATIONS = 256
MAX_RUNS = 16
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[\\\"enrt])")
_ESCAPED = {b"\\": b"\\", b'"': b'"', b"e": b"\x1b", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclasses.dataclass(frozen=True)
class AccessPointStatus:
    """What hostapd says of itself.

    Attributes:
        state: Its own word, ``ENABLED`` when stations can come.
        ssid: Name of the network.
        channel: 0 while there is none yet.
        is_ht: Whether 11n is on.
        is_newer: Whether 11ac or 11ax is on.
        stations: How many stations are connected.
    """

    state: str
    ssid: bytes
    channel: int
    is_ht: bool
    is_newer: bool
    stations: int


class HostapdSession:
    """A connection to one hostapd process.

    Args:
        path: Its control socket.
        timeout_s: Seconds for one answer.

    Raises:
        HostapdGoneError: Nobody listens there.
    """

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.bind(b"")  # the kernel chooses an abstract address
            self._socket.connect(str(path))
        except OSError as err:
            self._socket.close()
            raise HostapdGoneError(f"hostapd does not listen: {err.strerror or err}") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave; hostapd keeps nothing about us."""
        self._socket.close()

    def is_alive(self) -> bool:
        """Whether the same process answers now.

        Raises:
            HostapdGoneError: It has ended.
        """
        try:
            return self._ask("PING") == "PONG"
        except HostapdGoneError:
            raise
        except HostapdError:
            return False  # busy, or about to end: the socket of an ended process swallows what was sent before

    def status(self) -> AccessPointStatus:
        """Return what the access point does now.

        Raises:
            HostapdError: No answer, or none that can be understood.
        """
        facts = _pairs(self._ask("STATUS"))
        try:
            return AccessPointStatus(
                state=facts["state"],
                ssid=_unescape(facts.get("ssid[0]", "")),
                channel=int(facts.get("channel", "0")),
                is_ht=facts.get("ieee80211n") == "1",
                is_newer="1" in (facts.get("ieee80211ac"), facts.get("ieee80211ax")),
                stations=int(facts.get("num_sta[0]", "0")),
            )
        except (KeyError, ValueError) as err:
            raise HostapdError("hostapd: STATUS not understood") from err

    def stations(self) -> list[str]:
        """Return the MAC addresses of the connected stations, lower case, at most `MAX_STATIONS`.

        Raises:
            HostapdError: No answer, or none that can be understood.
        """
        found: list[str] = []
        answer = self._ask("STA-FIRST")
        while answer and answer != "FAIL" and len(found) < MAX_STATIONS:
            mac = answer.partition("\n")[0]
            if not _MAC.fullmatch(mac) or mac in found:
                raise HostapdError("hostapd: list of stations not understood")
            found.append(mac)
            answer = self._ask(f"STA-NEXT {mac}")
        return found

    def terminate(self) -> None:
        """Ask the process to end; `is_alive` tells when it has.

        Raises:
            HostapdError: It does not want to, or does not answer.
        """
        if self._ask("TERMINATE") != "OK":
            raise HostapdError("hostapd does not end")

    def _ask(self, command: str) -> str:
        try:
            self._socket.send(command.encode())
            answer = self._socket.recv(MAX_ANSWER_BYTES + 1)
        except TimeoutError as err:
            raise HostapdError(f"hostapd: no answer to {command}") from err
        except (ConnectionError, FileNotFoundError) as err:
            raise HostapdGoneError("hostapd has ended") from err
        except OSError as err:
            raise HostapdError(f"hostapd: {command}: {err.strerror or err}") from err
        if len(answer) > MAX_ANSWER_BYTES:
            raise HostapdError(f"hostapd: answer to {command} has more than {MAX_ANSWER_BYTES} bytes")
        return answer.decode(errors="replace").rstrip("\n")


def control_sockets(directory: Path, interface: str) -> list[Path]:
    """Return the control sockets below a directory, one for each run that is there; at most `MAX_RUNS`."""
    try:
        runs = sorted(path.name for path in directory.iterdir())[:MAX_RUNS]
    except OSError:
        return []
    return [path for run in runs if (path := directory / run / interface).is_socket()]


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, found, value in (line.partition("=") for line in text.split("\n")) if found}


def _unescape(text: str) -> bytes:
    """Undo hostapd's way to print an SSID."""

    def plain(match: re.Match[bytes]) -> bytes:
        word = match[1]
        return bytes([int(word[1:], 16)]) if word.startswith(b"x") else _ESCAPED[word]

    return _ESCAPE.sub(plain, text.encode(errors="replace"))
