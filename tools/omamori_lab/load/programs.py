"""The load programs, compiled from the C files beside this module when they are not in the cache."""

from __future__ import annotations

from pathlib import Path

from omamori_firmware.cache import Cache
from omamori_firmware.files import sha256_tree
from omamori_lab.run import run

STAGE = "load"
PROGRAMS = {"probe": (), "flood": (), "web": ("-lssl", "-lcrypto")}
_SOURCE = Path(__file__).resolve().parent
_TIMEOUT_S = 120.0


def obtain_load_programs(cache: Cache) -> Path:
    """Return the directory with the programs `probe`, `flood` and `web`.

    Raises:
        SetupError: No compiler.
        CommandError: They do not compile; a library is missing.
    """
    return cache.obtain(STAGE, {"source": sha256_tree([_SOURCE])}, compile_programs)


def compile_programs(directory: Path) -> None:
    """Compile them into an existing directory."""
    for name, libraries in PROGRAMS.items():
        line: list[str | Path] = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", directory / name]
        run([*line, _SOURCE / f"{name}.c", *libraries], timeout_s=_TIMEOUT_S, hint="run: make setup")
