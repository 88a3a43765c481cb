"""Commands: each once, only while valid; a bypass begins, ends, and is on record with who asked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from omamori_agent.desired.bypass import Bypass
from omamori_agent.desired.commands import Commands
from omamori_agent.desired.diagnostics import DiagnosticsAnswer
from omamori_agent.desired.errors import CommandRefusedError
from omamori_agent.desired.identify import Identify
from omamori_agent.desired.reboot import Reboot
from omamori_agent.desired.store import DesiredStore
from omamori_agent.desired.worker import EventDesk
from omamori_protocol import cose
from omamori_protocol.command import Command, Moment, Verb
from omamori_protocol.desired import FirmwareWindow
from omamori_protocol.diagnostics import Diagnostics
from omamori_protocol.errors import MalformedError
from omamori_protocol.reported import PartState
from omamori_protocol.vocabulary import Severity
from sim.box import DEVICE
from sim.clock import ManualClock
from sim.desired import SimulatedSteering
from sim.outbox import MemoryOutbox

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW_S = 1_790_000_000


class Box:
    """Commands and the bypass; `restart` is a new agent, perhaps in a new boot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock(NOW_S)
        self.gate = SimulatedSteering()
        self.outbox = MemoryOutbox()
        self.lamps: tuple[str, ...] = ("box:green:status",)
        self.lines: list[str] = []
        self.calls: list[str] = []  # what the lamp found when it was called
        self.window: FirmwareWindow | None = FirmwareWindow(days=127, start_min=120, length_min=60, zone="Asia/Tokyo")
        self.disturbs = ""
        self.knows_time = True
        self.run = directory / "run"
        self.run.mkdir()
        self.restart("boot-1")

    def restart(self, boot_id: str) -> None:
        if boot_id != getattr(self, "boot_id", boot_id):
            self.request.unlink(missing_ok=True)  # it is in memory
        self.boot_id = boot_id
        tell = EventDesk(self.outbox, self.clock).tell
        self.bypass = Bypass(
            self.directory / "bypass.json",
            self.gate,
            boot_id=boot_id,
            boottime_s=self.clock.monotonic,
            tell=tell,
        )
        identify = Identify(
            self.run / "identify",
            call=lambda: self.calls.append((self.run / "identify").read_text()),
            lamps=lambda: self.lamps,
            device=DEVICE,
            boottime_s=self.clock.monotonic,
            console=self.lines.append,
            tell=tell,
        )
        reboot = Reboot(
            self.directory / "reboot.json",
            self.request,
            boot_id=boot_id,
            clock=self.clock,
            is_clock_known=lambda: self.knows_time,
            window=lambda: self.window,
            busy=lambda: self.disturbs,
            tell=tell,
        )
        store = DesiredStore(self.directory)
        store.load([KEY.public_key()], DEVICE)
        self.commands = Commands(
            device=DEVICE,
            keys=[KEY.public_key()],
            store=store,
            bypass=self.bypass,
            identify=identify,
            reboot=reboot,
            diagnostics=DiagnosticsAnswer(
                self.directory / "diagnostics.cbor", collect=lambda: b"content", clock=self.clock, tell=tell
            ),
            clock=self.clock,
            maximum=4,
        )
        self.commands.load()

    @property
    def request(self) -> Path:
        return self.run / "reboot"

    def pass_time(self, seconds: float) -> None:
        """Let time pass as the worker does: it looks every now and then."""
        for _ in range(8):
            self.clock.advance(seconds / 8)
            self.commands.tend()

    @property
    def texts(self) -> list[str]:
        return [event.text or "" for event in self.outbox.events]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def command(number: int = 1, **changes: object) -> Command:
    made = Command(
        device=DEVICE,
        command_id=number.to_bytes(8, "big"),
        verb=Verb.BYPASS,
        issued_s=NOW_S,
        expires_s=NOW_S + 600,
        minutes=30,
        asked_by="佐藤",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def sealed(what: Command, key: Ed25519PrivateKey = KEY, context: bytes = cose.COMMAND_CONTEXT) -> bytes:
    return cose.seal(what.encode(), key, context)


def test_bypass_begins_and_ends_by_itself(box: Box) -> None:
    assert box.commands.take(sealed(command())) == command()
    assert box.gate.bypasses == [1800.0]
    assert box.bypass.left_s() == 1800.0
    box.clock.advance(1799)
    box.bypass.tend()
    assert len(box.texts) == 1
    box.clock.advance(1)
    box.bypass.tend()
    box.bypass.tend()
    assert box.texts == [
        "bypass: nothing is inspected for 30 min, asked for by 佐藤",
        "bypass asked for by 佐藤 ended after 30 min",
    ]
    assert box.outbox.events[0].severity is Severity.TWO
    assert box.bypass.left_s() == 0
    assert not (box.directory / "bypass.json").exists()


def test_same_command_twice_is_done_once_also_by_another_agent(box: Box) -> None:
    box.commands.take(sealed(command()))
    box.clock.advance(60)
    assert box.commands.take(sealed(command())) is None
    box.restart("boot-1")
    assert box.commands.take(sealed(command())) is None
    assert box.gate.bypasses == [1800.0, 1740.0]  # the second by the restart: what is left, not more
    box.restart("boot-2")
    assert box.commands.take(sealed(command())) is None


def test_zero_minutes_ends_it_early(box: Box) -> None:
    box.commands.take(sealed(command(1)))
    box.commands.take(sealed(command(2, minutes=0, asked_by="鈴木")))
    assert box.gate.bypass_s == 0
    assert box.texts[-1] == "bypass asked for by 佐藤 ended by 鈴木"
    box.commands.take(sealed(command(3, minutes=0)))
    assert len(box.texts) == 2  # nothing to end, nothing to tell


def test_longer_one_takes_the_place_of_a_shorter_one(box: Box) -> None:
    box.commands.take(sealed(command(1, minutes=5)))
    box.commands.take(sealed(command(2, minutes=60)))
    box.clock.advance(400)
    box.bypass.tend()
    assert box.bypass.left_s() == 3200
    assert not any("ended" in text for text in box.texts)


def test_restart_of_the_box_ends_it_on_record(box: Box) -> None:
    box.commands.take(sealed(command()))
    box.restart("boot-2")
    assert box.texts[-1] == "bypass asked for by 佐藤 ended: the box was restarted"
    assert box.bypass.left_s() == 0
    assert box.gate.bypasses == [1800.0]


def test_restart_of_the_agent_goes_on_and_waits_for_the_gate(box: Box) -> None:
    box.commands.take(sealed(command()))
    box.gate.is_there = False
    box.clock.advance(60)
    box.restart("boot-1")
    box.gate.is_there = True
    box.gate.reset()
    box.clock.advance(60)
    box.bypass.tend()
    assert box.gate.bypass_s == 1680.0


def test_without_a_gate_it_is_refused_and_nothing_is_pretended(box: Box) -> None:
    box.gate.is_there = False
    with pytest.raises(CommandRefusedError, match="gate") as caught:
        box.commands.take(sealed(command()))
    assert caught.value.command_id == command().command_id
    assert box.bypass.left_s() == 0
    assert not (box.directory / "bypass.json").exists()
    assert box.texts == []


def failing(box: Box, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, full)
    with pytest.raises(CommandRefusedError, match="No space"):
        box.commands.take(sealed(command()))
    assert box.gate.bypasses == []


def test_disk_that_is_full_does_nothing(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(box, monkeypatch, "omamori_agent.desired.store.write_atomic")
    monkeypatch.undo()
    failing(box, monkeypatch, "omamori_agent.desired.bypass.write_atomic")


def expired(box: Box) -> bytes:
    box.clock.advance(600)
    return sealed(command())


def of_the_future(box: Box) -> bytes:
    return sealed(command(issued_s=NOW_S + 200_000, expires_s=NOW_S + 200_600))


def clock_set_back(box: Box) -> bytes:
    box.clock.advance(1000)
    box.commands.take(sealed(command(9, issued_s=NOW_S + 900, expires_s=NOW_S + 1500)))
    box.clock.advance(-1000)
    box.restart("boot-1")
    return sealed(command())


def many(box: Box) -> bytes:
    for number in range(2, 6):
        box.commands.take(sealed(command(number)))
    return sealed(command())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _box: b"junk", "no tag 18"),
        (lambda _box: sealed(command(), Ed25519PrivateKey.from_private_bytes(bytes(32))), "not signed"),
        (lambda _box: sealed(command(), context=cose.DESIRED_CONTEXT), "not signed"),
        (lambda _box: sealed(command(device="ZA35-000002")), "it is for ZA35-000002"),
        (lambda _box: sealed(command()) + bytes(1000), "allowed"),
        (expired, "it has expired"),
        (of_the_future, "of the future"),
        (clock_set_back, "it has expired"),
        (many, "too many commands"),
    ],
)
def test_refused_command_does_nothing(box: Box, make: Callable[[Box], bytes], said: str) -> None:
    signed = make(box)
    done = len(box.gate.bypasses)
    with pytest.raises(CommandRefusedError, match=said):
        box.commands.take(signed)
    assert len(box.gate.bypasses) == done


def test_memory_of_commands_forgets_what_has_expired(box: Box) -> None:
    many(box)
    box.clock.advance(601)
    later = int(box.clock.now())
    assert box.commands.take(sealed(command(7, issued_s=later, expires_s=later + 60))) is not None


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b'{"format": 1, "seen": [["00", 1]], "newest_s": 0}'])
def test_damaged_memory_is_put_aside(box: Box, content: bytes) -> None:
    (box.directory / "commands.json").write_bytes(content)
    (box.directory / "bypass.json").write_bytes(content)
    box.restart("boot-1")
    assert (box.directory / "commands.json.bad").exists()
    assert box.commands.take(sealed(command())) is not None


def test_command_cannot_even_be_made_with_another_verb() -> None:
    with pytest.raises((MalformedError, ValueError)):
        dataclasses.replace(command(), verb=5).encode()  # type: ignore[arg-type]


def identify(number: int = 1, minutes: int = 5) -> bytes:
    return sealed(command(number, verb=Verb.IDENTIFY, minutes=minutes))


def test_lamp_and_console_say_which_box_it_is(box: Box) -> None:
    now_s = box.clock.monotonic()
    box.commands.take(identify())
    assert int((box.run / "identify").read_text()) == pytest.approx(now_s + 300, abs=1)
    assert box.lines == [f"this is {DEVICE}, asks 佐藤"]
    assert box.texts == ["the lamp shows for 5 min which box this is, asked for by 佐藤"]
    assert box.commands.take(identify()) is None
    assert len(box.calls) == 1
    box.commands.take(identify(2, minutes=0))
    assert (box.run / "identify").read_text() == "0\n"
    assert box.calls[1:] == ["0\n"]
    assert len(box.texts) == 1


def test_box_without_a_lamp_says_so_and_still_speaks_on_the_console(box: Box) -> None:
    box.lamps = ()
    with pytest.raises(CommandRefusedError, match="USB keyboard"):
        box.commands.take(identify())
    assert box.lines == [f"this is {DEVICE}, asks 佐藤"]
    assert not (box.run / "identify").exists()


def test_lamp_that_cannot_be_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omamori_agent.desired.identify.write_atomic", full)
    with pytest.raises(CommandRefusedError, match="No space"):
        box.commands.take(identify())
    assert box.texts == []


def reboot(number: int = 1, moment: Moment = Moment.NOW, **changes: object) -> bytes:
    return sealed(command(number, verb=Verb.REBOOT, minutes=0, moment=moment, **changes))


def outcome(box: Box) -> tuple[int, PartState, str | None]:
    told = box.commands.outcome(None)
    assert told is not None
    return int.from_bytes(told[0], "big"), told[1], told[2]


def test_restart_now_is_reported_first_and_done_once(box: Box) -> None:
    box.commands.take(reboot())
    box.commands.tend()
    assert not box.request.exists()
    assert outcome(box) == (1, PartState.PENDING, "restarts now")
    box.pass_time(8)
    assert box.request.read_bytes() == b"command\n"
    box.restart("boot-2")
    assert outcome(box) == (1, PartState.APPLIED, None)
    assert box.texts == ["the box restarts now, asked for by 佐藤", "the box was restarted, as 佐藤 asked"]
    assert box.commands.take(reboot()) is None  # delivered twice
    box.pass_time(1000)
    box.restart("boot-3")
    box.pass_time(1000)
    assert not box.request.exists()
    assert len(box.texts) == 2


def test_restart_that_does_not_come_is_asked_for_again(box: Box) -> None:
    box.commands.take(reboot())
    box.pass_time(8)
    os.utime(box.request, (0, 0))
    box.pass_time(60)
    assert box.request.stat().st_mtime == 0
    box.pass_time(120)
    assert box.request.stat().st_mtime > 0  # another one, so that it is noticed
    box.restart("boot-1")  # the agent alone
    assert outcome(box)[1] is PartState.PENDING


def test_restart_of_a_firmware_that_was_asked_for_is_left_alone(box: Box) -> None:
    box.request.write_bytes(b"firmware\n")
    box.commands.take(reboot())
    box.pass_time(1000)
    assert box.request.read_bytes() == b"firmware\n"


def test_restart_waits_for_the_window_also_in_another_agent(box: Box) -> None:
    box.commands.take(reboot(moment=Moment.WINDOW))  # NOW_S is 23:13 in Japan
    box.pass_time(3600)
    assert not box.request.exists()
    assert outcome(box) == (1, PartState.PENDING, "the window opens 2026-09-22 02:00 Asia/Tokyo")
    box.restart("boot-1")
    assert outcome(box) == (1, PartState.PENDING, "the window opens 2026-09-22 02:00 Asia/Tokyo")
    box.pass_time(7200)
    assert box.request.exists()
    assert outcome(box) == (1, PartState.PENDING, "restarts now")


def test_plug_pulled_before_the_window_is_a_restart_too(box: Box) -> None:
    box.commands.take(reboot(moment=Moment.WINDOW))
    box.restart("boot-2")
    assert outcome(box) == (1, PartState.APPLIED, None)
    box.pass_time(20_000)
    assert not box.request.exists()


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (None, "no window is agreed"),
        (FirmwareWindow(days=127, start_min=120, length_min=60, zone="Asia/Atlantis"), "Asia/Atlantis"),
    ],
)
def test_restart_in_a_window_that_nobody_knows_is_refused(box: Box, window: FirmwareWindow | None, said: str) -> None:
    box.window = window
    with pytest.raises(CommandRefusedError, match=said):
        box.commands.take(reboot(moment=Moment.WINDOW))
    assert box.commands.outcome(None) is None
    assert not (box.directory / "reboot.json").exists()


def test_window_that_is_gone_or_a_clock_that_is_lost_holds_it_back(box: Box) -> None:
    box.commands.take(reboot(moment=Moment.WINDOW))
    box.window = None
    box.pass_time(12_000)
    assert outcome(box)[1:] == (
        PartState.PENDING,
        "no window is agreed: the desired state has no section for firmware",
    )
    box.window = FirmwareWindow(days=127, start_min=120, length_min=60, zone="Asia/Tokyo")
    box.knows_time = False
    box.pass_time(100)
    assert outcome(box)[1:] == (PartState.PENDING, "the time of day is not known")
    assert not box.request.exists()
    box.window, box.knows_time = None, True
    box.pass_time(15 * 86400)
    assert outcome(box)[1:] == (PartState.REFUSED, "no window opened for two weeks")
    box.window = FirmwareWindow(days=127, start_min=0, length_min=1440, zone="Asia/Tokyo")
    box.pass_time(1000)
    assert not box.request.exists()
    assert not (box.directory / "reboot.json").exists()


def test_firmware_that_is_written_or_on_trial_is_not_disturbed(box: Box) -> None:
    box.disturbs = "firmware 1.4.0 is trying"
    box.commands.take(reboot())
    box.pass_time(600)
    assert outcome(box) == (1, PartState.PENDING, "firmware 1.4.0 is trying")
    assert not box.request.exists()
    box.disturbs = ""
    box.pass_time(60)
    assert box.request.exists()


def test_restart_is_taken_back(box: Box) -> None:
    box.commands.take(reboot(1, Moment.WINDOW))
    box.commands.take(reboot(2, Moment.NEVER, asked_by="鈴木"))
    assert outcome(box) == (1, PartState.REFUSED, "taken back by 鈴木")
    assert box.texts[-1] == "restart asked for by 佐藤 taken back by 鈴木"
    box.commands.take(reboot(3, Moment.NEVER))
    assert len(box.texts) == 2
    box.restart("boot-1")
    box.pass_time(20_000)
    assert not box.request.exists()


def test_later_restart_takes_the_place_of_one_that_waits(box: Box) -> None:
    box.commands.take(reboot(1, Moment.WINDOW))
    box.commands.take(reboot(2, Moment.NOW))
    box.pass_time(8)
    assert box.request.exists()
    box.restart("boot-2")
    assert outcome(box)[:2] == (2, PartState.APPLIED)


def test_restart_on_a_full_disk_is_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omamori_agent.desired.reboot.write_atomic", full)
    with pytest.raises(CommandRefusedError, match="No space"):
        box.commands.take(reboot())
    monkeypatch.undo()
    box.pass_time(600)
    assert not box.request.exists()
    assert box.texts == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 1}',
        b'{"format": 1, "boot_id": "x", "command_id": "00", "is_in_window": false, "asked_by": "", "asked_s": 1}',
        b"x" * 1025,
    ],
)
def test_damaged_record_of_a_restart_restarts_nothing(box: Box, content: bytes) -> None:
    (box.directory / "reboot.json").write_bytes(content)
    box.restart("boot-1")
    box.pass_time(600)
    assert not box.request.exists()
    assert box.commands.outcome(None) is None


def test_diagnostics_are_collected_once_and_kept_until_they_are_sent(box: Box) -> None:
    order = sealed(command(1, verb=Verb.DIAGNOSTICS, minutes=0))
    box.commands.take(order)
    box.commands.take(reboot(2))
    assert box.commands.outcome(bytes(7) + b"\x02")[1] is PartState.PENDING  # type: ignore[index]
    told = box.commands.outcome(bytes(7) + b"\x01")
    assert told is not None
    assert told[1] is PartState.PENDING
    assert box.commands.take(order) is None
    assert box.commands.outcome(bytes(8)) is None
    box.restart("boot-1")
    waiting = box.commands.jobs.waiting()
    assert waiting is not None
    assert Diagnostics.decode(waiting[1]).content == b"content"
