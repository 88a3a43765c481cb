"""The only door to other programs: list arguments, time-out, captured output, typed failure."""

from __future__ import annotations

import subprocess  # noqa: TID251 - this module is the package's one place that starts processes
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ProgramError, SetupError

_TAIL = 600


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    input_bytes: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Run a program to its end and return what it wrote to standard output.

    Args:
        argv: The program and its arguments.
        timeout_s: Seconds after which it is killed and counted as failed.
        input_bytes: Its standard input.
        env: Its whole environment; None to inherit ours.

    Raises:
        SetupError: The program is not installed.
        ProgramError: It failed or took too long.
    """
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            [str(part) for part in argv],
            input=input_bytes,
            capture_output=True,
            timeout=timeout_s,
            env=dict(env) if env is not None else None,
            check=False,
        )
    except FileNotFoundError as err:
        raise SetupError(f"the program {name} is not installed", hint="run tools/setup.sh") from err
    except subprocess.TimeoutExpired as err:
        raise ProgramError(f"{name} took longer than {timeout_s:g} s") from err
    if done.returncode:
        text = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ProgramError(f"{name} ended with status {done.returncode}: {text[-_TAIL:]}")
    return done.stdout
