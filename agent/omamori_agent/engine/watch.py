"""Watches whether the engine inspects, and accounts the time when it did not.

It asks the engine every second and repairs nothing: starting the process again is systemd's part, and traffic flows
either way. States:

* INSPECTING: the engine answers and has rules loaded.
* STARTING: it does not answer, but its service has a process.
* DOWN: neither.

`Status.uninspected_s` counts the seconds since power-on that were not INSPECTING. It survives a restart of the agent
through a small file in volatile memory; the gap between two agents counts only as far as the engine's own uptime
does not cover it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from pathlib import Path

from omamori_agent.errors import AgentError, SetupError, TransientError
from omamori_agent.files import read_bounded, write_atomic
from omamori_agent.ports import Clock, Outbox
from omamori_agent.status import StatusBoard
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EngineState, EventKind, Severity

from .control import EngineControl

logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0
_SAVE_S = 5.0
_MAX_LEDGER_BYTES = 256
_MAX_PENDING = 16
_EXPECTED_S = 120.0


@dataclasses.dataclass(frozen=True)
class Probe:
    """What one look at the engine found; `uptime_s` is None unless it inspects."""

    state: EngineState
    uptime_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Seconds without inspection, as known at a moment of the monotonic clock."""

    uninspected_s: float
    at_s: float

    def advance(self, now_s: float, probe: Probe) -> Ledger:
        """Return the ledger after a look: the time since the last one counts unless the engine covers it."""
        gap_s = max(0.0, now_s - self.at_s)
        covered_s = 0.0 if probe.uptime_s is None else min(gap_s, probe.uptime_s + 1.0)  # whole seconds, rounded down
        return Ledger(self.uninspected_s + gap_s - covered_s, now_s)


def load_ledger(path: Path, now_s: float) -> Ledger:
    """Return the ledger an earlier agent left since power-on; without one, all time since then counts."""
    try:
        body = json.loads(read_bounded(path, _MAX_LEDGER_BYTES))
        ledger = Ledger(float(body["uninspected_s"]), float(body["at_s"]))
    except FileNotFoundError:
        return Ledger(0.0, 0.0)
    except (SetupError, ValueError, TypeError, KeyError, RecursionError) as err:
        logger.warning("%s: %s; counting from power-on", path, err)
        return Ledger(0.0, 0.0)
    is_sane = 0.0 <= ledger.at_s <= now_s and 0.0 <= ledger.uninspected_s <= now_s
    return ledger if is_sane else Ledger(0.0, 0.0)


class EngineWatch:
    """Worker that keeps `Status.engine` and `Status.uninspected_s`.

    Args:
        control: The engine.
        processes: The file in which the kernel lists the processes of the engine's service.
        ledger_path: Where the account is kept while the machine is on.
        outbox: Gets an event when inspection ends and when it is back.
        status: Where the state is shown.
        clock: Monotonic time must count from power-on, as CLOCK_MONOTONIC does.
    """

    name = "engine-watch"

    def __init__(
        self,
        control: EngineControl,
        *,
        processes: Path,
        ledger_path: Path,
        outbox: Outbox,
        status: StatusBoard,
        clock: Clock,
    ) -> None:
        self._control = control
        self._processes = processes
        self._ledger_path = ledger_path
        self._outbox = outbox
        self._status = status
        self._clock = clock
        self._ledger: Ledger | None = None
        self._saved_s = 0.0
        self._was_inspecting = False
        self._lost_at_s: float | None = None
        self._expected_until_s = 0.0
        self._pending: list[Event] = []

    def expect_restart(self) -> None:
        """Say that the engine is about to be restarted on purpose; the events about it are then ★."""
        self._expected_until_s = self._clock.monotonic() + _EXPECTED_S

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`."""
        while not stop.is_set():
            self.step()
            stop.wait(_INTERVAL_S)
        if self._ledger is not None:
            self._save(self._ledger)

    def step(self) -> None:
        """Look once."""
        probe = self.probe()
        now_s = self._clock.monotonic()
        before = self._ledger or load_ledger(self._ledger_path, now_s)
        self._ledger = ledger = before.advance(now_s, probe)
        if probe.state is not self._status.get().engine or now_s - self._saved_s >= _SAVE_S:
            self._save(ledger)
        self._tell(probe, now_s)
        self._status.update(engine=probe.state, uninspected_s=ledger.uninspected_s)

    def probe(self) -> Probe:
        """Ask the engine once."""
        try:
            pulse = self._control.pulse()
            if pulse.rules.loaded > 0:
                return Probe(EngineState.INSPECTING, float(pulse.uptime_s))
        except AgentError as err:
            logger.debug("engine: %s", err)
        return Probe(EngineState.STARTING if self._has_process() else EngineState.DOWN)

    def process(self) -> int | None:
        """Return the id of the engine's process as its supervisor sees it, None if there is none."""
        try:
            first = self._processes.read_bytes().split(b"\n", 1)[0]
        except OSError:
            return None
        return int(first) if first.isdigit() else None

    def _has_process(self) -> bool:
        try:
            return bool(self._processes.read_bytes())
        except OSError:
            return False

    def _save(self, ledger: Ledger) -> None:
        self._saved_s = ledger.at_s
        body = json.dumps({"uninspected_s": round(ledger.uninspected_s, 3), "at_s": round(ledger.at_s, 3)})
        try:
            write_atomic(self._ledger_path, body.encode())
        except OSError as err:
            logger.debug("uninspected time not saved: %s", err)

    def _tell(self, probe: Probe, now_s: float) -> None:
        is_inspecting = probe.state is EngineState.INSPECTING
        severity = Severity.ONE if now_s < self._expected_until_s else Severity.TWO
        if self._was_inspecting and not is_inspecting:
            self._lost_at_s = now_s
            self._add("engine down: traffic passes without inspection", severity)
        elif is_inspecting and self._lost_at_s is not None:
            self._add(f"engine up: inspecting again after {now_s - self._lost_at_s:.0f} s", severity)
            self._lost_at_s = None
        self._was_inspecting = is_inspecting
        if not self._pending:
            return
        try:
            self._outbox.put(self._pending)
        except TransientError as err:
            logger.debug("engine events wait: %s", err)
        else:
            self._pending = []

    def _add(self, text: str, severity: Severity) -> None:
        logger.warning("%s", text)
        at_ms = int(self._clock.now() * 1000)
        event = Event(boot=0, seq=0, at_ms=at_ms, kind=EventKind.SYSTEM, severity=severity, text=text)
        self._pending = [*self._pending, event][-_MAX_PENDING:]
