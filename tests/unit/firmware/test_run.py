"""Other programs: time-outs, failures, interruption."""

import contextlib
import os
import sys
import time

import pytest

from omamori_firmware import run
from omamori_firmware.errors import SetupError, ToolError


def test_output_comes_back() -> None:
    assert run.run(["cat"], input_bytes=b"hello", timeout_s=10) == b"hello"


def test_a_failure_carries_status_and_last_words() -> None:
    with pytest.raises(ToolError, match="too bad") as caught:
        run.run(["sh", "-c", "echo too bad >&2; exit 3"], timeout_s=10, hint="do better")
    assert (caught.value.exit_code, caught.value.program, caught.value.hint) == (3, "sh", "do better")


def test_a_program_that_takes_too_long_is_ended() -> None:
    begin = time.monotonic()
    with pytest.raises(ToolError, match="too long"):
        run.run(["sleep", "60"], timeout_s=0.2)
    assert time.monotonic() - begin < 8


def test_a_missing_program_says_what_to_do() -> None:
    with pytest.raises(SetupError) as caught:
        run.run(["omamori-no-such-program"], timeout_s=1)
    assert "tools/setup.sh" in str(caught.value.hint)
    with pytest.raises(SetupError):
        run.require("omamori-no-such-program")


def test_lines_arrive_one_by_one() -> None:
    lines: list[str] = []
    run.run_streaming(["sh", "-c", "echo one; echo two >&2"], timeout_s=10, on_line=lines.append)
    assert sorted(lines) == ["one", "two"]


def test_a_streaming_program_that_fails_or_hangs() -> None:
    with pytest.raises(ToolError, match="last"):
        run.run_streaming(["sh", "-c", "echo last; exit 1"], timeout_s=10, on_line=lambda _: None)
    with pytest.raises(ToolError) as caught:
        run.run_streaming(["sleep", "60"], timeout_s=0.2, on_line=lambda _: None)
    assert caught.value.exit_code is None


def test_an_interrupted_build_ends_its_program() -> None:
    seen: list[int] = []

    def interrupt(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run.run_streaming([sys.executable, "-c", code], timeout_s=30, on_line=interrupt)
    with contextlib.suppress(ProcessLookupError):
        os.kill(seen[0], 0)
        pytest.fail("still running")
