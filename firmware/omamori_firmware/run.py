"""The only door to other programs: list arguments, time-out, captured output, typed failure.

It starts nothing through a shell and hides nothing of a failure. A program that is interrupted gets the time to
clean up after itself before it is killed.
"""

import contextlib
import shutil
import subprocess  # noqa: TID251 - this module is the package's one place that starts processes
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from omamori_firmware.errors import SetupError, ToolError

Process = subprocess.Popen[bytes]
_TAIL_BYTES = 64 * 1024
_GRACE_S = 10.0


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    input_bytes: bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> bytes:
    """Run a program to its end and return what it wrote to standard output.

    Args:
        argv: The program and its arguments.
        timeout_s: Seconds after which it is ended and counted as failed.
        input_bytes: Its standard input; None for an empty one.
        cwd: Directory to run in.
        env: Its whole environment; None to inherit ours.
        hint: What to tell the operator if it fails.

    Raises:
        SetupError: The program is not installed.
        ToolError: It failed or took too long.
    """
    process = _start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env=env)
    program = Path(argv[0]).name
    with process:
        try:
            output, errors = process.communicate(input_bytes, timeout=timeout_s)
        except subprocess.TimeoutExpired as err:
            end(process)
            raise ToolError(program, None, "", hint=hint) from err
        except BaseException:
            end(process)
            raise
    if process.returncode:
        raise ToolError(program, process.returncode, (errors or output).decode(errors="replace"), hint=hint)
    return output


def run_streaming(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> None:
    """Run a program and hand over each line it prints, for programs that take long.

    Args:
        argv: The program and its arguments.
        timeout_s: Seconds after which it is ended and counted as failed.
        on_line: Called with each line of standard output or error, without its end.
        env: Its whole environment; None to inherit ours.
        hint: What to tell the operator if it fails.

    Raises:
        SetupError: The program is not installed.
        ToolError: It failed or took too long.
    """
    process = _start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    assert process.stdout is not None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        end(process)

    timer = threading.Timer(timeout_s, expire)
    timer.start()
    tail = b""
    try:
        for raw in process.stdout:
            tail = (tail + raw)[-_TAIL_BYTES:]
            on_line(raw.decode(errors="replace").rstrip())
        process.wait()
    except BaseException:
        end(process)
        raise
    finally:
        timer.cancel()
        process.stdout.close()
    if process.returncode:
        code = None if expired.is_set() else process.returncode
        raise ToolError(Path(argv[0]).name, code, tail.decode(errors="replace"), hint=hint)


def spawn(
    argv: Sequence[str | Path],
    *,
    output: IO[bytes],
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a long-lived program in a session of its own and return it.

    Args:
        argv: The program and its arguments.
        output: Open file that receives its standard output and error.
        pass_fds: File descriptors it inherits under the same numbers.
        env: Its whole environment; None to inherit ours.

    Raises:
        SetupError: The program is not installed.
    """
    return _start(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        pass_fds=pass_fds,
        new_session=True,
    )


def end(process: Process) -> None:
    """Ask a program of ours to end, and kill it if it does not within ten seconds."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_exit(process: Process, timeout_s: float) -> int | None:
    """Wait for a program to end; return its status, or None when it still runs."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None


def require(program: str) -> str:
    """Return the path of a program of this machine.

    Raises:
        SetupError: It is not installed.
    """
    found = shutil.which(program)
    if found is None:
        raise SetupError(f"the program {program} is not installed", hint="run tools/setup.sh")
    return found


def _start(
    argv: Sequence[str | Path],
    *,
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    new_session: bool = False,
) -> Process:
    try:
        return subprocess.Popen(
            [str(part) for part in argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            pass_fds=pass_fds,
            start_new_session=new_session,
        )
    except FileNotFoundError as err:
        raise SetupError(f"the program {argv[0]} is not installed", hint="run tools/setup.sh") from err
