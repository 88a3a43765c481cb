"""Where other people's programs come from: the image builder's tools tree, or this machine.

The tools tree is the default, because its versions are locked: the same input gives the same bundle everywhere. This
package does not know how the tree is made; it asks the image builder's command to run something inside.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from omamori_ota.run import run

TIMEOUT_S = 900.0


class Programs(Protocol):
    """Runs mksquashfs, rauc and openssl."""

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        binds: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        input_bytes: bytes = b"",
    ) -> bytes:
        """Run a program to its end and return its standard output.

        Args:
            argv: Program and arguments.
            binds: Directories that the program must see, under the same names.
            env: Variables to set besides ours.
            input_bytes: Its standard input.

        Raises:
            SetupError: The program is not there.
            ProgramError: It failed.
        """


class HostPrograms:
    """The programs of this machine."""

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        binds: Sequence[Path] = (),  # noqa: ARG002 - this machine's programs see everything
        env: Mapping[str, str] | None = None,
        input_bytes: bytes = b"",
    ) -> bytes:
        """Run a program; see `Programs`."""
        return run(argv, timeout_s=TIMEOUT_S, env={**os.environ, **(env or {})}, input_bytes=input_bytes)


class TreePrograms:
    """The programs of the image builder's tools tree; only root can run them.

    Args:
        command: The image builder's command; None for the one beside this program.
    """

    def __init__(self, command: Path | None = None) -> None:
        self._command = command or Path(sys.executable).with_name("omamori-image")

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        binds: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        input_bytes: bytes = b"",
    ) -> bytes:
        """Run a program; see `Programs`."""
        options = [f"--bind={path}" for path in dict.fromkeys(path.resolve() for path in binds)]
        line = [self._command, "enter", *options, "--", *argv]
        return run(line, timeout_s=TIMEOUT_S, env={**os.environ, **(env or {})}, input_bytes=input_bytes)
