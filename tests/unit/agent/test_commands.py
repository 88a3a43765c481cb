"""Commands: each once, only while valid; a bypass begins, ends, and is on record with who asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from omamori_agent.desired.bypass import Bypass
from omamori_agent.desired.commands import Commands
from omamori_agent.desired.errors import CommandRefusedError
from omamori_agent.desired.store import DesiredStore
from omamori_agent.desired.worker import EventDesk
from omamori_protocol import cose
from omamori_protocol.command import Command, Verb
from omamori_protocol.errors import MalformedError
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
        self.restart("boot-1")

    def restart(self, boot_id: str) -> None:
        self.bypass = Bypass(
            self.directory / "bypass.json",
            self.gate,
            boot_id=boot_id,
            boottime_s=self.clock.monotonic,
            tell=EventDesk(self.outbox, self.clock).tell,
        )
        store = DesiredStore(self.directory)
        store.load([KEY.public_key()], DEVICE)
        self.commands = Commands(
            device=DEVICE,
            keys=[KEY.public_key()],
            store=store,
            bypass=self.bypass,
            clock=self.clock,
            maximum=4,
        )
        self.bypass.load()

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
        dataclasses.replace(command(), verb=2).encode()  # type: ignore[arg-type]
