"""The wire relay of the lab: what the supervisor's relay does to two cables, as three bridges in a namespace.

The patch namespace has four ports: the cables of office and internet, and those to the box's two sides. Each of the
first two is in exactly one bridge at any time, so that there is one path or, for a moment, none; never two.

Rules:
- The supervisor decides. `Follower` reads its relay and moves the cables; nothing else moves them.
- It knows no supervisor: whoever starts it says how the relay is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from .errors import LabError
from .namespace import Namespace
from .run import run

OFFICE, INTERNET, BOX_LAN, BOX_WAN = "office", "internet", "boxlan", "boxwan"
_PAST, _LAN_SIDE, _WAN_SIDE = "past", "lanside", "wanside"
_BRIDGE = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
_EVERY_S = 0.002
_TIMEOUT_S = 10


@dataclasses.dataclass(frozen=True)
class Move:
    """A move of the relay: when it was seen (monotonic seconds), and whether the wire leads through the box now."""

    at_s: float
    through: bool


class WireRelay:
    """The patch namespace; it begins past the box, as a relay without current.

    Args:
        patch: The namespace, made by the caller.
    """

    def __init__(self, patch: Namespace) -> None:
        self._patch = patch
        self.through = False

    def cable(self, port: str, namespace: Namespace, interface: str) -> None:
        """Lay a cable from a port of the patch to an interface, which is made, of another namespace."""
        line = ["ip", "link", "add", interface, "netns", namespace.name, "type", "veth"]
        run([*line, "peer", "name", port, "netns", self._patch.name], timeout_s=_TIMEOUT_S)

    def start(self) -> None:
        """Put the cables where a relay without current has them."""
        bridges = (_PAST, _LAN_SIDE, _WAN_SIDE)
        self._patch.sysctl(ipv6__conf__all__disable_ipv6=1)
        self._patch.configure(
            [f"link add {bridge} {_BRIDGE}" for bridge in bridges]
            + [f"link set {BOX_LAN} master {_LAN_SIDE}", f"link set {BOX_WAN} master {_WAN_SIDE}"]
            + [f"link set {port} master {_PAST}" for port in (OFFICE, INTERNET)]
            + [f"link set {name} up" for name in (*bridges, OFFICE, INTERNET, BOX_LAN, BOX_WAN)]
        )

    def switch(self, *, through: bool) -> None:
        """Move both cables."""
        office, internet = (_LAN_SIDE, _WAN_SIDE) if through else (_PAST, _PAST)
        self._patch.configure([f"link set {OFFICE} master {office}", f"link set {INTERNET} master {internet}"])
        self.through = through


class Follower:
    """Moves the cables whenever the supervisor's relay moves.

    Args:
        wire: The cables.
        read: Says how the relay stands; whatever it raises ends the following.
    """

    def __init__(self, wire: WireRelay, read: Callable[[], bool]) -> None:
        self._wire = wire
        self._read = read
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self.moves: list[Move] = []

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Follow inside the block.

        Raises:
            LabError: The relay could not be read, or the cables not be moved.
        """
        thread = threading.Thread(target=self._follow, name="wire-relay")
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
        if self._failure is not None:
            raise LabError(f"the wire relay stopped following: {self._failure}") from self._failure

    def _follow(self) -> None:
        try:
            while not self._ended.is_set():
                through = self._read()
                if through != self._wire.through:
                    self._wire.switch(through=through)
                    self.moves.append(Move(time.monotonic(), through))
                self._ended.wait(_EVERY_S)
        except Exception as err:  # noqa: BLE001 - handed over to the block that follows
            self._failure = err
