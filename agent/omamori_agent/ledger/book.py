"""Adds up what passed uninspected, by reason, and decides what is told when. No input and no output here.

Rules:

* Packets and bytes are the gate's counts, each counted once. Seconds of a missing engine are those of
  `Status.uninspected_s`, so that ledger and heartbeat agree.
* A packet without a verdict belongs to the engine's state: down, starting, hung. While the engine inspects, nobody
  had room for it: overload. While the bridge does not lead packets to the queue at all: no-gate.
* What went past the box by the supervisor's relay is counted in seconds, and by the supervisor: the box may have been
  off. Packets nobody counts. The engine's own seconds go on meanwhile.
* A stretch of one reason is an entry. It is told every five minutes while it lasts and when it has been over for
  some seconds; what was told is never told again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from omamori_agent.gate import Count, Uninspected
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EngineState, EventKind, Severity, UninspectedReason

QUIET_S = 5.0  # an entry silent for so long is over; below it, stutter is one stretch
TELL_S = 300.0
MAX_STEP_S = 10.0  # between two looks; what lasted while nobody looked is not guessed

_MAX_SECONDS = 2**32 - 1
_MAX_COUNT = 2**63 - 1
_NOTHING = Count(0, 0)
_ENGINE_REASONS = {
    EngineState.DOWN: UninspectedReason.ENGINE_DOWN,
    EngineState.STARTING: UninspectedReason.ENGINE_STARTING,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What one look found.

    Attributes:
        at_s: Seconds since power-on.
        now_ms: Unix time in milliseconds.
        engine: The engine's state.
        engine_s: Seconds since power-on in which the engine did not inspect.
        counts: The gate's counts since it was loaded; None without a gate.
        is_wired: Whether bridged packets are led to the queue.
        is_hung: A lease lets everything pass because the engine hangs.
        is_commanded: A command or the button lets everything pass.
        past_s: For how long the supervisor has led the wire past the box since its start; None: it did not tell.
    """

    at_s: float
    now_ms: int
    engine: EngineState
    engine_s: float
    counts: Mapping[Uninspected, Count] | None
    is_wired: bool = True
    is_hung: bool = False
    is_commanded: bool = False
    past_s: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """What one reason let pass since it was last told.

    Attributes:
        reason: Why.
        began_ms: When the counted span began, Unix time in milliseconds.
        began_s: The same in seconds since power-on.
        active_s: When something was last added; negative for an entry of an earlier boot.
        seconds: How long.
        packets: How many packets.
        size_bytes: Their bytes.
    """

    reason: UninspectedReason
    began_ms: int
    began_s: float
    active_s: float
    seconds: float = 0.0
    packets: int = 0
    size_bytes: int = 0

    def event(self) -> Event:
        """Return what is told of it; begun seconds count."""
        return Event(
            boot=0,
            seq=0,
            at_ms=self.began_ms,
            kind=EventKind.LEDGER,
            severity=Severity.ONE,
            uninspected_reason=self.reason,
            uninspected_s=min(math.ceil(self.seconds), _MAX_SECONDS),
            packets=min(self.packets, _MAX_COUNT),
            size_bytes=min(self.size_bytes, _MAX_COUNT),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Book:
    """The ledger at a moment; without arguments, at power-on.

    Attributes:
        at_s: When it was last looked, seconds since power-on.
        engine: The engine's state then.
        engine_s: Seconds in which the engine did not inspect, until then.
        counts: The gate's counts then.
        passed_by_s: Seconds since power-on in which a lease let everything pass an inspecting engine.
        entries: What is not told yet, one for each reason at most.
        past_s: What the supervisor told last of the wire past the box; None before it did.
    """

    at_s: float = 0.0
    engine: EngineState = EngineState.STARTING
    engine_s: float = 0.0
    counts: Mapping[Uninspected, Count] = dataclasses.field(default_factory=dict)
    passed_by_s: float = 0.0
    entries: tuple[Entry, ...] = ()
    past_s: int | None = None

    def advance(self, look: Look) -> Book:
        """Return the ledger after a look."""
        step_s = min(max(0.0, look.at_s - self.at_s), MAX_STEP_S)
        engine_s = max(0.0, look.engine_s - self.engine_s)
        news = {reason: self._growth(look, reason) for reason in Uninspected}
        entries = {entry.reason: entry for entry in self.entries}

        def add(reason: UninspectedReason, seconds: float, count: Count) -> None:
            entry = entries.get(reason) or Entry(
                reason=reason, began_ms=look.now_ms - round(seconds * 1000), began_s=look.at_s, active_s=look.at_s
            )
            entries[reason] = dataclasses.replace(
                entry,
                active_s=look.at_s,
                seconds=entry.seconds + seconds,
                packets=entry.packets + count.packets,
                size_bytes=entry.size_bytes + count.bytes,
            )

        is_hung = look.is_hung or news[Uninspected.HUNG].packets > 0
        absent = self._absent_engine(look, engine_s, is_hung=is_hung)
        unseen = news[Uninspected.NO_VERDICT]
        if absent is not None:
            add(absent, engine_s, unseen)
        elif unseen.packets and look.is_wired:
            add(UninspectedReason.OVERLOAD, step_s, unseen)
        if look.counts is None or not look.is_wired:
            add(UninspectedReason.NO_GATE, step_s, _NOTHING if absent is not None else unseen)
        if is_hung:
            counted = absent is UninspectedReason.ENGINE_HUNG and engine_s > 0
            add(UninspectedReason.ENGINE_HUNG, 0.0 if counted else step_s, news[Uninspected.HUNG])
        if news[Uninspected.PAUSED].packets:
            add(UninspectedReason.ENGINE_STARTING, 0.0, news[Uninspected.PAUSED])  # the seconds count once it is down
        if look.is_commanded or news[Uninspected.COMMAND].packets:
            add(UninspectedReason.COMMAND, step_s, news[Uninspected.COMMAND])
        if news[Uninspected.EXEMPT].packets:
            add(UninspectedReason.EXEMPT, step_s, news[Uninspected.EXEMPT])
        if past_s := self._past(look):
            add(UninspectedReason.RELAY, past_s, _NOTHING)

        passed_by_s = step_s if absent is None and (is_hung or look.is_commanded) else 0.0
        return dataclasses.replace(
            self,
            at_s=look.at_s,
            engine=look.engine,
            engine_s=look.engine_s,
            counts=self.counts if look.counts is None else dict(look.counts),
            passed_by_s=self.passed_by_s + passed_by_s,
            entries=tuple(entries.values()),
            past_s=self.past_s if look.past_s is None else look.past_s,
        )

    def due(self) -> list[Event]:
        """Return what has to be told now."""
        return [entry.event() for entry in self.entries if self._is_due(entry)]

    def settle(self, now_ms: int) -> Book:
        """Return the ledger once `due` has been told: entries that are over are gone, the others begin anew."""
        entries = []
        for entry in self.entries:
            if self._is_over(entry):
                continue
            anew = Entry(reason=entry.reason, began_ms=now_ms, began_s=self.at_s, active_s=entry.active_s)
            entries.append(anew if self._is_due(entry) else entry)
        return dataclasses.replace(self, entries=tuple(entries))

    def after_power_on(self) -> Book:
        """Return the ledger for a new boot: what an earlier one left is over, everything else counts anew."""
        entries = tuple(dataclasses.replace(entry, active_s=-QUIET_S) for entry in self.entries)
        return Book(entries=entries, past_s=self.past_s)

    def _absent_engine(self, look: Look, engine_s: float, *, is_hung: bool) -> UninspectedReason | None:
        """Return why there was no engine since the last look, or None if there was one."""
        state = look.engine if look.engine is not EngineState.INSPECTING else self.engine
        if state is EngineState.INSPECTING and not engine_s:
            return None
        if is_hung:
            return UninspectedReason.ENGINE_HUNG
        return _ENGINE_REASONS.get(state, UninspectedReason.ENGINE_DOWN)

    def _growth(self, look: Look, reason: Uninspected) -> Count:
        if look.counts is None:
            return _NOTHING
        new, old = look.counts.get(reason, _NOTHING), self.counts.get(reason, _NOTHING)
        if new.packets < old.packets or new.bytes < old.bytes:
            return new  # the gate was loaded anew
        return Count(new.packets - old.packets, new.bytes - old.bytes)

    def _past(self, look: Look) -> int:
        """Return for how long the wire has led past the box since the last look; before the first one is unknown."""
        if look.past_s is None or self.past_s is None:
            return 0
        return look.past_s - self.past_s if look.past_s >= self.past_s else look.past_s  # the supervisor began anew

    def _is_over(self, entry: Entry) -> bool:
        return self.at_s - entry.active_s >= QUIET_S

    def _is_due(self, entry: Entry) -> bool:
        is_time = self._is_over(entry) or self.at_s - entry.began_s >= TELL_S
        return is_time and bool(entry.seconds or entry.packets)
