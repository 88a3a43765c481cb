"""The supervisor's own rules and codec in this process, for tests of the box's end of the line."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from omamori_hw.supervisor.line import Line

HW = Path(__file__).resolve().parents[2] / "hw"


def wait_for(what: str, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


class Chip:
    """The microcontroller's rules and codec, from its own modules, behind one end of a socket."""

    def __init__(self) -> None:
        sys.path.insert(0, str(HW / "supervisor" / "lib"))
        try:
            names = ("frames", "keeper", "messages")
            parts: list[Any] = [importlib.import_module(f"supervisor.{name}") for name in names]
        finally:
            sys.path.pop(0)
        self._frames, keeper, self.words = parts
        self.keeper = keeper.Keeper()
        self.decoder = self._frames.Decoder()
        self.keeper.start(0, through=False, kept=None, how=0)
        self.pack = b"\x80"
        self.deaf = False
        self.frozen: int | None = None  # the time, when it stands still
        self.moves: list[bool] = []
        self._ours: socket.socket | None = None
        self._stop = threading.Event()
        self._begin = time.monotonic()
        self._sequence = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def now(self) -> int:
        if self.frozen is not None:
            return self.frozen
        return int((time.monotonic() - self._begin) * 1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
        for name in [name for name in sys.modules if name.split(".")[0] == "supervisor"]:
            sys.modules.pop(name)

    def open(self, _path: Path) -> Line:
        ours, theirs = socket.socketpair()
        self.join(ours)
        return Line(theirs.detach())

    def join(self, ours: socket.socket) -> None:
        """Talk over this socket from now on."""
        ours.settimeout(0.005)
        before, self._ours = self._ours, ours
        if before is not None:
            before.close()

    def unplug(self) -> None:
        ours, self._ours = self._ours, None
        assert ours is not None
        ours.close()

    def send(self, data: bytes) -> None:
        if self._ours is not None:
            self._ours.sendall(data)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._ours is not None:
            self._ours.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            ours = self._ours
            if ours is None:
                time.sleep(0.005)
                continue
            try:
                self._step(ours)
            except OSError:
                time.sleep(0.005)

    def _step(self, ours: socket.socket) -> None:
        try:
            data = ours.recv(4096)
        except TimeoutError:
            data = b""
        for body in self.decoder.feed(data) if not self.deaf else ():
            kind, values = self.words.parse(body)
            if kind == self.words.QUERY and values[0] == self.words.ASK_STATUS:
                self.keeper.outbox.append(self.keeper.status(self.now(), self.decoder, 0, 1))
            elif kind == self.words.QUERY:
                self.keeper.outbox.append(self.words.build(self.words.TELEMETRY, self.pack))
            else:
                self.keeper.message(self.now(), kind, values)
        self.keeper.tick(self.now())
        if not self.moves or self.moves[-1] != self.keeper.through:
            self.moves.append(self.keeper.through)
        while self.keeper.outbox:
            self._sequence += 1
            ours.sendall(self._frames.encode(self._sequence, self.keeper.outbox.pop(0)))
