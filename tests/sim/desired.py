"""Who takes desired state and commands, as the link sees it; and the gate as they see it. In memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omamori_agent.errors import TransientError
from omamori_agent.gate import ExemptAddress, ExemptMac
from omamori_agent.gate.values import exempt_entries, exempt_mac_entries


class SimulatedDesired:
    """`omamori_agent.link.worker.DesiredPort`."""

    def __init__(self) -> None:
        self.documents: list[bytes] = []
        self.commands: list[bytes] = []
        self._report: bytes | None = None
        self._listeners: list[Callable[[], None]] = []

    def offer_document(self, signed: bytes) -> None:
        self.documents.append(signed)

    def offer_command(self, signed: bytes) -> None:
        self.commands.append(signed)

    def reported(self) -> bytes | None:
        return self._report

    def subscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def report(self, payload: bytes) -> None:
        """Have something new to tell."""
        self._report = payload
        for listener in self._listeners:
            listener()


class SimulatedJobs:
    """`omamori_agent.link.job.JobPort`."""

    def __init__(self) -> None:
        self.done: list[bytes] = []
        self._waiting: tuple[bytes, bytes] | None = None
        self._listeners: list[Callable[[], None]] = []

    def waiting(self) -> tuple[bytes, bytes] | None:
        return self._waiting

    def sent(self, command_id: bytes) -> None:
        self.done.append(command_id)
        self._waiting = None

    def subscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def offer(self, command_id: bytes, payload: bytes) -> None:
        """Have something to send."""
        self._waiting = command_id, payload
        for listener in self._listeners:
            listener()


class SimulatedSteering:
    """`omamori_agent.desired.SteeringPort`; it keeps entries as the maps would."""

    def __init__(self) -> None:
        self.is_there = True
        self.bypass_s = 0.0
        self.bypasses: list[float] = []
        self.button_s = 0.0
        self.fail_closed = False
        self.epoch = 0
        self.entries: dict[bytes, bytes] = {}

    def reset(self) -> None:
        """Be loaded anew: the maps are empty."""
        self.bypass_s, self.fail_closed, self.epoch, self.entries = 0.0, False, 0, {}

    def state(self) -> tuple[object, ...]:
        """Return everything it holds, to compare."""
        return self.bypass_s, self.fail_closed, self.epoch, tuple(sorted(self.entries.items()))

    def set_bypass(self, left_s: float) -> None:
        self._need()
        self.bypass_s = left_s
        self.bypasses.append(left_s)

    def button_left_s(self) -> float:
        self._need()
        return self.button_s

    def is_fail_closed(self) -> bool:
        self._need()
        return self.fail_closed

    def set_fail_closed(self, *, on: bool) -> None:
        self._need()
        self.fail_closed = on

    def raise_epoch(self) -> None:
        self._need()
        self.epoch += 1

    def sync_exemptions(self, addresses: Sequence[ExemptAddress], macs: Sequence[ExemptMac]) -> int:
        self._need()
        wanted = exempt_entries(addresses) | exempt_mac_entries(macs)
        changed = sum(wanted.get(key) != self.entries.get(key) for key in wanted.keys() | self.entries.keys())
        self.entries = wanted
        return changed

    def _need(self) -> None:
        if not self.is_there:
            raise TransientError("gate map control: no such file")
