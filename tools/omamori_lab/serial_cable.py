"""The serial line between box and supervisor: a cable that can be noisy, or cut.

The box's virtual machine connects to one end, the supervisor's is connected from the other; either may go and come
back. Bytes of a connection whose other side is not there are lost, as on a real cable.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_READ = 4096
_WAIT_S = 0.2


class SerialCable:
    """One cable.

    Args:
        box: Unix socket that is made for the box.
        supervisor: The supervisor's unix socket.
        seed: Of the noise.

    Attributes:
        noise: Probability of each bit to flip, both ways.
        is_cut: Nothing passes.
        passed: How many bytes have passed.
    """

    def __init__(self, box: Path, supervisor: Path, *, seed: int = 1) -> None:
        self.box = box
        self._supervisor = supervisor
        self._dice = random.Random(seed)  # noqa: S311 - noise that can be repeated
        self._stop = threading.Event()
        self.noise = 0.0
        self.is_cut = False
        self.passed = 0

    @contextlib.contextmanager
    def lying(self) -> Iterator[None]:
        """Let it lie inside the block."""
        self.box.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.box))
            listener.listen()
            listener.settimeout(0)
            thread = threading.Thread(target=self._carry, args=(listener,), name="serial-cable")
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()

    def _carry(self, listener: socket.socket) -> None:
        ends: dict[str, socket.socket] = {}
        with selectors.DefaultSelector() as selector:

            def put(name: str, end: socket.socket) -> None:
                drop(name)
                end.settimeout(0)
                ends[name] = end
                selector.register(end, selectors.EVENT_READ, name)

            def drop(name: str) -> None:
                if name in ends:
                    selector.unregister(ends[name])
                    ends.pop(name).close()

            selector.register(listener, selectors.EVENT_READ, "listener")
            while not self._stop.is_set():
                if "supervisor" not in ends and (found := self._reach()) is not None:
                    put("supervisor", found)
                for key, _ in selector.select(_WAIT_S):
                    if key.data == "listener":
                        put("box", listener.accept()[0])
                        continue
                    data = _received(ends[key.data])
                    if data is None:
                        drop(key.data)
                        continue
                    other = ends.get("supervisor" if key.data == "box" else "box")
                    if other is not None and not self.is_cut:
                        self.passed += len(data)
                        with contextlib.suppress(OSError):  # nobody reads: as from a port that overruns
                            other.send(self._disturbed(data))
            for end in ends.values():
                end.close()

    def _reach(self) -> socket.socket | None:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(str(self._supervisor))
        except OSError:
            end.close()
            return None
        return end

    def _disturbed(self, data: bytes) -> bytes:
        noise = self.noise
        if not noise:
            return data
        raw = bytearray(data)
        for bit in range(8 * len(raw)):
            if self._dice.random() < noise:
                raw[bit >> 3] ^= 1 << (bit & 7)
        return bytes(raw)


def _received(end: socket.socket) -> bytes | None:
    """Return what has come, or None when the other side is gone."""
    try:
        return end.recv(_READ) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None
