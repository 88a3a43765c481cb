"""The agent's link for many boxes in one process: the same classes, but where they would wait, the hub does.

What is replaced, and nothing else: opening the socket and its TLS handshake (no blocking calls), waiting for the
socket, waiting before the next try, and how often a box with nothing to do looks after itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from omamori_agent.config import LinkLimits
from omamori_agent.identity import Identity
from omamori_agent.link import LinkWorker, MQTTBroker, Road
from omamori_agent.link.broker import Hello
from omamori_agent.link.mqtt import MQTTConnection

from .fleet_hub import READ, WRITE, Hub, HubWaker, Task

# The link waits this long when it has nothing to do, and then looks whether a ping is due; the fleet stretches it.
_IDLE_S = 1.0
_STRETCHED_S = 15.0
_TURN_S = 3600.0
_CONSENT_S = 2.0  # instead of the 0.2 s in which a lone box sees that it shall stop
_HANDSHAKES = 100  # of one process at the same time: more would only take each other's time until it is over
_TCP_INFO_BYTES = 208
_BYTES_SENT = slice(200, 208)  # of struct tcp_info: what TCP was given, repetitions included


@dataclasses.dataclass
class Tally:
    """What the boxes of one process did."""

    connected: int = 0  # now
    connects: int = 0  # in all
    tries: int = 0
    connecting: int = 0  # now
    most_connecting: int = 0
    handshake_s: list[float] = dataclasses.field(default_factory=list)  # from SYN to the broker's consent
    heartbeats: int = 0
    heartbeat_bytes: Counter[int] = dataclasses.field(default_factory=Counter)  # how often so many, with TLS
    alerts: int = 0
    failures: Counter[str] = dataclasses.field(default_factory=Counter)


class Turns:
    """Lets so many boxes of a hub do something at the same time; the others wait, first come, first served."""

    def __init__(self, hub: Hub, most: int = _HANDSHAKES) -> None:
        self._hub = hub
        self._free = most
        self._waiting: deque[Task] = deque()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and give it back."""
        if self._free:
            self._free -= 1
        else:
            task = self._hub.current()
            self._waiting.append(task)
            while task in self._waiting:
                self._hub.wait(_TURN_S)
        try:
            yield
        finally:
            if self._waiting:
                self._hub.wake(self._waiting.popleft())
            else:
                self._free += 1


@dataclasses.dataclass(frozen=True)
class FleetRoad(Road):
    """The direct way on the loopback, from an address of the box's own, without blocking.

    Attributes:
        hub: Where it waits.
        address: Of the broker; `host` is the name in its certificate.
        source: Our address.
    """

    hub: Hub = dataclasses.field(kw_only=True)
    address: str = dataclasses.field(kw_only=True)
    source: str = dataclasses.field(kw_only=True)

    def open(self, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
        """Return an encrypted connection; see `Road.open`."""
        deadline_s = time.monotonic() + timeout_s
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock: socket.socket = plain
        try:
            plain.settimeout(0)
            plain.bind((self.source, 0))
            self._reach(plain, deadline_s)
            self.hub.forget(plain.fileno())
            sock = encrypted = context.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
            while True:
                try:
                    encrypted.do_handshake()
                    return encrypted
                except ssl.SSLWantReadError:
                    self._wait(encrypted, READ, deadline_s)
                except ssl.SSLWantWriteError:
                    self._wait(encrypted, WRITE, deadline_s)
        except BaseException:
            self.hub.forget(sock.fileno())
            sock.close()
            raise

    def _reach(self, sock: socket.socket, deadline_s: float) -> None:
        code = sock.connect_ex((self.address, self.port))
        if code == errno.EINPROGRESS:
            self._wait(sock, WRITE, deadline_s)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _wait(self, sock: socket.socket, wanted: int, deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not self.hub.wait(left_s, sock.fileno(), wanted):
            raise TimeoutError("timed out")


class FleetConnection(MQTTConnection):
    """A connection that waits in the hub."""

    def __init__(
        self, hello: Hello, road: FleetRoad, context: ssl.SSLContext, limits: LinkLimits, tally: Tally
    ) -> None:
        super().__init__(hello, road, context, limits)
        self._hub = road.hub
        self._tally = tally
        self._descriptor = -1
        self._beats = 0

    def open(self, stop: threading.Event) -> None:
        """Connect; see `MQTTBroker.connect`."""
        tally = self._tally
        tally.tries += 1
        tally.connecting += 1
        tally.most_connecting = max(tally.most_connecting, tally.connecting)
        began_s = time.monotonic()
        try:
            super().open(stop)
        finally:
            tally.connecting -= 1
        tally.handshake_s.append(time.monotonic() - began_s)

    def publish(
        self, topic: str, payload: bytes, *, confirmed: bool, retain: bool = False, expires_s: int | None = None
    ) -> int:
        """Send a message; of a heartbeat that is not a connection's first, note how many bytes it took."""
        before = -1 if confirmed else self._bytes_sent()
        number = super().publish(topic, payload, confirmed=confirmed, retain=retain, expires_s=expires_s)
        if not confirmed:
            self._tally.heartbeats += 1
            self._beats += 1
            if self._beats > 1:  # the first one follows others so closely that TCP sends them together
                self._tally.heartbeat_bytes[self._bytes_sent() - before] += 1
        return number

    def wait(self, readers: list[Any], writers: list[Any], timeout_s: float) -> tuple[list[Any], list[Any]]:
        """Return what is ready; a waker among the readers ends the waiting."""
        if timeout_s <= 0:
            return [], writers
        sock = readers[0]
        self._descriptor = sock.fileno()
        waker: HubWaker | None = readers[1] if len(readers) > 1 else None
        if waker is None:
            timeout_s = max(timeout_s, _CONSENT_S)
        elif waker.is_set:
            return [], []
        elif timeout_s >= _IDLE_S:
            timeout_s = _STRETCHED_S
        if waker is not None:
            waker.waiter = self._hub.current()
        try:
            ready = self._hub.wait(timeout_s, self._descriptor, READ | WRITE if writers else READ)
        finally:
            if waker is not None:
                waker.waiter = None
        return [sock] if ready & READ else [], writers if ready & WRITE else []

    def close(self, *, goodbye_s: float = 0.0) -> None:
        """End the connection."""
        super().close(goodbye_s=goodbye_s)
        self._hub.forget(self._descriptor)

    def _bytes_sent(self) -> int:
        sock = self._client.socket()
        if not isinstance(sock, socket.socket):
            return 0
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int(struct.unpack("=Q", info[_BYTES_SENT])[0])


class FleetBroker(MQTTBroker):
    """Makes such connections."""

    def __init__(
        self, road: FleetRoad, service_ca: str, limits: LinkLimits, *, tally: Tally, handshakes: Turns
    ) -> None:
        super().__init__([road], service_ca, limits)
        self._tally = tally
        self._handshakes = handshakes
        self._made: ssl.SSLContext | None = None

    def _context(self, identity: Identity) -> ssl.SSLContext:
        """Return the box's context, made once: reading its files takes as long as a handshake."""
        if self._made is None:
            self._made = super()._context(identity)
        return self._made

    def make_connection(self, hello: Hello, road: Road, context: ssl.SSLContext, limits: LinkLimits) -> FleetConnection:
        """Return a connection that is not open yet."""
        assert isinstance(road, FleetRoad)
        return FleetConnection(hello, road, context, limits, self._tally)

    def connect(self, hello: Hello, identity: Identity, stop: threading.Event) -> MQTTConnection:
        """Connect, and count what becomes of it."""
        try:
            with self._handshakes.turn():
                return super().connect(hello, identity, stop)
        except Exception as err:
            self._tally.failures[type(err).__name__] += 1
            raise


class FleetLink(LinkWorker):
    """The link of one box; its `run` is the work of a greenlet.

    Args:
        hub: Where it waits.
        options: Of `LinkWorker`.
    """

    def __init__(self, hub: Hub, **options: Any) -> None:
        super().__init__(**options)
        self._hub = hub

    def pause(self, delay_s: float, stop: threading.Event) -> None:
        """Wait until the next try."""
        if not stop.is_set():
            self._hub.wait(delay_s)
