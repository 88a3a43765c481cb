"""The code on the lamp: each digit as so many blinks, on lamps that are there to be looked at."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from omamori_agent import lamp
from omamori_hw.supervisor.abilities import SysfsLeds
from omamori_protocol.trouble import Trouble


def board(root: Path, *names: str) -> SysfsLeds:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "brightness").write_text("0")
        (root / name / "max_brightness").write_text("255\n")
    return SysfsLeds(root)


def digits(code: int) -> list[int]:
    """Read a pattern as a person does."""
    counts = [0]
    for lit, seconds in lamp.pattern(code):
        if lit:
            counts[-1] += 1
        elif seconds == lamp.BETWEEN_DIGITS_S:
            counts.append(0)
    return counts


@pytest.mark.parametrize("trouble", list(Trouble))
def test_a_pattern_is_read_as_its_code(trouble: Trouble) -> None:
    assert digits(trouble) == [int(digit) for digit in f"{trouble:d}"]


def test_zero_is_ten_blinks_as_on_the_supervisor() -> None:
    assert digits(1020) == [1, 10, 2, 10]


def test_a_round_is_short_enough_to_be_watched() -> None:
    assert max(sum(seconds for _, seconds in lamp.pattern(trouble)) for trouble in Trouble) < 25


def test_only_lamps_that_are_there_to_be_looked_at() -> None:
    keyboard = ("input0::capslock", "input0::numlock")
    assert lamp.lamps(("eth0:green:link", "mmc0::")) == ()
    assert lamp.lamps(("eth0:green:link", *keyboard)) == ("input0::capslock",)
    assert lamp.lamps(("box:red:fault", "box:green:status", *keyboard)) == ("box:red:fault", "box:green:status")


@pytest.mark.parametrize("text", ["", "0\n", "x\n", "-1\n", "99999\n", "1234567890\n", "７１２１\n"])
def test_what_is_no_code_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "code").write_text(text)
    assert lamp.read_code(tmp_path / "code") == 0


def test_it_blinks_until_the_code_is_gone_and_leaves_the_lamp_dark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leds = board(tmp_path / "leds", "box:red:fault")
    code = tmp_path / "code"
    code.write_text("7121\n")
    seen: list[str] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append((tmp_path / "leds/box:red:fault/brightness").read_text().strip())
            if len(seen) > 30:
                code.write_text("0\n")
            return False

    lamp.blink(code, leds, Stop())
    assert seen.count("255") % (7 + 1 + 2 + 1) == 0
    assert (tmp_path / "leds/box:red:fault/brightness").read_text() == "0"


def test_a_board_without_a_lamp_is_fine(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("7121\n")
    lamp.blink(tmp_path / "code", board(tmp_path / "leds"), threading.Event())
