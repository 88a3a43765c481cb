"""What passed uninspected is counted once, under the right reason, and survives agent, machine and disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omamori_agent.errors import TransientError
from omamori_agent.gate import Control, Count, Uninspected
from omamori_agent.ledger import LedgerWorker
from omamori_agent.ledger.book import QUIET_S, TELL_S, Book, Entry, Look
from omamori_agent.ledger.state import MAX_BYTES, BadStateError, SavedBook, decode, encode
from omamori_agent.ledger.worker import CURSOR
from omamori_agent.status import StatusBoard
from omamori_protocol.messages import Event
from omamori_protocol.vocabulary import EngineState, EventKind
from omamori_protocol.vocabulary import UninspectedReason as Reason
from sim.clock import ManualClock
from sim.outbox import MemoryOutbox

NO_CONTROL = Control(hung_until=None, bypass_until=None, button_until=None, epoch=0, fail_closed=False)


class Gate:
    """The gate's counts and leases, as long as it is there."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Uninspected, Count(0, 0))
        self.leases = NO_CONTROL
        self.is_there = True

    def passes(self, reason: Uninspected, packets: int) -> None:
        before = self.counts[reason]
        self.counts[reason] = Count(before.packets + packets, before.bytes + 100 * packets)

    def uninspected(self) -> dict[Uninspected, Count]:
        self._need()
        return dict(self.counts)

    def control(self) -> Control:
        self._need()
        return self.leases

    def close(self) -> None:
        pass

    def _need(self) -> None:
        if not self.is_there:
            raise TransientError("gate map uninspected: no such file")


class Box:
    """A box that has just started; `worker` is a new run of the agent on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.gate = Gate()
        self.clock = ManualClock(monotonic_s=0.0)
        self.outbox = MemoryOutbox()
        self.status = StatusBoard()
        self.is_wired = True
        self.past_s: int | None = None
        self.engine = EngineState.INSPECTING
        self.power_on("first")
        self.run = self.worker()

    def power_on(self, boot_id: str) -> None:
        (self.directory / "boot_id").write_text(f"{boot_id}\n")
        (self.directory / "ledger.json").unlink(missing_ok=True)
        self.gate.counts = dict.fromkeys(Uninspected, Count(0, 0))
        self.clock.monotonic_s = 0.0
        self.status = StatusBoard()

    def worker(self) -> LedgerWorker:
        return LedgerWorker(
            open_gate=lambda: self.gate,
            is_wired=lambda: self.is_wired,
            past_s=lambda: self.past_s,
            boot_id_path=self.directory / "boot_id",
            copy_path=self.directory / "ledger.json",
            outbox=self.outbox,
            status=self.status,
            clock=self.clock,
        )

    def live(self, seconds: int, reason: Uninspected | None = None, packets: int = 0) -> None:
        """Let time pass, a look every second; `packets` pass for `reason` in each."""
        for _ in range(seconds):
            self.clock.advance(1)
            if reason is not None:
                self.gate.passes(reason, packets)
            away = 0.0 if self.engine is EngineState.INSPECTING else 1.0
            self.status.update(engine=self.engine, uninspected_s=self.status.get().uninspected_s + away)
            self.run.step()

    def told(self) -> dict[Reason, tuple[int, int]]:
        """Seconds and packets told so far, by reason."""
        sums: dict[Reason, tuple[int, int]] = {}
        for event in self.outbox.of(EventKind.LEDGER):
            assert event.uninspected_reason is not None
            assert event.size_bytes == 100 * (event.packets or 0)
            before = sums.get(event.uninspected_reason, (0, 0))
            sums[event.uninspected_reason] = (
                before[0] + (event.uninspected_s or 0),
                before[1] + (event.packets or 0),
            )
        return sums


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_box_that_inspects_tells_nothing(box: Box) -> None:
    box.live(400)
    assert box.told() == {}


@pytest.mark.parametrize(
    ("state", "reason"),
    [(EngineState.DOWN, Reason.ENGINE_DOWN), (EngineState.STARTING, Reason.ENGINE_STARTING)],
)
def test_engine_away(box: Box, state: EngineState, reason: Reason) -> None:
    box.live(5)
    box.engine = state
    box.live(20, Uninspected.NO_VERDICT, 7)
    box.engine = EngineState.INSPECTING
    box.live(8)
    assert box.told() == {reason: (20, 140)}


def test_packets_at_the_edge_belong_to_the_absent_engine(box: Box) -> None:
    box.live(3)
    box.engine = EngineState.DOWN
    box.live(2, Uninspected.NO_VERDICT, 5)
    box.engine = EngineState.INSPECTING
    box.live(1, Uninspected.NO_VERDICT, 5)
    box.live(8)
    assert box.told() == {Reason.ENGINE_DOWN: (2, 15)}


def test_queue_full_while_the_engine_inspects_is_overload(box: Box) -> None:
    box.live(3)
    box.live(4, Uninspected.NO_VERDICT, 1000)
    box.live(8)
    assert box.told() == {Reason.OVERLOAD: (4, 4000)}


def test_stutter_is_one_stretch(box: Box) -> None:
    box.live(1)
    for _ in range(10):
        box.live(1, Uninspected.NO_VERDICT, 1)
        box.live(2)
    assert box.told() == {}
    box.live(8)
    assert box.told() == {Reason.OVERLOAD: (10, 10)}
    assert len(box.outbox.events) == 1


def test_hung_engine_is_one_reason_whatever_it_answers(box: Box) -> None:
    box.live(3)
    box.gate.leases = dataclasses.replace(NO_CONTROL, hung_until=1.0)
    box.live(1, Uninspected.HUNG, 50)  # the engine has just been asked and had answered
    box.engine = EngineState.STARTING
    box.live(3, Uninspected.HUNG, 50)
    box.gate.leases = NO_CONTROL
    box.engine = EngineState.INSPECTING
    box.live(8)
    assert box.told() == {Reason.ENGINE_HUNG: (4, 200)}
    assert box.status.get().passed_by_s == 1.0  # the other three are the engine's own


def test_planned_restart_is_no_hang(box: Box) -> None:
    box.live(3)
    box.live(1, Uninspected.PAUSED, 20)
    box.engine = EngineState.STARTING
    box.live(4, Uninspected.NO_VERDICT, 40)
    box.engine = EngineState.INSPECTING
    box.live(8)
    assert box.told() == {Reason.ENGINE_STARTING: (4, 20 + 4 * 40)}


def test_command_and_button(box: Box) -> None:
    box.live(3)
    box.gate.leases = dataclasses.replace(NO_CONTROL, bypass_until=1.0)
    box.live(30, Uninspected.COMMAND, 10)
    box.gate.leases = dataclasses.replace(NO_CONTROL, button_until=1.0)
    box.live(30)
    box.gate.leases = NO_CONTROL
    box.live(8)
    assert box.told() == {Reason.COMMAND: (60, 300)}
    assert box.status.get().passed_by_s == 60.0


def test_exempt_traffic_is_told_every_five_minutes_while_it_lasts(box: Box) -> None:
    box.live(int(TELL_S) + 1, Uninspected.EXEMPT, 2)
    assert len(box.outbox.events) == 1
    box.live(int(TELL_S), Uninspected.EXEMPT, 2)
    assert len(box.outbox.events) == 2
    box.live(8)
    assert box.told() == {Reason.EXEMPT: (601, 1202)}
    first, second = box.outbox.events[:2]
    assert second.at_ms - first.at_ms == pytest.approx(TELL_S * 1000, abs=1500)


def test_no_gate_and_no_way_to_the_queue(box: Box) -> None:
    box.live(2)
    box.gate.is_there = False
    box.live(10)
    box.gate.is_there = True
    box.live(8)
    assert box.told() == {Reason.NO_GATE: (10, 0)}
    box.is_wired = False
    box.live(5, Uninspected.NO_VERDICT, 3)
    box.is_wired = True
    box.live(8)
    assert box.told() == {Reason.NO_GATE: (15, 15)}


def test_the_wire_past_the_box_counts_also_while_the_box_was_off(box: Box) -> None:
    box.past_s = 100  # from before this box knew its supervisor
    box.live(2)
    assert box.told() == {}
    box.past_s = 103
    box.live(8)
    assert box.told() == {Reason.RELAY: (3, 0)}
    box.live(40)  # the last numbers are kept
    box.power_on("second")
    box.run = box.worker()
    box.past_s = None
    box.live(2)
    box.past_s = 163
    box.live(8)
    assert box.told() == {Reason.RELAY: (63, 0)}
    box.past_s = 4  # the supervisor began anew
    box.live(8)
    assert box.told() == {Reason.RELAY: (67, 0)}


def test_what_passed_before_the_agent_ran_counts(box: Box) -> None:
    box.clock.advance(40)
    box.gate.passes(Uninspected.NO_VERDICT, 500)
    box.status.update(uninspected_s=39.0)
    box.live(10)
    assert box.told() == {Reason.ENGINE_STARTING: (39, 500)}


def test_reloaded_gate_counts_from_zero(box: Box) -> None:
    box.live(1)
    box.live(2, Uninspected.NO_VERDICT, 100)
    box.gate.counts = dict.fromkeys(Uninspected, Count(0, 0))
    box.live(1, Uninspected.NO_VERDICT, 7)
    box.live(8)
    assert box.told() == {Reason.OVERLOAD: (3, 207)}


@pytest.mark.parametrize("is_clean", [True, False], ids=["stopped", "killed"])
def test_restart_of_the_agent_loses_and_repeats_nothing(box: Box, is_clean: bool) -> None:
    box.live(2)
    box.live(60, Uninspected.EXEMPT, 3)
    if is_clean:
        box.run._copy(box.run._book)  # type: ignore[arg-type]
    for _ in range(10):
        box.clock.advance(1)
        box.gate.passes(Uninspected.EXEMPT, 3)
    box.run = box.worker()
    box.live(5, Uninspected.EXEMPT, 3)
    box.live(8)
    seconds, packets = box.told()[Reason.EXEMPT]
    assert packets == 225
    assert 65 <= seconds <= 75


def test_restart_between_telling_and_copying_tells_nothing_twice(box: Box) -> None:
    box.live(1)
    box.live(3, Uninspected.NO_VERDICT, 1)
    copy = (box.directory / "ledger.json").read_text() if (box.directory / "ledger.json").exists() else ""
    box.live(8)
    assert box.told() == {Reason.OVERLOAD: (3, 3)}
    (box.directory / "ledger.json").write_text(copy)
    box.run = box.worker()
    box.live(20)
    assert box.told() == {Reason.OVERLOAD: (3, 3)}


def test_power_cut_keeps_what_had_been_kept(box: Box) -> None:
    box.live(2)
    box.gate.leases = dataclasses.replace(NO_CONTROL, bypass_until=1.0)
    box.live(60, Uninspected.COMMAND, 10)
    box.gate.leases = NO_CONTROL
    box.power_on("second")
    box.run = box.worker()
    box.live(1)
    seconds, packets = box.told()[Reason.COMMAND]
    assert 30 <= seconds <= 60
    assert packets == seconds * 10
    box.live(20)
    assert len(box.outbox.events) == 1


def test_full_disk_delays_the_telling_and_loses_nothing(box: Box) -> None:
    box.live(2)
    box.outbox.failures = 3
    box.live(5, Uninspected.NO_VERDICT, 4)
    box.live(20)
    assert box.told() == {}
    box.live(25)
    assert box.told() == {Reason.OVERLOAD: (5, 20)}


def test_outbox_that_lost_its_cursors_does_not_count_the_boot_again(box: Box) -> None:
    box.live(1)
    box.live(3, Uninspected.NO_VERDICT, 5)
    box.live(20)
    box.outbox.cursors.clear()
    box.run = box.worker()
    box.live(20)
    assert box.told() == {Reason.OVERLOAD: (3, 15)}


FULL = SavedBook(
    "b" * 64,
    Book(
        at_s=1e9,
        engine=EngineState.DOWN,
        engine_s=1e9,
        passed_by_s=1e9,
        counts=dict.fromkeys(Uninspected, Count(2**64 - 1, 2**64 - 1)),
        entries=tuple(
            Entry(
                reason=reason,
                began_ms=2**43,
                began_s=123456789.123,
                active_s=123456789.123,
                seconds=123456789.123,
                packets=2**64 - 1,
                size_bytes=2**64 - 1,
            )
            for reason in Reason
        ),
        past_s=2**32 - 1,
    ),
)


def test_fullest_ledger_fits_and_survives() -> None:
    text = encode(FULL)
    assert len(text) <= MAX_BYTES
    assert decode(text) == FULL
    with pytest.raises(BadStateError):
        decode(text + " " * (MAX_BYTES + 1 - len(text)))


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "{}", '{"version": 1}', '{"version": 2}', "[" * 4000])
def test_text_that_is_no_ledger(text: str) -> None:
    with pytest.raises(BadStateError):
        decode(text)


@given(st.text(max_size=60), st.integers(0, 400))
def test_damaged_ledger_is_refused_or_sane(noise: str, place: int) -> None:
    text = encode(FULL)
    try:
        saved = decode(text[:place] + noise + text[place + len(noise) :])
    except BadStateError:
        return
    for event in [entry.event() for entry in saved.book.entries]:
        assert Event.decode(event.encode()) == event


def test_damaged_copies_are_not_the_end(box: Box) -> None:
    box.outbox.cursors[CURSOR] = "x"
    (box.directory / "ledger.json").write_bytes(b"\xff" * (MAX_BYTES + 1))
    box.live(1)
    box.live(3, Uninspected.NO_VERDICT, 1)
    box.live(8)
    assert box.told() == {Reason.OVERLOAD: (3, 3)}


def test_amounts_beyond_the_message_are_cut() -> None:
    event = FULL.book.entries[0].event()
    assert event.packets == 2**63 - 1
    assert Event.decode(event.encode()) == event


def look(at_s: float, packets: int) -> Look:
    counts = {Uninspected.NO_VERDICT: Count(packets, packets)}
    return Look(at_s=at_s, now_ms=0, engine=EngineState.INSPECTING, engine_s=0.0, counts=counts)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 1000)), max_size=40))
def test_every_packet_is_told_exactly_once(steps: list[tuple[float, int]]) -> None:
    book, at_s, packets, told = Book(), 0.0, 0, 0
    for seconds, more in [*steps, (QUIET_S + 0.001, 0)]:  # sums of such times are not exact
        at_s += seconds
        packets += more
        book = book.advance(look(at_s, packets))
        told += sum(event.packets or 0 for event in book.due())
        book = book.settle(0)
    assert told + sum(entry.packets for entry in book.entries) == packets
    assert len(book.entries) <= 1
