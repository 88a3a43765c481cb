"""Commands end in time, with bounded output, and take their children with them."""

import sys
import threading
import time

import pytest

from omamori_agent.run import CommandError, CommandInterruptedError, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_exit_code_and_output() -> None:
    result = run(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"), timeout_s=20)
    assert result.exit_code == 3
    assert set(result.output.split()) == {"out", "err"}


def test_only_the_end_of_a_long_output_is_kept() -> None:
    result = run(python("print('x' * 1000000); print('the end')"), timeout_s=20, max_output_bytes=100)
    assert len(result.output) == 100
    assert result.output.endswith("the end\n")


def test_bytes_that_are_no_text() -> None:
    assert run(python("import os; os.write(1, b'\\xff\\n')"), timeout_s=20).output == "\ufffd\n"


def test_absent_program() -> None:
    with pytest.raises(CommandError) as caught:
        run(["/nonexistent/program"], timeout_s=1)
    assert caught.value.command == "/nonexistent/program"


def test_hanging_command_is_killed_with_its_children() -> None:
    began = time.monotonic()
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(CommandError, match="in time"):
        run(python(code), timeout_s=1.0)
    assert time.monotonic() - began < 10


def test_command_that_closed_its_output_is_still_waited_for() -> None:
    result = run(python("import os, time; os.close(1); os.close(2); time.sleep(0.3); os._exit(5)"), timeout_s=20)
    assert result.exit_code == 5


def test_stop_kills_the_command_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(CommandInterruptedError):
        run(python("import time; time.sleep(60)"), timeout_s=50, stop=stop)
    assert time.monotonic() - began < 5
