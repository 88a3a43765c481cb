"""The box's end of the link and the board abilities, against the supervisor's own rules in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omamori_hw.board import parse_board
from omamori_hw.errors import BadMessageError, HardwareError, LinkLostError, NoAnswerError, RefusedError
from omamori_hw.supervisor import messages
from omamori_hw.supervisor.abilities import SupervisedWatchdog, board_abilities
from omamori_hw.supervisor.frames import encode
from omamori_hw.supervisor.line import Line, open_line
from omamori_hw.supervisor.link import MAX_EVENTS, LinkConfig, SupervisorLink, kernel_boot
from omamori_hw.supervisor.messages import BoxState, EventKind, Kind, PowerKind, Reason, Show, State
from omamori_hw.supervisor.telemetry import Measurement, resolve
from omamori_protocol import cbor
from sim.supervisor_chip import Chip, wait_for

HW = Path(__file__).resolve().parents[3] / "hw"
BOARD = (HW / "boards" / "x86_64-uefi" / "board.toml").read_text()
ALWAYS = BOARD.replace('[supervisor]\npresence = "detect"', '[supervisor]\npresence = "always"')


@pytest.fixture
def chip() -> Iterator[Chip]:
    with Chip() as made:
        yield made


@pytest.fixture
def link(chip: Chip) -> Iterator[SupervisorLink]:
    config = LinkConfig(Path("/dev/null"), "1.2.3", lease_ms=2000, answer_s=20.0, resend_s=0.05, reopen_s=0.05)
    made = SupervisorLink(config, open_=chip.open)
    made.start()
    wait_for("the supervisor's first word", lambda: made.welcome)
    yield made
    made.stop()


def test_the_wire_goes_through_a_box_that_says_it_forwards(chip: Chip, link: SupervisorLink) -> None:
    assert link.is_up
    assert not link.status().through
    link.say(BoxState.FORWARDING)
    wait_for("the wire", lambda: link.status().through)
    assert link.status().state is State.PROTECTING
    link.announce(Reason.UPDATE, 60)
    assert link.status().state is State.UPDATING
    assert chip.moves == [False, True, False]
    assert (EventKind.WIRE, 1) in link.take_events()
    assert link.take_events() == []


def test_a_request_is_repeated_until_it_is_answered_and_done_once(chip: Chip, link: SupervisorLink) -> None:
    chip.deaf = True
    timer = threading.Timer(0.3, setattr, [chip, "deaf", False])
    timer.start()
    link.reset_box()
    timer.join()
    assert len(chip.keeper._wishes) == 1
    link.reset_box()
    link.reset_box()
    with pytest.raises(RefusedError) as caught:
        link.reset_box()
    assert caught.value.result == messages.Result.TOO_OFTEN


def test_a_new_program_of_the_same_boot_does_not_move_the_relay(chip: Chip) -> None:
    config = LinkConfig(Path("/dev/null"), "1", lease_ms=2000, answer_s=20.0, boot=kernel_boot())
    for _ in range(2):
        link = SupervisorLink(config, open_=chip.open)
        link.say(BoxState.FORWARDING)
        link.start()
        wait_for("the wire", lambda link=link: link.status().through)
        chip.frozen = chip.now()  # how long the change takes is this machine's affair
        first = link.status().moves
        link.stop()
        chip.unplug()
    assert (first, chip.moves) == (1, [False, True])


def test_a_machine_that_does_not_tell_its_boot(tmp_path: Path) -> None:
    with pytest.raises(LinkLostError):
        kernel_boot(tmp_path / "absent")


def test_a_supervisor_that_does_not_answer(chip: Chip) -> None:
    chip.deaf = True
    link = SupervisorLink(LinkConfig(Path("/dev/null"), "1", answer_s=0.2, silent_s=0.1), open_=chip.open)
    link.start()
    try:
        with pytest.raises(NoAnswerError):
            link.status()
        wait_for("the link to count as down", lambda: not link.is_up)
    finally:
        link.stop()


def test_a_line_that_breaks_is_opened_again(chip: Chip, link: SupervisorLink) -> None:
    for _ in range(3):
        chip.unplug()
        wait_for("the line", lambda: chip._ours is not None)
        assert link.status().state is State.STARTING


def test_a_line_that_is_not_there_is_tried_again() -> None:
    tried = []

    def open_(path: Path) -> Line:
        tried.append(path)
        raise LinkLostError("not there")

    link = SupervisorLink(LinkConfig(Path("/dev/ttyS9"), "1", reopen_s=0.01), open_=open_)
    link.start()
    wait_for("three attempts", lambda: len(tried) >= 3)
    link.stop()
    assert not link.is_up


def test_what_is_no_message_is_counted_and_ignored(chip: Chip, link: SupervisorLink) -> None:
    chip.send(b"\0\xff\0" + encode(60_000, cbor.encode({0: 99})) + encode(60_001, b"\xff"))
    wait_for("the count", lambda: link.unknown == 2)
    assert link.decoder.counters.damaged == 1
    assert link.status().state is State.STARTING


def test_events_beyond_the_bound_push_out_the_oldest(chip: Chip, link: SupervisorLink) -> None:
    for number in range(MAX_EVENTS + 1):
        chip.send(encode(50_000 + number, messages.build(Kind.EVENT, EventKind.WARNED, number)))
    wait_for("the last event", lambda: link._events and link._events[-1][1] == MAX_EVENTS)
    assert [value for _, value in link.take_events()] == list(range(1, MAX_EVENTS + 1))


def test_the_abilities_of_a_board_with_a_supervisor(chip: Chip, link: SupervisorLink) -> None:
    found = board_abilities(parse_board(ALWAYS.encode()), link)
    assert found.relay
    assert found.watchdog
    assert found.leds
    assert found.power
    assert found.relay.is_bypassing()
    found.watchdog.feed()
    wait_for("the wire", lambda: not found.relay.is_bypassing())
    found.relay.set_bypass(bypass=True)
    assert found.relay.is_bypassing()
    found.relay.set_bypass(bypass=False)
    wait_for("the wire", lambda: not found.relay.is_bypassing())
    found.leds.show("update-done", lit=True)
    assert chip.keeper.result == Show.UPDATE_DONE
    with pytest.raises(HardwareError):
        found.leds.show("disco", lit=True)
    event = found.power.last_event()
    assert event is not None
    assert (event.kind, event.serial) == (PowerKind.COLD.name.lower(), 1)
    found.power.announce_restart(quiet_s=60, update=False)
    assert found.relay.is_bypassing()
    assert found.watchdog.timeout_s() == 5


def test_a_watchdog_that_is_not_fed_gives_up_the_wire(chip: Chip, link: SupervisorLink) -> None:
    watchdog = SupervisedWatchdog(link, timeout_s=1)

    def through_while_fed() -> bool:
        watchdog.feed()
        return link.status().through

    wait_for("the wire", through_while_fed)
    wait_for("the wire past the box", lambda: not link.status().through)
    watchdog.close()


def test_the_abilities_of_a_board_without_one(tmp_path: Path) -> None:
    board = parse_board(BOARD.encode())
    bare = board_abilities(board, None, leds=tmp_path)
    assert (bare.relay, bare.watchdog, bare.leds, bare.power) == (None, None, None, None)
    lamp = tmp_path / "power"
    lamp.mkdir()
    (lamp / "brightness").write_text("0")
    (lamp / "max_brightness").write_text("255\n")
    leds = board_abilities(board, None, leds=tmp_path).leds
    assert leds is not None
    assert leds.names() == ("power",)
    leds.show("power", lit=True)
    assert (lamp / "brightness").read_text() == "255"
    leds.show("power", lit=False)
    assert (lamp / "brightness").read_text() == "0"
    with pytest.raises(HardwareError):
        leds.show("../power", lit=True)
    with pytest.raises(HardwareError):
        board_abilities(parse_board(ALWAYS.encode()), None)


def test_a_line_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "absent"):
        with pytest.raises(LinkLostError):
            open_line(tmp_path / name)


def test_a_pseudo_terminal_carries_every_byte() -> None:
    ours, theirs = os.openpty()
    every = bytes(range(256))
    with open_line(Path(os.ttyname(theirs))) as line, Line(ours) as other:
        line.write(every)
        came = b""
        while len(came) < 256:
            came += other.read(5.0)
        other.write(every)
        back = b""
        while len(back) < 256:
            back += line.read(5.0)
        assert came == back == every
    os.close(theirs)


def test_a_pack_of_measurements() -> None:
    pack = [{-2: "supervisor", 0: "temp", 1: "Cel", 2: -3}, {0: "through", 4: True}]
    assert resolve(cbor.encode(pack)) == {
        "temp": Measurement("temp", "Cel", -3),
        "through": Measurement("through", "", True),
    }
    assert resolve(cbor.encode([{-5: 10, -4: "V", 0: "a", 2: 1}]))["a"] == Measurement("a", "V", 11)


@pytest.mark.parametrize(
    "pack",
    [
        {},
        [1],
        [{2: 1}],
        [{0: "a"}],
        [{0: "a", 2: 1, 4: True}],
        [{0: "a", 2: True}],
        [{0: "a", 3: "text"}],
        [{0: "a", 2: 1}, {0: "a", 2: 2}],
        [{0: 1, 2: 1}],
        [{-16: 1, 0: "a", 2: 1}],
    ],
)
def test_a_pack_that_the_supervisor_does_not_send_is_refused(pack: object) -> None:
    with pytest.raises(BadMessageError):
        resolve(cbor.encode(pack))
