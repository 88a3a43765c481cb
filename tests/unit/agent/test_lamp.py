"""The code on the lamp: each digit as so many blinks, on lamps that are there to be looked at."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from omamori_agent import lamp
from omamori_agent.config import Paths
from omamori_hw.supervisor.abilities import SysfsLeds
from omamori_protocol.trouble import Trouble


def board(root: Path, *names: str) -> SysfsLeds:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "brightness").write_text("0")
        (root / name / "max_brightness").write_text("255\n")
    return SysfsLeds(root)


def made(root: Path, *, code: str) -> Paths:
    """Return paths below a directory, with a code and what calls for the lamp."""
    paths = Paths(root / "box")
    paths.trouble_code.parent.mkdir(parents=True)
    paths.trouble_code.write_text(code)
    lamp.call_for_lamp(paths)
    return paths


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
    paths = made(tmp_path, code="7121\n")
    seen: list[str] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append((tmp_path / "leds/box:red:fault/brightness").read_text().strip())
            if len(seen) > 30:
                paths.trouble_code.write_text("0\n")
                lamp.call_for_lamp(paths)
            return False

    lamp.blink(paths, leds, Stop())
    assert seen.count("255") % (7 + 1 + 2 + 1) == 0
    assert (tmp_path / "leds/box:red:fault/brightness").read_text() == "0"


def test_a_lamp_that_is_plugged_in_later_is_found(tmp_path: Path) -> None:
    leds = board(tmp_path / "leds")
    paths = made(tmp_path, code="7121\n")
    seen: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            seen.append(timeout)
            if len(seen) == 3:
                board(tmp_path / "leds", "input0::capslock")
            return len(seen) > 10

    stop = Stop()
    stop.is_set = lambda: len(seen) > 10  # type: ignore[method-assign]
    lamp.blink(paths, leds, stop)
    assert seen[:5] == [lamp.IDLE_S] * 3 + [lamp.BEGIN_S, lamp.ON_S]


def test_it_waits_while_it_is_called_for_and_ends_when_it_is_not(tmp_path: Path) -> None:
    """Else the service manager would start it again and again."""
    paths = made(tmp_path, code="0\n")
    paths.lamp_wanted.touch()
    seen: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(timeout or 0.0)
            if len(seen) == 3:
                lamp.call_for_lamp(paths)
            return False

    lamp.blink(paths, board(tmp_path / "leds", "box:red:fault"), Stop())
    assert seen == [lamp.IDLE_S] * 3


@pytest.mark.parametrize(
    ("code", "identify", "wanted"),
    [("7121\n", "0\n", True), ("0\n", "1001\n", True), ("0\n", "1000\n", False), ("junk", "junk", False)],
)
@pytest.mark.parametrize("before", [False, True])
def test_when_the_lamp_is_called_for(tmp_path: Path, code: str, identify: str, *, wanted: bool, before: bool) -> None:
    paths = made(tmp_path, code=code)
    paths.identify.write_text(identify)
    paths.lamp_wanted.unlink(missing_ok=True)
    if before:
        paths.lamp_wanted.touch()
    lamp.call_for_lamp(paths, lambda: 1000.0)
    assert paths.lamp_wanted.exists() is wanted


def test_which_box_it_is_goes_before_the_code_and_ends_by_itself(tmp_path: Path) -> None:
    leds = board(tmp_path / "leds", "box:red:fault")
    paths = made(tmp_path, code="7121\n")
    now_s = [1000.0]
    steps: list[tuple[str, float]] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            now_s[0] += timeout
            steps.append(((tmp_path / "leds/box:red:fault/brightness").read_text().strip(), timeout))
            if len(steps) == 2:  # in the pause before the first digit: somebody asks
                paths.identify.write_text(f"{int(now_s[0]) + 2}\n")
            if now_s[0] > 1030:
                paths.trouble_code.write_text("0\n")
                lamp.call_for_lamp(paths, lambda: now_s[0])
            return False

    lamp.blink(paths, leds, Stop(), boottime_s=lambda: now_s[0])
    fast = [lit for lit, seconds in steps if seconds == lamp.IDENTIFY_S]
    assert fast[:4] == ["255", "0", "255", "0"]
    assert 1.0 <= len(fast) * lamp.IDENTIFY_S <= 2.25
    assert [seconds for _lit, seconds in steps[:2]] == [lamp.BEGIN_S, lamp.ON_S]
    assert steps[2][1] == lamp.IDENTIFY_S  # at once, not after the code
    assert steps[-1][1] != lamp.IDENTIFY_S  # the code came back, whole
    assert (tmp_path / "leds/box:red:fault/brightness").read_text() == "0"


@pytest.mark.parametrize("text", ["", "0\n", "x\n", "-1\n", "12345678901234567\n", "１２\n", "999\n"])
def test_what_is_no_moment_or_is_over_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "identify").write_text(text)
    assert lamp.read_moment(tmp_path / "identify") <= 1000
