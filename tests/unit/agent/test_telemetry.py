"""What the supervisor told goes to heartbeat, state and events; each power event once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omamori_agent.config import SpoolLimits
from omamori_agent.errors import TransientError
from omamori_agent.heartbeat import HeartbeatWorker
from omamori_agent.identity import Identity
from omamori_agent.link.presence import Beginning, describe
from omamori_agent.ports import Cursor
from omamori_agent.spool import LANES, Spool
from omamori_agent.status import StatusBoard
from omamori_agent.telemetry import StateReader, TelemetryWorker
from omamori_protocol.messages import Event, State, SupervisorState
from omamori_protocol.vocabulary import EventKind, PowerKind, Presence, Severity
from sim.box import DEVICE, box_config
from sim.clock import ManualClock
from sim.herald_file import write_herald_file

UPTIME_S = 25.0


class Gate:
    def counters(self) -> dict[Any, Any]:
        return {}


class Box:
    """A box's spool, and one run of its agent after the other."""

    def __init__(self, root: Path) -> None:
        self.config = box_config(root)
        self.path = self.config.paths.supervisor
        self.clock = ManualClock()
        self.spool = Spool(self.config.paths.spool, SpoolLimits(), self.clock)
        self.spool.open()
        self.boot_id = "boot-a"
        self.start()

    def start(self) -> None:
        """Begin anew, as the agent does."""
        self.status = StatusBoard()
        self.reader = StateReader(self.path, self.clock.monotonic)
        self.worker = TelemetryWorker(
            reader=self.reader,
            boot_id=self.boot_id,
            uptime_s=lambda: UPTIME_S,
            outbox=self.spool,
            status=self.status,
            clock=self.clock,
        )

    def reboot(self) -> None:
        self.boot_id += "b"
        self.start()

    def look(self, **changes: Any) -> SupervisorState | None:
        write_herald_file(self.path, **changes)
        self.worker.step()
        return self.status.get().supervisor

    @property
    def told(self) -> list[tuple[PowerKind | None, int | None, int | None]]:
        events = [Event.decode(item.body) for lane in LANES for item in self.spool.read_after(lane, 0, 100)]
        return [(item.power_kind, item.power_serial, item.power_ms) for item in events if item.kind is EventKind.POWER]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_board_without_a_supervisor(box: Box) -> None:
    box.worker.step()
    status = box.status.get()
    assert (status.supervisor, status.celsius, status.millivolts) == (None, None, None)
    assert (box.worker.power_before(), box.worker.past_s(), box.told) == (None, None, [])


def test_facts_and_figures(box: Box) -> None:
    assert box.look(celsius=-3, power=(4, "short-pull", 5012)) == SupervisorState(
        answers=True,
        chip="1.4.0",
        through=True,
        moves=1,
        past_s=12,
        resets=0,
        restarts=0,
        power_serial=4,
        power_kind=PowerKind.SHORT_PULL,
        power_ms=5012,
        lease_ms=150,
    )
    status = box.status.get()
    assert (status.celsius, status.millivolts, box.worker.past_s()) == (-3, 3300, 12)


def test_a_heartbeat_has_one_figure_at_a_time(box: Box) -> None:
    heartbeats = HeartbeatWorker(
        config=box.config, spool=box.spool, status=box.status, gate=Gate(), clock=box.clock, offer=lambda _: None
    )
    box.look(celsius=41, millivolts=3300)
    found = [heartbeats.compose() for _ in range(4)]
    assert [(one.celsius, one.millivolts) for one in found] == [(None, 3300), (41, None)] * 2


def test_what_only_counts_on_is_told_once_a_minute(box: Box) -> None:
    box.look(past_s=1)
    box.clock.advance(59)
    told = box.look(past_s=60)
    assert told is not None
    assert told.past_s == 1
    assert box.worker.past_s() == 60  # the ledger's business
    box.clock.advance(1)
    told = box.look(past_s=61)
    assert told is not None
    assert told.past_s == 61
    told = box.look(past_s=62, through=0, moves=2)  # at once
    assert told is not None
    assert (told.through, told.past_s) == (False, 62)


def test_a_supervisor_that_does_not_answer_any_more(box: Box) -> None:
    box.look()
    told = box.look(is_up=False)
    assert told is not None
    assert (told.answers, told.chip) == (False, "1.4.0")
    assert (box.status.get().celsius, box.status.get().millivolts) == (None, None)


def test_a_file_that_is_refused_is_no_news(box: Box) -> None:
    box.look()
    box.path.write_text("{")
    box.worker.step()
    told = box.status.get().supervisor
    assert told is not None
    assert (told.answers, told.through, told.moves) == (False, None, 1)
    assert (box.status.get().celsius, box.worker.past_s()) == (None, None)
    assert sum(box.reader.refused.values()) == 1


def test_a_refused_file_from_the_beginning_is_a_board_without(box: Box) -> None:
    box.path.parent.mkdir(parents=True)
    box.path.write_text("{")
    assert box.worker.power_before() is None
    assert box.status.get().supervisor is None


def test_each_power_event_is_told_once(box: Box) -> None:
    box.look(power=(1, "cold", 0))
    box.look(power=(1, "cold", 0), uptime_s=42)
    box.start()  # the agent alone
    box.look(power=(1, "cold", 0), uptime_s=50)
    box.look(power=(2, "dip", 120), uptime_s=60)
    box.reboot()
    box.look(power=(2, "dip", 120), uptime_s=90)
    assert box.told == [(PowerKind.COLD, 1, 0), (PowerKind.DIP, 2, 120)]
    box.reboot()
    box.look(power=(3, "short-pull", 5000), uptime_s=140)
    assert box.told[2:] == [(PowerKind.SHORT_PULL, 3, 5000)]


def test_when_it_was_and_how_grave(box: Box) -> None:
    box.look(power=(1, "long-pull", 60_000))
    box.look(power=(2, "brown-out", 0))
    events = [Event.decode(item.body) for lane in LANES for item in box.spool.read_after(lane, 0, 10)]
    now_ms = int(box.clock.now() * 1000)
    assert {(item.power_kind, item.at_ms, item.severity) for item in events} == {
        (PowerKind.LONG_PULL, now_ms - 25_000, Severity.ONE),  # the power came back when the box began to run
        (PowerKind.BROWN_OUT, now_ms, Severity.TWO),
    }


def test_what_began_this_run_of_the_box(box: Box) -> None:
    write_herald_file(box.path, power=(2, "short-pull", 5000))
    assert box.worker.power_before() == (PowerKind.SHORT_PULL, 5000)  # the link may ask before the first look
    box.look(power=(3, "dip", 100))
    box.start()
    assert box.worker.power_before() == (PowerKind.SHORT_PULL, 5000)
    box.reboot()
    assert box.worker.power_before() == (PowerKind.NONE, 0)


@pytest.mark.parametrize(
    ("power", "expected"),
    [(None, (None, None)), ((PowerKind.NONE, 0), (PowerKind.NONE, 0)), ((PowerKind.DIP, 120), (PowerKind.DIP, 120))],
)
def test_a_birth_tells_it(box: Box, power: tuple[PowerKind, int] | None, expected: tuple[Any, Any]) -> None:
    box.look()
    path = box.config.paths.identity
    birth = describe(
        box.config,
        Identity(device=DEVICE, key_path=path / "k", certificate_path=path / "c", begins_s=0, expires_s=2_000_000_000),
        box.status.get(),
        session=bytes(8),
        presence=Presence.ONLINE,
        boot=1,
        since_s=1.0,
        beginning=Beginning(power_before=power),
    )
    told = State.decode(birth.encode())
    assert (told.power_before, told.power_before_ms) == expected
    assert told.supervisor == box.status.get().supervisor
    assert told.supervisor is not None


def test_before_the_supervisor_has_told_all_nothing_is_guessed(box: Box) -> None:
    box.look(power=(2, "short-pull", 5000), uptime_s=None, chip_restarts=None)
    assert box.worker.power_before() is None
    assert box.told == []


def test_a_full_disk_delays_the_telling(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = []

    def refuse(events: list[Event], cursor: Cursor | None = None) -> None:
        refusals.append((events, cursor))
        raise TransientError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(box.spool, "put", refuse)
        box.look()
        box.look(uptime_s=42)
        assert len(refusals) == 1  # not every two seconds
    box.clock.advance(10)
    box.look(uptime_s=50)
    assert box.told == [(PowerKind.COLD, 1, 0)]
    assert box.worker.power_before() == (PowerKind.COLD, 0)


def test_a_cursor_that_cannot_be_read(box: Box) -> None:
    box.spool.put([], Cursor("power", "{"))
    box.look(power=(7, "dip", 100))
    assert box.told == [(PowerKind.DIP, 7, 100)]
