"""The only module of this package that starts a process."""

from __future__ import annotations

import resource
import subprocess  # noqa: TID251 - this is the one place
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from .errors import EngineError, SourceError

_MAX_OUTPUT = 64 * 1024
_KILL_AFTER_S = 10.0


def run(command: list[str], *, timeout_s: float, directory: Path, max_output: int = _MAX_OUTPUT) -> tuple[int, str]:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        timeout_s: Seconds it may take.
        directory: Its working directory.
        max_output: Bytes of its output that are returned.

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
    return done.returncode, done.stdout[-max_output:].decode(errors="replace")


@contextmanager
def output_of(command: list[str]) -> Iterator[BinaryIO]:
    """Start a command and give its output as a stream; whoever stops reading early ends it.

    Raises:
        SourceError: It cannot be started, or it was read to its end and failed.
    """
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as err:
        raise SourceError(f"cannot start {command[0]}: {err.strerror}", hint=f"install {command[0]}") from err
    assert process.stdout is not None
    try:
        yield cast("BinaryIO", process.stdout)
        read_to_end = not process.stdout.read(1)
    except BaseException:
        process.kill()
        raise
    finally:
        process.stdout.close()
        try:
            status = process.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    if read_to_end and status != 0:
        raise SourceError(f"{Path(command[0]).name} failed with status {status}: the file is not intact")


def children_peak_bytes() -> int:
    """Return the largest resident size that any ended child of this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
