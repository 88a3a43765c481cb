"""What a box tells about itself when it is asked: only what is on the list, within bounds, until the broker has it."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest

from omamori_agent import diagnostics
from omamori_agent.config import Paths
from omamori_agent.desired.diagnostics import DiagnosticsAnswer
from omamori_agent.errors import TransientError
from omamori_agent.status import Status
from omamori_protocol.command import Command, Verb
from omamori_protocol.diagnostics import MAX_COMPRESSED_BYTES, Diagnostics, compress, decompress
from omamori_protocol.errors import OversizeError
from omamori_protocol.reported import PartState
from omamori_protocol.vocabulary import EngineState, Severity
from sim.box import CLAIM, DEVICE, make_box
from sim.clock import ManualClock

TOLD = {"format", "box", "status", "trouble", "boot", "supervisor", "kernel", "load", "memory_kib", "disk", "ports"}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return make_box(tmp_path)


def test_everything_of_a_box(paths: Paths) -> None:
    port = paths.interfaces / "wan"
    (port / "brport").mkdir(parents=True)
    (port / "statistics").mkdir()
    (port / "carrier").write_text("1\n")
    (port / "statistics/rx_errors").write_text("7\n")
    (paths.interfaces / "lo").mkdir()
    paths.trouble.parent.mkdir(parents=True, exist_ok=True)
    paths.trouble.write_text('{"format": 1, "troubles": [{"code": 7121, "word": "swapped"}]}')
    paths.supervisor.parent.mkdir(parents=True, exist_ok=True)
    paths.supervisor.write_text("{")
    told = diagnostics.collect(paths, Status(engine=EngineState.INSPECTING, connected=True), ["one"])
    assert set(told) == TOLD | {"log"}
    assert told["box"]["device"]["id"] == DEVICE
    assert told["status"]["engine"] == "inspecting"
    assert told["trouble"]["troubles"][0]["code"] == 7121
    assert "error" in told["supervisor"]
    assert told["boot"] is None
    assert told["memory_kib"] == {"MemTotal": 1_000_000, "MemAvailable": 612_344}
    assert list(told["ports"]) == ["wan"]
    assert (told["ports"]["wan"]["carrier"], told["ports"]["wan"]["rx_errors"]) == ("1", "7")
    assert told["disk"]["data"]["size_kib"] > 0
    assert decompress(diagnostics.pack(told)) == told


def test_box_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    told = diagnostics.collect(Paths(tmp_path / "nowhere"), Status(), [])
    assert set(told) == TOLD | {"log"}
    assert told["ports"] == {}
    assert told["disk"] == {"data": None, "run": None}
    assert decompress(diagnostics.pack(told)) == told


def test_no_secret_is_told(paths: Paths) -> None:
    paths.desired.mkdir(parents=True)
    (paths.desired / "wifi.conf").write_text("sae_password=correct horse battery\n")
    (paths.desired / "document.cose").write_bytes(b"correct horse battery")
    paths.identity.mkdir(parents=True, exist_ok=True)
    (paths.identity / "device.key").write_text("the key itself")
    text = json.dumps(diagnostics.collect(paths, Status(), []))
    for secret in (CLAIM, "correct horse", "the key itself"):
        assert secret not in text


def test_lines_of_log_are_bounded_and_harmless() -> None:
    kept = diagnostics.LogLines()
    logger = logging.getLogger("omamori_agent.test_diagnostics")
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    try:
        logger.debug("not told")
        for number in range(diagnostics.MAX_LINES + 1):
            logger.info("line %d", number)
        logger.warning("bell \a%s", "x" * 1000)
    finally:
        logger.removeHandler(kept)
    lines = kept.lines()
    assert len(lines) == diagnostics.MAX_LINES
    assert lines[0].endswith("line 2")
    assert "\a" not in lines[-1]
    assert len(lines[-1]) <= 300


def test_what_is_too_long_loses_its_oldest_lines() -> None:
    noise = random.Random(1)
    lines = [noise.randbytes(150).hex() for _ in range(300)]
    kept = decompress(diagnostics.pack({"log": lines}))["log"]
    assert 50 < len(kept) < 300
    assert kept == lines[-len(kept) :]
    with pytest.raises(OversizeError):
        diagnostics.pack({"log": lines, "more": noise.randbytes(MAX_COMPRESSED_BYTES).hex()})


class Box:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[tuple[str, Severity]] = []
        self.woken = 0
        self.content = compress({"format": 1})
        self.clock = ManualClock(1_790_000_000)
        self.restart()

    def restart(self) -> None:
        self.answer = DiagnosticsAnswer(
            self.path, collect=lambda: self.content, clock=self.clock, tell=lambda *line: self.told.append(line)
        )
        self.answer.subscribe(self.wake)
        self.answer.load()

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "diagnostics.cbor")


def command(number: int) -> Command:
    return Command(
        device=DEVICE,
        command_id=bytes([number] * 8),
        verb=Verb.DIAGNOSTICS,
        issued_s=1_790_000_000,
        expires_s=1_790_000_600,
        asked_by="佐藤",
    )


def test_answer_waits_over_a_restart_until_it_is_sent(box: Box) -> None:
    assert (box.answer.waiting(), box.answer.outcome()) == (None, None)
    box.answer.begin(command(1))
    for _ in range(2):
        waiting = box.answer.waiting()
        assert waiting is not None
        assert waiting[0] == bytes([1] * 8)
        assert decompress(Diagnostics.decode(waiting[1]).content) == {"format": 1}
        outcome = box.answer.outcome()
        assert outcome == (bytes([1] * 8), PartState.PENDING, "waits until the broker has them")
        box.restart()
    assert box.told == [("diagnostics collected, asked for by 佐藤", Severity.ONE)]
    assert box.woken == 3
    box.answer.sent(bytes([1] * 8))
    assert box.answer.waiting() is None
    assert box.answer.outcome() == (bytes([1] * 8), PartState.APPLIED, None)
    assert not box.path.exists()
    box.restart()
    assert box.answer.waiting() is None


def test_newer_one_takes_the_place_of_one_on_its_way(box: Box) -> None:
    box.answer.begin(command(1))
    box.answer.begin(command(2))
    box.answer.sent(bytes([1] * 8))
    waiting = box.answer.waiting()
    assert waiting is not None
    assert waiting[0] == bytes([2] * 8)


def test_disk_that_is_full_and_content_that_is_too_long(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    box.content = bytes(MAX_COMPRESSED_BYTES + 1)
    with pytest.raises(TransientError, match="allowed"):
        box.answer.begin(command(1))
    box.content = b""
    monkeypatch.setattr("omamori_agent.desired.diagnostics.write_atomic", full)
    with pytest.raises(TransientError, match="No space"):
        box.answer.begin(command(1))
    assert (box.answer.waiting(), box.told) == (None, [])


@pytest.mark.parametrize("content", [b"", b"junk", bytes(Diagnostics.MAX_BYTES + 1)])
def test_damaged_file_is_forgotten(box: Box, content: bytes) -> None:
    box.path.write_bytes(content)
    box.restart()
    assert box.answer.waiting() is None
    assert not box.path.exists()
