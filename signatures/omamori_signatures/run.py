"""The only module of this package that starts a process."""

from __future__ import annotations

import subprocess  # noqa: TID251 - this is the one place
from pathlib import Path

from .errors import EngineError

_MAX_OUTPUT = 64 * 1024


def run(command: list[str], *, timeout_s: float, directory: Path) -> tuple[int, str]:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        timeout_s: Seconds it may take.
        directory: Its working directory.

    Returns:
        Exit status, and the last part of what it wrote to stdout and stderr.

    Raises:
        EngineError: It cannot be started, or took too long and was ended.
    """
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as err:
        raise EngineError(f"{command[0]} is not there", hint="give the engine with --engine or --engine-root") from err
    except OSError as err:
        raise EngineError(f"cannot start {command[0]}: {err.strerror}") from err
    except subprocess.TimeoutExpired as err:
        raise EngineError(f"{command[0]} did not end within {timeout_s:g} s") from err
    return done.returncode, done.stdout[-_MAX_OUTPUT:].decode(errors="replace")
