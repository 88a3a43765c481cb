"""A line between a box and a server that is cut, stalls or crawls, byte by byte of TCP, and counts what it carried."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import struct
import threading
import time
from typing import Self

_CHUNK = 16 * 1024


@dataclasses.dataclass
class Weather:
    """How the line is at the moment; numbers count bytes towards the box, per connection.

    Attributes:
        cut_after: The connection is reset after so many; None for never.
        stall_after: Nothing more comes after so many, and nobody is told; None for never.
        bytes_per_s: How fast it is; 0 for as fast as it goes.
    """

    cut_after: int | None = None
    stall_after: int | None = None
    bytes_per_s: int = 0


class RoughLine:
    """A TCP proxy on the loopback.

    Attributes:
        weather: How it is; may be changed at any time, and counts for connections made afterwards.
        carried: Bytes that the box was sent.
        connections: How many it made.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.weather = Weather()
        self.carried = 0
        self.connections = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                box, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._up, args=(box, server), daemon=True).start()
            threading.Thread(
                target=self._down, args=(server, box, dataclasses.replace(self.weather)), daemon=True
            ).start()

    def _up(self, box: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := box.recv(_CHUNK):
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _down(self, server: socket.socket, box: socket.socket, weather: Weather) -> None:
        done = 0
        ends = [end for end in (weather.cut_after, weather.stall_after) if end is not None]
        with contextlib.suppress(OSError), server, box:
            while not ends or done < min(ends):
                data = server.recv(min(_CHUNK, min(ends) - done) if ends else _CHUNK)
                if not data:
                    return
                box.sendall(data)
                done += len(data)
                with self._lock:
                    self.carried += len(data)
                if weather.bytes_per_s:
                    time.sleep(len(data) / weather.bytes_per_s)
            if weather.stall_after is not None and done >= weather.stall_after:
                self._stop.wait(60)
            else:
                # What is on its way is lost, too: a reset, as when the power of a router goes.
                time.sleep(0.05)
                box.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                box.shutdown(socket.SHUT_RD)  # whoever reads from it would keep it open
