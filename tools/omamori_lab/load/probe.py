"""Paced probes through a lane, and how long nothing of them arrived.

An interruption is judged by what a user would notice: from the moment a probe is sent in vain until the next one
arrives. A sender that pauses is no interruption, a probe that arrives late is one for as long as it is late.
"""

from __future__ import annotations

import dataclasses
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from omamori_lab.errors import LabError
from omamori_lab.run import Process, end, spawn
from omamori_lab.waiting import wait_for

from .generators import Ends, is_open

MAX_BYTES = 64 << 20
_RECORD = struct.Struct("=QQ")
_LATE_S = 0.8  # what has not arrived then is lost
_FOREVER_S = "3600"
# A pause that is worth telling, and how many of one flow are told.
_PAUSE_NS, _MAX_PAUSES = 20_000_000, 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What became of the probes of one flow.

    Attributes:
        sent: How many were sent.
        lost: How many of them did not arrive.
        interruption_ms: The longest time from a probe sent in vain to the next arrival.
        at_s: When that began, in seconds after the first probe.
        p50_ms: Median delay.
        p99_ms: Delay that one of a hundred exceeds.
        longest_ms: The longest delay of one that arrived.
        first_s: When the first was sent, in seconds of the host's clock (Unix time).
        pauses: The longest times in which nothing arrived of what was sent, none of which overlap: seconds after the
            first probe, and milliseconds, the longest first.
    """

    sent: int
    lost: int
    interruption_ms: float
    at_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    first_s: float = 0.0
    pauses: tuple[tuple[float, float], ...] = ()


def judge(sent: Mapping[int, int], arrived: Sequence[tuple[int, int]]) -> Report:
    """Return the report of probes.

    Args:
        sent: Time in nanoseconds by number; numbers count up from 0.
        arrived: Number and time of each arrival, in any order; a number may come twice.

    Raises:
        LabError: None was sent or none arrived, or one arrived that was never sent.
    """
    if not sent or not arrived:
        raise LabError(f"{len(sent)} probes were sent and {len(arrived)} arrived")
    if any(number not in sent for number, _ in arrived):
        raise LabError("a probe arrived that was not sent")
    pauses = [(0, sent[0])]
    highest = -1
    for number, at in sorted(arrived, key=lambda item: item[1]):
        first_in_vain = sent.get(highest + 1)
        if first_in_vain is not None and at - first_in_vain > 0:
            pauses.append((at - first_in_vain, first_in_vain))
        highest = max(highest, number)
    last = max(sent)
    if highest < last:
        pauses.append((sent[last] - sent[highest + 1], sent[highest + 1]))
    longest, began = max(pauses, key=lambda pause: pause[0])
    delays = sorted(at - sent[number] for number, at in arrived)
    return Report(
        sent=len(sent),
        lost=len(sent) - len({number for number, _ in arrived}),
        interruption_ms=_ms(longest),
        at_s=round((began - sent[0]) / 1e9, 3),
        p50_ms=_ms(delays[len(delays) // 2]),
        p99_ms=_ms(delays[min(len(delays) * 99 // 100, len(delays) - 1)]),
        longest_ms=_ms(delays[-1]),
        first_s=sent[0] / 1e9,
        pauses=tuple((round((at - sent[0]) / 1e9, 3), _ms(length)) for length, at in _apart(pauses)),
    )


def _apart(pauses: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest of these pauses (length, begin; nanoseconds), without those that overlap a longer one."""
    chosen: list[tuple[int, int]] = []
    for length, begin in sorted((pause for pause in pauses if pause[0] >= _PAUSE_NS), reverse=True):
        if len(chosen) == _MAX_PAUSES:
            break
        if all(begin + length <= other or other + longer <= begin for longer, other in chosen):
            chosen.append((length, begin))
    return chosen


class Probe:
    """One flow of probes from the office to the internet.

    Args:
        ends: Between whom.
        name: For its files.
        kind: udp or tcp.
        port: Of the receiver.
        rate: Probes per second.
        size: Bytes of one, as data.
        is_answered: Whether each is answered, over UDP, which makes the flow an established one.
    """

    def __init__(
        self, ends: Ends, name: str, *, kind: str, port: int, rate: int, size: int, is_answered: bool = False
    ) -> None:
        self._ends = ends
        self._kind, self._port, self._rate, self._size = kind, port, rate, size
        self._is_answered = is_answered
        self._sent = ends.directory / f"{name}.sent"
        self._arrived = ends.directory / f"{name}.arrived"
        self._log = ends.directory / f"{name}.log"
        self._sender: Process | None = None
        self._receiver: Process | None = None

    def start(self) -> None:
        """Send from now on.

        Raises:
            NotReadyError: The receiver did not start.
        """
        program = self._ends.programs / "probe"
        line: list[str | Path] = [program, "receive", self._kind, self._ends.server, str(self._port), _FOREVER_S]
        line.append(self._arrived)
        with self._log.open("ab") as log:
            self._receiver = spawn(
                self._ends.internet.command([*line, *(["answer"] if self._is_answered else [])]), log=log
            )
            wait_for(
                lambda: self._ends.internet.call(lambda: is_open(self._kind, self._port)),
                "receiver of probes",
                timeout_s=10,
                every_s=0.02,
            )
            words = [self._kind, self._ends.server, str(self._port), str(self._rate), _FOREVER_S, str(self._size)]
            self._sender = spawn(
                self._ends.office.command([program, "send", *words, self._sent, self._ends.first_client]), log=log
            )

    def stop(self, *, late_s: float = _LATE_S) -> Report:
        """Stop sending and return what became of it.

        Args:
            late_s: How long to wait for what is still on its way.

        Raises:
            LabError: It failed, or nothing arrived.
        """
        sent = self._ended()
        time.sleep(late_s)  # nothing tells that nothing more will arrive
        self.abandon()
        if self._kind == "tcp":
            sent = sent[:-1]  # the end of the sender may have cut it off; a stream loses nothing else
        arrived = read_records(self._arrived)
        return judge(dict(sent), [record for record in arrived if record[0] <= sent[-1][0]])

    def abandon(self) -> None:
        """End both programs, without a report."""
        for process in (self._sender, self._receiver):
            if process is not None:
                end(process)
        self._sender = self._receiver = None

    def _ended(self) -> list[tuple[int, int]]:
        if self._sender is None:
            raise LabError("the probe was not started")
        if self._sender.poll() is not None:
            raise LabError(f"a probe ended by itself: {self._log.read_text(errors='replace')[-200:]}")
        end(self._sender)
        self._sender = None
        return read_records(self._sent)


def read_records(path: Path) -> list[tuple[int, int]]:
    """Return the records that the program wrote: a number and a time in nanoseconds each.

    Raises:
        LabError: The file is too large.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise LabError(f"{path.name} has more than {MAX_BYTES} bytes")
    whole = len(data) - len(data) % _RECORD.size
    return list(_RECORD.iter_unpack(data[:whole]))


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
