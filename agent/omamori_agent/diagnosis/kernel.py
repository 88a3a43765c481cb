"""What the kernel knows about ports, stations and our own address. Reads small files only; asks nobody.

A fact that cannot be read is left out: a diagnosis is a hint, and a wrong one is worse than none.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path

from omamori_agent.errors import SetupError
from omamori_agent.files import read_bounded

from .facts import Port

_MAX_BYTES = 65536
_MAX_PORTS = 64
_SIOCGIFADDR = 0x8915  # linux/sockios.h
# struct __fdb_entry of linux/if_bridge.h: MAC, port, whether it is our own, age, high byte of the port, padding.
_STATION = struct.Struct("=6sBBIBBH")
_MAX_STATIONS = 4096
# A station that is behind one port now and behind another at the next look, again and again, is behind both: so it is
# when two of our ports are joined outside. A telephone that walks from Wi-Fi to Wi-Fi moves once.
_LOOKS = 10
_MOVES_OF_A_LOOP = 4


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, SetupError):
        return read_bounded(path, _MAX_BYTES).decode("ascii", "replace")
    return ""


def ipv4_of(interface: str) -> str:
    """Return an interface's IPv4 address; empty without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("16s240x", interface.encode("ascii")))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


class Kernel:
    """Reads the facts of one box.

    Args:
        interfaces: The kernel's list of network interfaces.
        proc: The process file system.
        bridge: Name of the bridge.
        ipv4: Returns an interface's IPv4 address.
    """

    def __init__(
        self, interfaces: Path, proc: Path, *, bridge: str = "br0", ipv4: Callable[[str], str] = ipv4_of
    ) -> None:
        self._interfaces = interfaces
        self._proc = proc
        self._bridge = bridge
        self._ipv4 = ipv4
        self._before: dict[bytes, int] = {}
        self._moves: deque[int] = deque(maxlen=_LOOKS)

    def ports(self) -> tuple[Port, ...]:
        """Return the bridge's ports by name."""
        try:
            names = sorted(path.name for path in (self._interfaces / self._bridge / "brif").iterdir())
        except OSError:
            return ()
        return tuple(
            Port(name=name, has_carrier=_text(self._interfaces / name / "carrier").strip() == "1")
            for name in names[:_MAX_PORTS]
        )

    def address(self) -> str:
        """Return the bridge's IPv4 address; empty without one."""
        return self._ipv4(self._bridge)

    def has_ipv6(self) -> bool:
        """Tell whether the bridge has an IPv6 address that is not link-local."""
        for line in _text(self._proc / "net/if_inet6").splitlines():
            words = line.split()
            if len(words) == 6 and words[5] == self._bridge and words[3] == "00":
                return True
        return False

    def gateway(self) -> str:
        """Return the router of the IPv4 default route; empty without one."""
        for line in _text(self._proc / "net/route").splitlines()[1:]:
            words = line.split()
            if len(words) < 8 or words[0] != self._bridge or words[1] != "00000000" or words[7] != "00000000":
                continue
            with contextlib.suppress(ValueError):
                if int(words[3], 16) & 2:  # RTF_GATEWAY
                    return socket.inet_ntoa(struct.pack("=I", int(words[2], 16)))
        return ""

    def gateway_mac(self, gateway: str) -> str | None:
        """Return the MAC of a neighbour; empty if it does not answer, None if nobody has asked it lately."""
        for line in _text(self._proc / "net/arp").splitlines()[1:]:
            words = line.split()
            if len(words) >= 6 and words[0] == gateway and words[5] == self._bridge:
                return words[3] if words[2] != "0x0" else ""
        return None

    def port_of(self, mac: str) -> str:
        """Return the port behind which a station is; empty if the bridge does not know."""
        try:
            wanted = bytes.fromhex(mac.replace(":", ""))
        except ValueError:
            return ""
        number = self._stations().get(wanted)
        return "" if number is None else self._names().get(number, "")

    def is_looping(self) -> bool:
        """Tell whether stations move to and fro between ports; to be asked at every look."""
        stations = self._stations()
        self._moves.append(sum(self._before.get(mac, number) != number for mac, number in stations.items()))
        self._before = stations
        return sum(moves > 0 for moves in self._moves) >= _MOVES_OF_A_LOOP

    def _names(self) -> dict[int, str]:
        names = {}
        for port in self.ports():
            with contextlib.suppress(ValueError):
                names[int(_text(self._interfaces / port.name / "brport/port_no"), 16)] = port.name
        return names

    def _stations(self) -> dict[bytes, int]:
        """Return port numbers by MAC, without our own."""
        found: dict[bytes, int] = {}
        with (
            contextlib.suppress(OSError),
            (self._interfaces / self._bridge / "brforward").open("rb", buffering=0) as file,
        ):
            while len(found) < _MAX_STATIONS and (data := file.read(_STATION.size * 128)):
                whole = data[: len(data) // _STATION.size * _STATION.size]
                for mac, low, is_local, _age, high, _pad, _unused in _STATION.iter_unpack(whole):
                    if not is_local:
                        found[mac] = low | high << 8
        return found
