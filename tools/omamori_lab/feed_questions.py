"""Asks for names from the office of a native lane, and sees whether the question reaches the internet."""

from __future__ import annotations

import struct
import time
from types import TracebackType
from typing import Self

from .errors import NotReadyError
from .native_wire import INTERNET_IPV4, OFFICE_IPV4, NativeLane

_PATIENCE_S = 0.3


class Questions:
    """A client and a server of DNS; use it as a context.

    Args:
        lane: Started.
    """

    def __init__(self, lane: NativeLane) -> None:
        self._server = lane.internet.bind_udp(INTERNET_IPV4, 53)
        self._client = lane.office.bind_udp(OFFICE_IPV4)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._client.close()

    def is_answered(self, name: str, *, patience_s: float = _PATIENCE_S) -> bool:
        """Ask for a name once and tell whether the server got the question."""
        self._number += 1
        question = query(name, self._number)
        self._client.sendto(question, (INTERNET_IPV4, 53))
        until_s = time.monotonic() + patience_s
        while (left_s := until_s - time.monotonic()) > 0:
            self._server.settimeout(left_s)
            try:
                if self._server.recv(600) == question:
                    return True
            except TimeoutError:
                break
        return False

    def first_unanswered_s(self, name: str, *, timeout_s: float) -> float:
        """Ask again and again; return the Unix time of the first question that stays without an answer for good.

        Raises:
            NotReadyError: It is answered all the time.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            at_s = time.time()
            # The second one tells a block from a packet that came late.
            if not self.is_answered(name) and not self.is_answered(name):
                return at_s
            time.sleep(0.01)  # a pace, not a wait
        raise NotReadyError(f"{name} blocked", timeout_s)


def query(name: str, number: int) -> bytes:
    """Return a DNS question for the address of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)
